"""Reading the load of pods over HTTP, of which some hang, lie, break or are gone."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from aiohttp import web

from rag_operator.scaling import observe
from rag_operator.scaling.observe import MAX_BYTES, Scraper
from rag_operator.scaling.target import Target
from rag_service.contract import load
from tests.scaling_world import report

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
REPORT = report(uptime=12.0).model_dump_json(by_alias=True)


async def well(_: web.Request) -> web.Response:
    return web.json_response(text=REPORT)


async def hangs(_: web.Request) -> web.Response:
    await asyncio.sleep(30)
    return web.Response()


async def starts_and_hangs(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(b'{"incarn')
    await asyncio.sleep(30)
    return response


async def breaks(_: web.Request) -> web.Response:
    return web.Response(status=500)


async def redirects(_: web.Request) -> web.Response:
    raise web.HTTPFound("http://127.0.0.1:1/")


async def floods(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    for _ in range(100):
        await response.write(b" " * MAX_BYTES)
    return response


def says(text: str) -> Handler:
    async def answer(_: web.Request) -> web.Response:
        return web.json_response(text=text)

    return answer


BAD: dict[str, Handler] = {
    "hangs": hangs,
    "starts and hangs": starts_and_hangs,
    "breaks": breaks,
    "redirects": redirects,
    "floods": floods,
    "is empty": says(""),
    "is not JSON": says("<html>"),
    "is another thing": says("[]"),
    "is NaN": says(REPORT.replace("12.0", "NaN")),
    "is negative": says(REPORT.replace("12.0", "-1")),
    "is too short": says('{"incarnation": "a"}'),
}


@asynccontextmanager
async def pods(monkeypatch: pytest.MonkeyPatch, *handlers: Handler) -> AsyncIterator[list[Target]]:
    """Servers on addresses of their own, on one port."""
    async with AsyncExitStack() as stack:
        targets = []
        port = 0
        for number, handler in enumerate(handlers, start=1):
            app = web.Application()
            app.router.add_get(load.PATH, handler)
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, f"127.0.7.{number}", port).start()
            port = runner.addresses[0][1]
            targets.append(Target(pod=f"pod-{number}", address=f"127.0.7.{number}", ready=True))
        monkeypatch.setattr(observe, "PORT", port)
        yield targets


@asynccontextmanager
async def scraper(**settings: float) -> AsyncIterator[Scraper]:
    one = Scraper(**settings)  # type: ignore[arg-type]
    yield one
    await one.close()


async def test_one_bad_pod_does_not_hurt_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    handlers = [handler for bad in BAD.values() for handler in (well, bad)]
    async with pods(monkeypatch, *handlers) as targets, scraper(timeout=0.5) as one:
        gone = Target(pod="gone", address="127.0.7.250", ready=True)
        samples = await one.scrape([*targets, gone])
    told = {pod for pod, sample in samples.items() if sample is not None}
    assert told == {target.pod for target, handler in zip(targets, handlers, strict=True) if handler is well}
    assert set(samples) == {target.pod for target in (*targets, gone)}


async def test_a_newer_service_may_tell_more(monkeypatch: pytest.MonkeyPatch) -> None:
    more = says(REPORT.replace('"threads"', '"colour": "blue", "threads"'))
    async with pods(monkeypatch, more) as targets, scraper() as one:
        samples = await one.scrape(targets)
    sample = samples["pod-1"]
    assert sample is not None
    assert sample.report.uptime == 12.0


async def test_no_more_pods_are_asked_at_the_same_time_than_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    now, most = 0, 0

    async def counts(_: web.Request) -> web.Response:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.02)
        now -= 1
        return web.json_response(text=REPORT)

    async with pods(monkeypatch, *[counts] * 12) as targets, scraper(concurrency=3) as one:
        samples = await one.scrape(targets)
    assert all(samples.values())
    assert most <= 3


async def test_no_pods_are_no_samples() -> None:
    async with scraper() as one:
        assert await one.scrape([]) == {}
