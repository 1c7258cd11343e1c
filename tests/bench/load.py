"""Drives a server over HTTP: a fixed number of requests in flight, each answered one followed by the next.

Plain HTTP/1.1 on asyncio's streams: what the generator itself costs must not limit what is measured.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

HOST = "127.0.0.1"
PATIENCE = 120.0  # seconds for one answer


class FailedError(Exception):
    """A request was not answered with 200."""


@dataclass
class Window:
    """What was answered while the clock ran."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    cpu: float = 0.0  # seconds that the server's processes computed meanwhile
    own_cpu: float = 0.0  # and this process

    @property
    def rate(self) -> float:
        """Requests per second."""
        return len(self.latencies) / self.seconds


def request(path: str, body: bytes) -> bytes:
    """One HTTP request as it goes over the wire."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class Connection:
    """A connection that is kept."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect, unless it is connected."""
        if self._streams is None:
            self._streams = await asyncio.open_connection(HOST, self._port)
        return self._streams

    async def ask(self, sent: bytes) -> bytes:
        """Send a request; the body of its answer. Raises FailedError."""
        reader, writer = await self.open()
        writer.write(sent)
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = head.partition("content-length:")[2].partition("\r\n")[0]
        body = await reader.readexactly(int(length))
        if head.split(maxsplit=2)[1] != "200":
            raise FailedError(f"{head.splitlines()[0]}: {body[:300].decode(errors='replace')}")
        if "connection: close" in head:
            self.close()
        return body

    def close(self) -> None:
        """Hang up."""
        if self._streams:
            self._streams[1].close()
            self._streams = None


async def drive(
    port: int,
    requests: Iterator[bytes],
    concurrency: int,
    *,
    warm_up: float,
    seconds: float,
    cpu: Callable[[], float] = lambda: 0.0,
) -> Window:
    """Keep so many requests in flight; count those that are answered within `seconds` after the warm-up.

    The warm-up lasts until every connection has had an answer, and `warm_up` seconds at least. At the end the
    requests in flight are waited for, so that the server is idle again. `cpu`: seconds that the server computed so far.
    Raises FailedError on any answer but 200.
    """
    ended: list[tuple[float, float]] = []  # when, and after how long
    stop = asyncio.Event()
    warm = [asyncio.Event() for _ in range(concurrency)]

    async def user(number: int) -> None:
        connection = Connection(port)
        try:
            while not stop.is_set():
                sent = next(requests)
                began = time.perf_counter()
                async with asyncio.timeout(PATIENCE):
                    await connection.ask(sent)
                now = time.perf_counter()
                ended.append((now, now - began))
                warm[number].set()
        finally:
            connection.close()

    async def clock() -> Window:
        try:
            began = time.perf_counter()
            await asyncio.gather(*(one.wait() for one in warm))
            await asyncio.sleep(max(0.0, warm_up - (time.perf_counter() - began)))
            start, server, own = time.perf_counter(), cpu(), time.process_time()
            await asyncio.sleep(seconds)
            end = time.perf_counter()
            window = Window(end - start, [], cpu() - server, time.process_time() - own)
        finally:
            stop.set()
        window.latencies = [took for when, took in ended if start < when <= end]
        return window

    async with asyncio.TaskGroup() as group:
        for number in range(concurrency):
            group.create_task(user(number))
        measured = group.create_task(clock())
    return measured.result()


async def burst(port: int, requests: Sequence[bytes]) -> float:
    """Send all requests at once, each over a connection of its own; seconds until the last is answered."""
    connections = [Connection(port) for _ in requests]
    try:
        await asyncio.gather(*(connection.open() for connection in connections))
        began = time.perf_counter()
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*(one.ask(sent) for one, sent in zip(connections, requests, strict=True)))
        return time.perf_counter() - began
    finally:
        for connection in connections:
            connection.close()
