"""A queue of names to work on: each once, never two workers on the same name, failures again after a while.

The idea is that of client-go's workqueue: what is added while it is worked on is worked on once more afterwards, so
that no change is missed and none is handled twice at the same time.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

log = logging.getLogger(__name__)

FIRST_RETRY = 0.2
LAST_RETRY = 60.0

Name = TypeVar("Name")


class RetryError(Exception):
    """Raised by the worker: this went wrong and may go better later. The message is logged, without a trace."""

    def __init__(self, message: str, after: float | None = None) -> None:
        """`after`: at least so many seconds later, where the other side asked for it."""
        super().__init__(message)
        self.after = after


def backoff(failures: int, rng: random.Random) -> float:
    """Seconds until the next attempt after so many failures in a row: doubling, with jitter, a minute at the most."""
    return min(LAST_RETRY, FIRST_RETRY * 2.0 ** min(failures - 1, 16)) * rng.uniform(0.5, 1.0)


def worth_logging(failures: int) -> bool:
    """Whether the n-th failure in a row is logged: the 1st, 2nd, 4th, 8th …, so that a lasting fault stays readable."""
    return failures & (failures - 1) == 0


class WorkQueue(Generic[Name]):
    """Names that wait, names that are worked on, and those to come again."""

    def __init__(self, work: Callable[[Name], Awaitable[float | None]], rng: random.Random | None = None) -> None:
        """`work` returns the seconds after which to work on the name again, None where an event will tell."""
        self._work = work
        self._rng = rng or random.Random()  # noqa: S311 - jitter
        self._ready: asyncio.Queue[Name] = asyncio.Queue()
        self._waiting: set[Name] = set()
        self._working: set[Name] = set()
        self._failures: dict[Name, int] = {}
        self._timers: dict[Name, asyncio.TimerHandle] = {}

    def add(self, name: Name) -> None:
        """Work on the name as soon as possible."""
        timer = self._timers.pop(name, None)
        if timer:
            timer.cancel()
        if name in self._waiting:
            return
        self._waiting.add(name)
        if name not in self._working:
            self._ready.put_nowait(name)

    def add_later(self, name: Name, seconds: float) -> None:
        """Work on the name after a while, unless it is added earlier."""
        timer = self._timers.pop(name, None)
        if timer:
            timer.cancel()
        self._timers[name] = asyncio.get_running_loop().call_later(seconds, self.add, name)

    async def run(self, workers: int) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(workers):
                group.create_task(self._worker())

    async def _worker(self) -> None:
        while True:
            name = await self._ready.get()
            self._waiting.discard(name)
            self._working.add(name)
            try:
                await self._attempt(name)
            finally:
                self._working.discard(name)
                if name in self._waiting:
                    self._ready.put_nowait(name)

    async def _attempt(self, name: Name) -> None:
        try:
            again = await self._work(name)
        except Exception as error:  # a fault in one name must not stop the others
            failures = self._failures[name] = self._failures.get(name, 0) + 1
            seconds = max(backoff(failures, self._rng), (isinstance(error, RetryError) and error.after) or 0.0)
            if worth_logging(failures):
                trace = None if isinstance(error, RetryError) else error
                log.warning("%s: %s; again in %.1fs (failure %d)", name, error, seconds, failures, exc_info=trace)
            if name not in self._waiting:
                self.add_later(name, seconds)
        else:
            self._failures.pop(name, None)
            if again is not None and name not in self._waiting:
                self.add_later(name, again)
