"""The forwarder carries connections both ways, half-closed ones too."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest

from devcluster import forward


@contextlib.asynccontextmanager
async def forwarder(target: int) -> AsyncIterator[int]:
    listener = socket.create_server(("127.0.0.1", 0))
    port = int(listener.getsockname()[1])
    task = asyncio.create_task(forward.serve(listener, "127.0.0.1", target))
    try:
        yield port
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def answer_at_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    received = await reader.read()
    writer.write(received[::-1])
    writer.close()


@pytest.mark.parametrize("size", [1, 10_000_000])
async def test_what_comes_after_a_half_close_arrives(size: int) -> None:
    data = bytes(range(256)) * (size // 256) or b"x"
    target = await asyncio.start_server(answer_at_the_end, "127.0.0.1", 0)
    async with target, forwarder(target.sockets[0].getsockname()[1]) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(data)
        writer.write_eof()
        assert await reader.read() == data[::-1]
        writer.close()


async def test_without_a_target_the_connection_is_closed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    async with forwarder(port) as entry:
        reader, writer = await asyncio.open_connection("127.0.0.1", entry)
        assert await reader.read() == b""
        writer.close()
