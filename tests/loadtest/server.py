"""A real HTTP server that behaves as a test wants, with everything it was asked."""

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from rag_service.contract.wire import HEADER_CACHE, PATH, RerankRequest, cache_header

Behaviour = Callable[["Server", int], Awaitable[Response | None]]


@dataclass
class Server:
    """What a test server has seen. Every request has a number, from 0; number 0 is the generator's first look."""

    url: str = ""
    began: float = field(default_factory=time.monotonic)
    requests: list[RerankRequest] = field(default_factory=list)
    ports: set[int] = field(default_factory=set)
    in_flight: int = 0
    most_in_flight: int = 0
    pairs: set[tuple[str, str]] = field(default_factory=set)
    hits: int = 0
    misses: int = 0


async def at_once(_server: Server, _number: int) -> None:
    """Answer as fast as possible, and rightly."""


def after(seconds: float) -> Behaviour:
    """Answer rightly after some time."""

    async def behave(_server: Server, _number: int) -> None:
        await asyncio.sleep(seconds)

    return behave


def every(count: int, response: Response) -> Behaviour:
    """Answer rightly after 10 ms, but every so many requests otherwise."""

    async def behave(_server: Server, number: int) -> Response | None:
        await asyncio.sleep(0.01)
        return response if number % count == 1 else None

    return behave


@contextmanager
def serving(behave: Behaviour = at_once) -> Iterator[Server]:
    """Serve `/rerank` on a port of its own."""
    server = Server()
    uvicorn_server = uvicorn.Server(uvicorn.Config(_app(server, behave), log_level="error", lifespan="off"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread = threading.Thread(target=uvicorn_server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield server
        finally:
            uvicorn_server.should_exit = True
            uvicorn_server.force_exit = True
            thread.join()


def closed_port() -> str:
    """The URL of a port where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


def _app(server: Server, behave: Behaviour) -> Starlette:
    async def rerank(request: Request) -> Response:
        body, number = RerankRequest.model_validate_json(await request.body()), len(server.requests)
        server.requests.append(body)
        assert request.client is not None
        server.ports.add(request.client.port)
        async with _counted(server):
            if (other := await behave(server, number)) is not None:
                return other
        pairs = {(body.query, text if isinstance(text, str) else text.text) for text in body.texts}
        hits = len(pairs & server.pairs)
        server.pairs |= pairs
        server.hits, server.misses = server.hits + hits, server.misses + len(pairs) - hits
        ranks = [{"index": index, "score": 1 - index / 1000} for index in range(len(body.texts))]
        return JSONResponse(ranks, headers={HEADER_CACHE: cache_header(hits, len(pairs) - hits)})

    return Starlette(routes=[Route(PATH, rerank, methods=["POST"])])


@asynccontextmanager
async def _counted(server: Server) -> AsyncIterator[None]:
    server.in_flight += 1
    server.most_in_flight = max(server.most_in_flight, server.in_flight)
    try:
        yield
    finally:
        server.in_flight -= 1
