"""The HTTP server, and how it stops without failing anybody's request."""

import asyncio
import math
import signal
from collections.abc import Callable
from socket import socket
from types import FrameType

import uvicorn
from fastapi import FastAPI

from rag_service.contract.settings import ServiceSettings
from rag_service.protocol import Protocol
from rag_service.watch import Drain
from rag_service.workers import Worker

KEEP_ALIVE = 75  # seconds; longer than the proxies in front keep theirs, or they would meet closed connections


class Server(uvicorn.Server):
    """uvicorn, but the first SIGTERM only begins the end.

    For some seconds more it takes requests, not ready any longer, and tells each client to connect anew: elsewhere,
    since nobody is sent here any more. Then uvicorn's own graceful stop follows: no new connections, requests in
    hand are answered. Closing at once would fail requests that are on their way over an idle connection.
    """

    def __init__(self, config: uvicorn.Config, drain: Drain, seconds: float) -> None:
        super().__init__(config)
        self._drain = drain
        self._seconds = seconds
        self.on_listening: Callable[[], None] = lambda: None

    async def startup(self, sockets: list[socket] | None = None) -> None:
        """Begin to listen."""
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        self.on_listening()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """Signal handler, in the main thread."""
        if sig == signal.SIGTERM and self.started and not self._drain.begun:
            self._drain.begun = True
            self._loop.call_soon_threadsafe(self._loop.call_later, self._seconds, self._stop)
        elif self.should_exit:
            self.force_exit = True
        else:
            self._stop()

    def _stop(self) -> None:
        self.should_exit = True


def run(app: FastAPI, settings: ServiceSettings, drain: Drain, where: tuple[str, int] | Worker) -> None:
    """Serve until a signal ends it: on a host's port, or as a worker on the socket that it inherited."""
    host, port = ("", 0) if isinstance(where, Worker) else where
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        lifespan="on",
        http=Protocol,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=math.ceil(settings.request_timeout.total_seconds()) + 1,
    )
    server = Server(config, drain, settings.drain.total_seconds())
    if isinstance(where, Worker):
        server.on_listening = where.listens
        server.run([where.listener()])
    else:
        server.run()
