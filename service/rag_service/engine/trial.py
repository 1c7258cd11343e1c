"""Tries a variant of a model in a process of its own: one that crashes, hangs or wants all memory harms nobody."""

import contextlib
import ctypes
import math
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from rag_service.contract.settings import BackendName, Precision
from rag_service.engine import host, rankers
from rag_service.engine.backends import Variant
from rag_service.engine.choice import Measurement
from rag_service.engine.pending import padded
from rag_service.engine.rankers import Ranker
from rag_service.engine.tokens import Tokens
from rag_service.models import ModelError, calibration, manifest

LIMIT = 120.0  # seconds; on a tenth of a core a trial takes a minute
QUERIES, DOCUMENTS = 8, 14  # to compare scores on
AGAIN = 2  # of the queries, whose pairs are scored once more, each alone
TIMED = (0.2, 0.5, 0.8, 0.95)  # which of the inputs are timed, by length
ROUNDS = 5  # each is timed; the best time counts, and the first compiles code
FULL = 256  # padded tokens in a batch that is timed: what a busy engine, or a request alone, brings together
BATCH = 512  # in one whose scores are compared

FAILED, STARVED = 2, 3
PR_SET_PDEATHSIG = 1  # of linux/prctl.h


class PassingFault(str):
    """Why nothing was measured this time: memory or time ran out. The next trial may have more of it."""

    __slots__ = ()


def run(directory: Path, variant: Variant, limit: float = LIMIT) -> Measurement | str:
    """Try a variant of the model in this directory for up to `limit` seconds; a text says why nothing was measured."""
    command = (sys.executable, "-m", __name__, str(directory), *variant)
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=limit, check=False
        )
    except subprocess.TimeoutExpired:
        return PassingFault(f"gave no result within {limit:g} s")
    if done.returncode:
        return _fault(done)
    try:
        return Measurement.model_validate_json(done.stdout.strip().splitlines()[-1])
    except (ValidationError, IndexError):
        return "gave something that is no measurement"


def _fault(done: subprocess.CompletedProcess[str]) -> str:
    """Why a trial ended without a result."""
    said = (done.stderr.strip().splitlines() or [f"ended with {done.returncode}"])[-1]
    if done.returncode == STARVED:
        return PassingFault(said)
    if done.returncode > 0:
        return said
    numbers = {number.value: number.name for number in signal.Signals}
    name = numbers.get(-done.returncode, f"signal {-done.returncode}")
    if name == "SIGKILL" or "alloc" in done.stderr:
        return PassingFault(f"died of {name}, for lack of memory it seems")
    return f"died of {name}"


def measure(ranker: Ranker, clock: Callable[[], float]) -> Measurement:
    """Score the calibration texts in two compositions of batches, and time some of them."""
    requests = calibration.requests("judge", QUERIES, DOCUMENTS)
    inputs = [ranker.encode(request.query, request.documents) for request in requests]
    every = [tokens for some in inputs for tokens in some]
    rows = iter(_rows(ranker, every, BATCH))
    scores = [ranker.scores(np.stack([next(rows) for _ in some])) for some in inputs]
    again = [ranker.scores(np.stack(_rows(ranker, some, 1))) for some in inputs[:AGAIN]]
    sorted_inputs = sorted(every, key=lambda tokens: len(tokens.ids))
    batches = [_full(ranker, sorted_inputs[int(share * len(sorted_inputs))]) for share in TIMED]
    seconds = [math.inf] * len(batches)
    for _ in range(ROUNDS):
        for number, (batch, length) in enumerate(batches):
            began = clock()
            ranker.backend.run(batch, length)
            seconds[number] = min(seconds[number], clock() - began)
    return Measurement(
        scores=tuple(tuple(one) for one in scores),
        again=tuple(tuple(one) for one in again),
        speed=sum(len(batch) for batch, _ in batches) / max(sum(seconds), 1e-9),
    )


def _full(ranker: Ranker, tokens: Tokens) -> tuple[list[Tokens], int]:
    """A batch of nothing but this input, and the length that it is padded to."""
    length = padded(len(tokens.ids), ranker.manifest.recipe.max_tokens)
    return [tokens] * max(1, FULL // length), length


def _rows(ranker: Ranker, inputs: Sequence[Tokens], budget: int) -> list[NDArray[np.float32]]:
    """One row an input, in batches of `budget` tokens or of one input."""
    found: dict[int, NDArray[np.float32]] = {}
    for batch, length in _batches(ranker, inputs, budget):
        found.update(zip(batch, ranker.backend.run([inputs[number] for number in batch], length), strict=True))
    return [found[number] for number in range(len(inputs))]


def _batches(ranker: Ranker, inputs: Sequence[Tokens], budget: int) -> Iterator[tuple[list[int], int]]:
    """Positions of inputs that run together, and the length that each of them is padded to."""
    lengths: dict[int, list[int]] = {}
    for number, tokens in enumerate(inputs):
        lengths.setdefault(padded(len(tokens.ids), ranker.manifest.recipe.max_tokens), []).append(number)
    for length, numbers in lengths.items():
        size = max(1, budget // length)
        for start in range(0, len(numbers), size):
            yield numbers[start : start + size], length


def _restrain() -> None:
    """Let the kernel end this process before others when memory runs out, and when its parent has ended."""
    # No limit on its time on the CPU: the kernel would count that time in steps of milliseconds only.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if (free := host.free_memory()) is not None:
        # Otherwise the kernel might end all processes of the container.
        resource.setrlimit(resource.RLIMIT_DATA, (free, free))
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def main(arguments: Sequence[str]) -> int:
    """In the process of its own: try one variant, and print the measurement."""
    directory, backend, precision = arguments
    variant = Variant(cast(BackendName, backend), cast(Precision, precision))
    _restrain()
    try:
        found = manifest.read(Path(directory))
        if found is None:
            raise ModelError(f"{directory} holds no prepared model")
        ranker = rankers.load(Path(directory), found, variant)
        # A CPU's time is what is measured, whatever runs beside; of a GPU's nothing would be seen that way.
        clock = time.perf_counter if host.read().gpu else time.process_time
        print(measure(ranker, clock).model_dump_json())  # noqa: T201
    except ModelError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return FAILED
    except MemoryError:
        print("there is not enough memory", file=sys.stderr)  # noqa: T201
        return STARVED
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
