"""Forwards a port of the host into a node's network; run inside that network.

The listening socket was opened outside and comes as standard input: a socket keeps the network it was made in.
"""

import asyncio
import contextlib
import functools
import socket
import sys

_CHUNK = 1 << 16


async def serve(listener: socket.socket, host: str, port: int) -> None:
    """Forward every connection to host:port until cancelled."""
    server = await asyncio.start_server(functools.partial(_forward, host, port), sock=listener)
    async with server:
        await server.serve_forever()


async def _forward(host: str, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        target_reader, target_writer = await asyncio.open_connection(host, port)
    except OSError:  # the API server is not there (yet); the caller sees a closed connection
        writer.close()
        return
    try:
        async with asyncio.TaskGroup() as copies:
            copies.create_task(_copy(reader, target_writer))
            copies.create_task(_copy(target_reader, writer))
    except* OSError:  # one side is gone: end the other
        pass
    finally:
        writer.close()
        target_writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_CHUNK):
        writer.write(data)
        await writer.drain()
    # A half-closed connection still carries the other direction.
    with contextlib.suppress(OSError):
        writer.write_eof()


if __name__ == "__main__":
    asyncio.run(serve(socket.socket(fileno=0), sys.argv[1], int(sys.argv[2])))
