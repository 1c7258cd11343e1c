"""Tries a variant of a model in a process of its own: one that crashes, hangs or wants all memory harms nobody."""

import contextlib
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
TIMED, ROUNDS = 12, 5  # inputs to time, and how often; of each batch the best time counts, the first compiles code
BATCH = 512  # padded tokens

FAILED = 2


def run(directory: Path, variant: Variant, limit: float = LIMIT) -> Measurement | str:
    """Try a variant of the model in this directory for up to `limit` seconds; a text says why nothing was measured."""
    command = (sys.executable, "-m", __name__, str(directory), *variant, str(int(limit) + 1))
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=limit, check=False
        )
    except subprocess.TimeoutExpired:
        return f"gave no result within {limit:g} s"
    said = done.stderr.strip().splitlines() or [""]
    if done.returncode < 0:
        with contextlib.suppress(ValueError):
            name = signal.Signals(-done.returncode).name
            memory = ", for lack of memory it seems" if name == "SIGKILL" or "alloc" in done.stderr else ""
            return f"died of {name}{memory}"
    if done.returncode:
        return said[-1] or f"ended with {done.returncode}"
    try:
        return Measurement.model_validate_json(done.stdout.strip().splitlines()[-1])
    except (ValidationError, IndexError):
        return "gave something that is no measurement"


def measure(ranker: Ranker, clock: Callable[[], float]) -> Measurement:
    """Score the calibration texts in two compositions of batches, and time some of them."""
    requests = calibration.requests("judge", QUERIES, DOCUMENTS)
    inputs = [ranker.encode(request.query, request.documents) for request in requests]
    every = [tokens for some in inputs for tokens in some]
    rows = iter(_rows(ranker, every, BATCH))
    scores = [ranker.scores(np.stack([next(rows) for _ in some])) for some in inputs]
    again = [ranker.scores(np.stack(_rows(ranker, some, 1))) for some in inputs[:AGAIN]]
    timed = sorted(every, key=lambda tokens: len(tokens.ids))[:: max(1, len(every) // TIMED)]
    batches = list(_batches(ranker, timed, BATCH))
    seconds = [math.inf] * len(batches)
    for _ in range(ROUNDS):
        for number, (batch, length) in enumerate(batches):
            began = clock()
            ranker.backend.run([timed[index] for index in batch], length)
            seconds[number] = min(seconds[number], clock() - began)
    return Measurement(
        scores=tuple(tuple(one) for one in scores),
        again=tuple(tuple(one) for one in again),
        speed=len(timed) / max(sum(seconds), 1e-9),
    )


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


def _restrain(seconds: int) -> None:
    """Let the kernel end this process before others: when it computes too long, or memory runs out."""
    resource.setrlimit(resource.RLIMIT_CPU, (seconds * 4, seconds * 4))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if (free := host.free_memory()) is not None:
        # Otherwise the kernel might end all processes of the container.
        resource.setrlimit(resource.RLIMIT_DATA, (free, free))
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def main(arguments: Sequence[str]) -> int:
    """In the process of its own: try one variant, and print the measurement."""
    directory, backend, precision, seconds = arguments
    variant = Variant(cast(BackendName, backend), cast(Precision, precision))
    _restrain(int(seconds))
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
        return FAILED
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
