"""The engine: threads that take batches of waiting inputs and hand scores back to the event loop."""

import asyncio
import hashlib
import logging
import math
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from time import monotonic, perf_counter, thread_time
from typing import ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from rag_service.contract.admission import retry_after
from rag_service.contract.wire import LongDocuments
from rag_service.engine.cost import FEWEST, Cost
from rag_service.engine.health import HOPELESS, PERIOD, Doing, Watchdog
from rag_service.engine.passages import MOST_PASSAGES
from rag_service.engine.pending import Batch, Pending
from rag_service.engine.rankers import Ranker
from rag_service.engine.reader import Reader
from rag_service.engine.tokens import Read, Tokens, TooLongError, TooMuchError, together

# A backend may fail on one batch: its requests fail, no others. One that fails so often in a row is broken.
FAILURES = 3
# Engine threads that one thread can tokenise for; on the fastest CPUs it takes an eighth of the time of scoring.
TOKENISED = 4
# Tokens of one request: a thousand documents of a thousand tokens. They wait in memory, some 50 bytes each.
MOST_TOKENS = 1 << 20
# To tell before it is read how much work a request brings: a guess that holds for English, corrected by what was read.
CHARACTERS_PER_TOKEN = 4
LEARNED_FROM = 32  # requests

# Seconds that a thread has for its last batch, which nobody waits for any more.
LEAVING = 5.0

_NOTHING: NDArray[np.float32] = np.empty(0, np.float32)
_PROBE = bytes(1 << 20)

Given = ParamSpec("Given")
Result = TypeVar("Result")

log = logging.getLogger(__name__)


class EngineDownError(Exception):
    """A thread of the engine has died or is stuck: nothing can be relied on to be computed."""


class BatchFailedError(Exception):
    """The backend failed on a batch that held inputs of this request."""


class BusyError(Exception):
    """More waits than can be answered in time."""

    def __init__(self, wait: timedelta) -> None:
        super().__init__(wait)
        self.wait = wait


@dataclass(frozen=True)
class Scored:
    """Raw scores of the documents, in order, whether something of each was left out, and seconds by step."""

    scores: Sequence[float]
    cut: Sequence[bool]
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
    deadline: float  # of `monotonic`
    started: float | None = None  # when its first batch began, of `perf_counter`


class Engine:
    """Scores documents with any number of models, on a fixed number of threads."""

    def __init__(self, threads: int, patience: timedelta) -> None:
        """Work that could not be done within `patience` is refused."""
        self.work = Work(busy=[0.0] * threads)
        self.costs: defaultdict[Ranker, Cost] = defaultdict(Cost)
        self._patience = patience
        self._pending: Pending[_Job, Ranker] = Pending()
        self._changed = threading.Condition()
        self._stopping = False
        self._trouble: str | None = None
        self._died = False
        self.lost = asyncio.Event()
        """Set while there is no hope that the engine comes round by itself."""
        self._doing: list[Doing | None] = [None] * threads
        self._computing = [0] * threads  # tokens
        self._watchdog = Watchdog(threads)
        self._jobs: set[_Job] = set()
        self._threads = [
            threading.Thread(target=self._run, args=(number,), name=f"engine-{number}", daemon=True)
            for number in range(threads)
        ]
        self._reading = 0  # tokens, roughly, of requests that are being tokenised
        self._misjudged = 1.0  # tokens of requests, by what was guessed
        self._tokenising = ThreadPoolExecutor(-(-threads // TOKENISED), "tokenise")
        self._watching: asyncio.Task[None]
        self._loop: asyncio.AbstractEventLoop

    async def start(self) -> None:
        """Start the threads; scores are handed to the event loop that runs now."""
        self._loop = asyncio.get_running_loop()
        for thread in self._threads:
            thread.start()
        self._watching = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        """End the threads. Those who still wait get EngineDownError; a thread that goes on and on is left behind."""
        self._watching.cancel()
        self._tell("the server stops")
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if not self._trouble:
            await asyncio.gather(*(asyncio.to_thread(thread.join, LEAVING) for thread in self._threads))
        self._tokenising.shutdown(wait=False)

    @property
    def trouble(self) -> str | None:
        """Why nothing can be scored at present; None while the engine works."""
        return self._trouble

    @property
    def alive(self) -> bool:
        """Whether the engine works, or may still come round by itself."""
        return not self.lost.is_set()

    @property
    def queued_tokens(self) -> int:
        """Tokens that wait for a thread."""
        return self._pending.tokens

    @property
    def speed(self) -> float | None:
        """Tokens per second while all threads work; None before the first batch."""
        busy = sum(self.work.busy)
        return self.work.scored / busy * len(self.work.busy) if busy and self.work.scored else None

    async def score(
        self,
        ranker: Ranker,
        query: str,
        documents: Sequence[str],
        long: LongDocuments = "truncate",
        deadline: float = math.inf,
    ) -> Scored:
        """Score documents. Cancel it when nobody wants the answer any more: what still waits is then never computed.

        `deadline`: of `time.monotonic`. Earlier ones go first; what still waits then is dropped. Raises
        EngineDownError, BatchFailedError, TooLongError where the documents must not be cut, TooMuchError when they
        are too many, BusyError when more waits than could be done in time, TimeoutError at the deadline.
        """
        began = perf_counter()
        # Refused before it is read: otherwise, under a load that tokenising cannot keep up with, all would be read,
        # too late, and nobody be answered.
        guessed = _guess(ranker, query, documents, long)
        roughly = round(guessed * self._misjudged)
        with self._changed:
            self._refuse_late(roughly, deadline)
        self._reading += roughly
        try:
            first, read = await self._read(ranker, query, documents, long)
        finally:
            self._reading -= roughly
        inputs = [*first, *(tokens for one in read for tokens in one.inputs)]
        self._misjudged += (sum(len(tokens.ids) for tokens in inputs) / guessed - self._misjudged) / LEARNED_FROM
        queued = perf_counter()
        job = _Job(ranker, inputs, self._loop.create_future(), [_NOTHING] * len(inputs), len(inputs), deadline)
        self._admit(job)
        try:
            rows = await job.done
        finally:
            self._jobs.discard(job)
            if job.missing:
                with self._changed:
                    self._pending.drop(job)
        found = iter(ranker.scores(rows))
        scores = [max(next(found) for _ in one.inputs) for one in read]
        ended, started = perf_counter(), job.started or queued
        steps = {"tokenise": queued - began, "queue": started - queued, "score": ended - started}
        return Scored(scores, [one.cut for one in read], steps)

    async def _read(
        self, ranker: Ranker, query: str, documents: Sequence[str], long: LongDocuments
    ) -> tuple[Sequence[Tokens], Sequence[Read]]:
        """Tokenise, a group of documents at a time: requests that come meanwhile have their turn in between."""

        def begin(some: Sequence[str]) -> tuple[Reader, list[Read]]:
            reader = ranker.reader(query, long)
            return reader, reader.read(some)

        groups = together(documents)
        reader, made = await self._tokenise(begin, next(groups))
        total = _tokens(made)
        for group in groups:
            try:
                more = await self._tokenise(reader.read, group)
            except TooLongError as error:
                raise error.after(len(made)) from None
            made += more
            total += _tokens(more)
            if total > MOST_TOKENS:
                raise TooMuchError(MOST_TOKENS)
        return reader.first, made

    async def _tokenise(self, work: Callable[Given, Result], *given: Given.args, **_: Given.kwargs) -> Result:
        return await self._loop.run_in_executor(self._tokenising, work, *given)

    def _admit(self, job: _Job) -> None:
        sizes = [len(tokens.ids) for tokens in job.inputs]
        with self._changed:
            self._refuse_late(sum(sizes), job.deadline)
            self.work.offered += sum(sizes)
            self._jobs.add(job)
            self._pending.add(job, job.ranker, sizes, job.deadline, job.ranker.manifest.recipe.max_tokens)
            self._changed.notify(len(sizes))

    def _refuse_late(self, tokens: int, deadline: float) -> None:
        """Raise when so many more tokens cannot be scored in time. Call it with the lock held."""
        if self._trouble or self._stopping:
            raise EngineDownError(self._trouble or "the server stops")
        patience = timedelta(seconds=min(self._patience.total_seconds(), deadline - monotonic()))
        if not retry_after(self._pending.tokens + self._reading, tokens, self.speed, patience):
            return
        # What has more time than this one goes after it.
        if wait := retry_after(self._pending.ahead(deadline) + self._reading, tokens, self.speed, patience):
            self.work.offered += tokens
            raise BusyError(wait)

    def _run(self, number: int) -> None:
        """One thread's life."""
        failures = 0
        try:
            while batch := self._next(number):
                began = perf_counter()
                inputs = [job.inputs[index] for job, index in batch.inputs]
                rows, error = _compute(batch.model, inputs, batch.length)
                failures = failures + 1 if error else 0
                self._done(number, batch, perf_counter() - began, error)
                self._loop.call_soon_threadsafe(self._deliver, batch, began, rows, error)
                if failures == FAILURES:
                    raise EngineDownError(f"{failures} batches in a row failed")
        except BaseException:
            log.exception("Engine thread %d died", number)
            self._loop.call_soon_threadsafe(self._die)

    def _next(self, number: int) -> Batch[_Job, Ranker] | None:
        """Wait for a batch; None when the engine stops. A lone request is shared out among the threads."""
        with self._changed:
            while not self._stopping:
                self._drop_overdue()
                if batch := self._pending.take(self._budget):
                    words = f"a batch of {len(batch.inputs)} inputs of {batch.length} tokens"
                    self._doing[number] = Doing(words, self.costs[batch.model].seconds(batch.tokens))
                    self._computing[number] = batch.tokens
                    return batch
                self._changed.wait()
        return None

    def _budget(self, model: Ranker) -> int:
        share = -(-(self._pending.tokens + sum(self._computing)) // len(self._threads))
        return min(max(share, FEWEST), self.costs[model].budget)

    def _drop_overdue(self) -> None:
        for job in self._pending.overdue(monotonic()):
            self._pending.drop(job)
            self._loop.call_soon_threadsafe(_end, job, TimeoutError("the deadline has passed"))

    def _done(self, number: int, batch: Batch[_Job, Ranker], seconds: float, error: Exception | None) -> None:
        with self._changed:
            self._doing[number] = None
            self._computing[number] = 0
            self.work.busy[number] += seconds
            self.work.batches += 1
            if error:
                # The rest of these requests is lost as well, and must not count as further failures.
                for job in {job for job, _ in batch.inputs}:
                    self._pending.drop(job)
            else:
                self.costs[batch.model].learn(batch.tokens, seconds)
                self.work.scored += sum(len(job.inputs[index].ids) for job, index in batch.inputs)

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

    async def _watch(self) -> None:
        """See whether a thread is stuck, as long as the engine runs. Those who wait are told, and may come again."""
        last = monotonic()
        while True:
            await asyncio.sleep(PERIOD)
            share = await asyncio.to_thread(_cpu_share) if self._watchdog.suspicious else 1.0
            now = monotonic()
            self._watchdog.look(self._doing, now - last, share)
            last = now
            if self._died:
                continue
            stuck = self._watchdog.stuck
            if stuck and stuck[1] >= HOPELESS:
                self.lost.set()
            if stuck and not self._trouble:
                self._fail(f"an engine thread is stuck in {stuck[0].words}")
            elif self._trouble and not stuck:
                log.warning("The engine works again")
                self._trouble = None
                self.lost.clear()

    def _die(self) -> None:
        self._died = True
        self.lost.set()
        self._fail("an engine thread has died")

    def _fail(self, trouble: str) -> None:
        """On the event loop: from now on score nothing, and tell everyone who waits."""
        log.error("%s: %d requests are not answered", trouble, len(self._jobs))
        self._trouble = trouble
        with self._changed:
            self._pending.clear()
        self._tell(trouble)

    def _tell(self, trouble: str) -> None:
        for job in self._jobs:
            _end(job, EngineDownError(trouble))


def _guess(ranker: Ranker, query: str, documents: Sequence[str], long: LongDocuments) -> int:
    """About how many tokens the model reads of a request."""
    most = ranker.manifest.recipe.max_tokens * (MOST_PASSAGES if long == "max_passage" else 1)
    return sum(min((len(query) + len(one)) // CHARACTERS_PER_TOKEN + 1, most) for one in documents)


def _tokens(read: Sequence[Read]) -> int:
    return sum(len(tokens.ids) for one in read for tokens in one.inputs)


def _end(job: _Job, error: Exception) -> None:
    if not job.done.done():
        job.done.set_exception(error)


def _cpu_share() -> float:
    """The share of a CPU that a thread of this process gets, measured over some milliseconds of work."""
    began, used = perf_counter(), thread_time()
    for _ in range(5):
        hashlib.blake2b(_PROBE).digest()  # leaves the interpreter to others
    return min(1.0, (thread_time() - used) / (perf_counter() - began))


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
