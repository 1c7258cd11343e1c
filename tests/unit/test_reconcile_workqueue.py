"""The queue: no name lost, none worked on twice at the same time, failures again but not at once."""

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncIterator

import pytest

from rag_operator import workqueue
from rag_operator.workqueue import RetryError, WorkQueue


@contextlib.asynccontextmanager
async def running(queue: WorkQueue[str], workers: int = 4) -> AsyncIterator[None]:
    task = asyncio.create_task(queue.run(workers))
    yield
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def until(condition: object) -> None:
    for _ in range(500):
        if condition():  # type: ignore[operator]
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never happened")


async def test_names_that_wait_are_worked_on_once() -> None:
    done: list[str] = []

    async def work(name: str) -> None:
        done.append(name)

    queue = WorkQueue(work)
    for name in "abababab":
        queue.add(name)
    async with running(queue):
        await until(lambda: len(done) == 2)
        await asyncio.sleep(0.02)
    assert sorted(done) == ["a", "b"]


async def test_what_is_added_during_the_work_is_done_once_more_and_never_at_the_same_time() -> None:
    running_now, most, done = 0, 0, 0

    async def work(name: str) -> None:
        nonlocal running_now, most, done
        running_now += 1
        most = max(most, running_now)
        queue.add(name) if done == 0 else None
        await asyncio.sleep(0.02)
        running_now -= 1
        done += 1

    queue = WorkQueue(work)
    queue.add("a")
    async with running(queue):
        await until(lambda: done == 2)
        await asyncio.sleep(0.05)
    assert (most, done) == (1, 2)


async def test_a_failure_comes_again_and_hinders_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workqueue, "FIRST_RETRY", 0.01)
    attempts: dict[str, int] = {}

    async def work(name: str) -> None:
        attempts[name] = attempts.get(name, 0) + 1
        if name == "bad" and attempts[name] < 4:
            raise RetryError("the API server is away") if attempts[name] % 2 else ValueError("a bug")

    queue = WorkQueue(work)
    queue.add("bad")
    queue.add("good")
    async with running(queue, workers=1):
        await until(lambda: attempts.get("bad") == 4)
    assert attempts["good"] == 1


async def test_a_retry_waits_as_long_as_the_server_asks() -> None:
    times: list[float] = []

    async def work(_: str) -> None:
        times.append(asyncio.get_running_loop().time())
        if len(times) == 1:
            raise RetryError("too many requests", after=0.3)

    queue = WorkQueue(work)
    queue.add("a")
    async with running(queue):
        await until(lambda: len(times) == 2)
    assert times[1] - times[0] >= 0.29


async def test_a_new_event_does_not_wait_for_the_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workqueue, "FIRST_RETRY", 1000.0)
    attempts = 0

    async def work(_: str) -> None:
        nonlocal attempts
        attempts += 1
        raise RetryError("no")

    queue = WorkQueue(work)
    queue.add("a")
    async with running(queue):
        await until(lambda: attempts == 1)
        queue.add("a")
        await until(lambda: attempts == 2)


def test_backoff_doubles_with_jitter_up_to_a_minute() -> None:
    rng = random.Random(1)
    waits = [workqueue.backoff(failures, rng) for failures in range(1, 100)]
    assert waits[0] <= workqueue.FIRST_RETRY
    assert max(waits) <= workqueue.LAST_RETRY
    assert min(waits[20:]) >= workqueue.LAST_RETRY / 2
    assert len(set(waits[20:])) > 50


async def test_a_lasting_fault_stays_readable(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(workqueue, "FIRST_RETRY", 0.0)
    attempts = 0

    async def work(_: str) -> None:
        nonlocal attempts
        attempts += 1
        raise RetryError("no route to host")

    queue = WorkQueue(work)
    queue.add("default/faq")
    with caplog.at_level(logging.WARNING):
        async with running(queue):
            await until(lambda: attempts >= 300)
    lines = [record for record in caplog.records if record.name == workqueue.__name__]
    assert len(lines) <= 10
    assert "default/faq: no route to host" in lines[0].getMessage()
    assert all(record.exc_info is None for record in lines), "an expected fault has no stack trace"
