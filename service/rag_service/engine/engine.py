"""The engine: threads that take batches of waiting inputs and hand scores back to the event loop."""

import asyncio
import logging
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from rag_service.contract.admission import retry_after
from rag_service.engine.pending import Batch, Pending
from rag_service.engine.rankers import Ranker
from rag_service.engine.tokens import Tokens

# Padded tokens in one batch. A longer one gains nothing on a CPU, and makes the next wait longer.
MOST_TOKENS, FEWEST_TOKENS = 512, 128
# A backend may fail on one batch: its requests fail, no others. One that fails so often in a row is broken.
FAILURES = 3

_NOTHING: NDArray[np.float32] = np.empty(0, np.float32)

log = logging.getLogger(__name__)


class EngineDownError(Exception):
    """A thread of the engine has died: nothing is computed any more, the process has to be restarted."""


class BatchFailedError(Exception):
    """The backend failed on a batch that held inputs of this request."""


class BusyError(Exception):
    """More waits than can be answered in time."""

    def __init__(self, wait: timedelta) -> None:
        super().__init__(wait)
        self.wait = wait


@dataclass(frozen=True)
class Scored:
    """Raw scores of the documents, in order, and how long each step took in seconds."""

    scores: Sequence[float]
    seconds: Mapping[str, float]


@dataclass
class Work:
    """Counters, in tokens without padding and seconds. Written under the engine's lock."""

    offered: int = 0
    scored: int = 0
    batches: int = 0
    busy: list[float] = field(default_factory=list)


@dataclass(eq=False)
class _Job:
    """The inputs of one request. Touched by the event loop alone, but for reading `inputs`."""

    ranker: Ranker
    inputs: Sequence[Tokens]
    done: asyncio.Future[NDArray[np.float32]]
    rows: list[NDArray[np.float32]]
    missing: int
    started: float | None = None  # when its first batch began, of `perf_counter`


class Engine:
    """Scores documents with any number of models, on a fixed number of threads."""

    def __init__(self, threads: int, patience: timedelta) -> None:
        """Work that could not be done within `patience` is refused."""
        self.work = Work(busy=[0.0] * threads)
        self._patience = patience
        self._pending: Pending[_Job, Ranker] = Pending()
        self._changed = threading.Condition()
        self._stopping = False
        self._died: BaseException | None = None
        self._jobs: set[_Job] = set()
        self._threads = [
            threading.Thread(target=self._run, args=(number,), name=f"engine-{number}", daemon=True)
            for number in range(threads)
        ]
        self._tokenising = ThreadPoolExecutor(1, "tokenise")
        self._loop: asyncio.AbstractEventLoop

    async def start(self) -> None:
        """Start the threads; scores are handed to the event loop that runs now."""
        self._loop = asyncio.get_running_loop()
        for thread in self._threads:
            thread.start()

    async def stop(self) -> None:
        """End the threads after the batches in hand. Requests that still wait fail."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        for thread in self._threads:
            await asyncio.to_thread(thread.join)
        self._tokenising.shutdown()
        self._fail("the engine was stopped")

    @property
    def alive(self) -> bool:
        """Whether every thread that was started can still work."""
        return self._died is None and all(thread.is_alive() for thread in self._threads)

    @property
    def queued_tokens(self) -> int:
        """Tokens that wait for a thread."""
        return self._pending.tokens

    @property
    def speed(self) -> float | None:
        """Tokens a second that all threads read together, measured so far; None before the first batch."""
        busy = sum(self.work.busy)
        return self.work.scored / busy * len(self._threads) if busy else None

    async def check(self, ranker: Ranker, query: str, documents: Sequence[str]) -> None:
        """Raise TooLongError when the model cannot read query and documents whole."""
        await self._loop.run_in_executor(self._tokenising, ranker.encode, query, documents, False)

    async def score(self, ranker: Ranker, query: str, documents: Sequence[str]) -> Scored:
        """Score documents. Cancel it when nobody wants the answer any more: what still waits is then never computed.

        Raises EngineDownError, BatchFailedError, and BusyError when more waits than could be done in time.
        """
        began = perf_counter()
        inputs = await self._loop.run_in_executor(self._tokenising, ranker.encode, query, documents)
        queued = perf_counter()
        job = _Job(ranker, inputs, self._loop.create_future(), [_NOTHING] * len(inputs), len(inputs))
        self._admit(job)
        try:
            rows = await job.done
        finally:
            self._jobs.discard(job)
            if job.missing:
                with self._changed:
                    self._pending.drop(job)
        scores = ranker.scores(rows)
        ended, started = perf_counter(), job.started or queued
        return Scored(scores, {"tokenise": queued - began, "queue": started - queued, "score": ended - started})

    def _admit(self, job: _Job) -> None:
        sizes = [len(tokens.ids) for tokens in job.inputs]
        with self._changed:
            if self._died or self._stopping:
                raise EngineDownError("the engine does not run")
            self.work.offered += sum(sizes)
            if wait := retry_after(self._pending.tokens, sum(sizes), self.speed, self._patience):
                raise BusyError(wait)
            self._jobs.add(job)
            self._pending.add(job, job.ranker, sizes)
            self._changed.notify(len(sizes))

    def _run(self, number: int) -> None:
        """One thread's life."""
        failures = 0
        try:
            while batch := self._next():
                began = perf_counter()
                inputs = [job.inputs[index] for job, index in batch.inputs]
                rows, error = _compute(batch.model, inputs, batch.length)
                failures = failures + 1 if error else 0
                with self._changed:
                    self.work.busy[number] += perf_counter() - began
                    self.work.batches += 1
                    if error:
                        # The rest of these requests is lost as well, and must not count as further failures.
                        for job in {job for job, _ in batch.inputs}:
                            self._pending.drop(job)
                    else:
                        self.work.scored += sum(len(tokens.ids) for tokens in inputs)
                self._loop.call_soon_threadsafe(self._deliver, batch, began, rows, error)
                if failures == FAILURES:
                    raise EngineDownError(f"{failures} batches in a row failed")
        except BaseException as error:
            log.exception("Engine thread %d died", number)
            self._loop.call_soon_threadsafe(self._die, error)

    def _next(self) -> Batch[_Job, Ranker] | None:
        """Wait for a batch; None when the engine stops. A lone request is shared out among the threads."""
        with self._changed:
            while not self._stopping:
                share = -(-self._pending.tokens // len(self._threads))
                if batch := self._pending.take(min(max(share, FEWEST_TOKENS), MOST_TOKENS)):
                    return batch
                self._changed.wait()
        return None

    def _deliver(
        self, batch: Batch[_Job, Ranker], began: float, rows: Sequence[NDArray[np.float32]], error: Exception | None
    ) -> None:
        """On the event loop: put a batch's rows, or its error, where they are waited for."""
        for number, (job, index) in enumerate(batch.inputs):
            if job.done.done():
                continue
            job.started = began if job.started is None else min(job.started, began)
            if error:
                job.done.set_exception(BatchFailedError(str(error)))
                continue
            job.rows[index] = rows[number]
            job.missing -= 1
            if not job.missing:
                job.done.set_result(np.stack(job.rows))

    def _die(self, error: BaseException) -> None:
        self._died = error
        self._fail("a thread of the engine has died")

    def _fail(self, reason: str) -> None:
        """On the event loop: answer everyone who waits."""
        for job in self._jobs:
            if not job.done.done():
                job.done.set_exception(EngineDownError(reason))


def _compute(
    ranker: Ranker, inputs: Sequence[Tokens], length: int
) -> tuple[Sequence[NDArray[np.float32]], Exception | None]:
    try:
        rows = ranker.backend.run(inputs, length)
    except Exception as error:
        log.exception("The backend failed on %d inputs of %d tokens", len(inputs), length)
        return [], error
    if not np.isfinite(rows).all():
        log.error("The model gave something that is no number, for %d inputs of %d tokens", len(inputs), length)
        return [], ArithmeticError("no number")
    return list(rows), None
