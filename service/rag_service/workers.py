"""Several processes that serve one port: each a worker, started by one that does nothing but keep them running.

They inherit one socket, which that one keeps: a connection that waits to be accepted outlives any worker.
"""

import asyncio
import contextlib
import json
import logging
import os
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from socket import AF_INET, AF_INET6, SO_REUSEADDR, SOL_SOCKET, socket, socketpair

ENVIRONMENT = "RAGSERVICE_WORKER"  # tells a process which worker it is
BAD_CONFIGURATION = 2

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 30.0  # seconds until a worker is started anew
LASTING = 60.0  # seconds after which a worker has not failed at its start

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Worker:
    """One of `count` workers, and what it inherits from their keeper."""

    number: int
    count: int
    directory: str
    listening: int  # file descriptor of the socket that all of them accept connections from
    keeping: int  # of one to the keeper: it is told there who listens, and it ends when the keeper does

    def path(self, number: int) -> Path:
        """Where a worker answers the others. It is there from its first start on."""
        return Path(self.directory) / f"{number}.sock"

    def listener(self) -> socket:
        """The socket to accept connections from."""
        return socket(fileno=self.listening)

    def listens(self) -> None:
        """On the event loop: tell the keeper, and from now on end gracefully when it is gone, however it ended."""
        os.write(self.keeping, bytes([self.number]))
        asyncio.get_running_loop().add_reader(self.keeping, self._orphaned)

    def _orphaned(self) -> None:
        asyncio.get_running_loop().remove_reader(self.keeping)
        log.error("The process that keeps the workers has ended, so this one ends as well")
        shutil.rmtree(self.directory, ignore_errors=True)
        os.kill(os.getpid(), signal.SIGTERM)


def this() -> Worker | None:
    """Which worker this process is; None for one that serves alone, or is to start workers."""
    told = os.environ.get(ENVIRONMENT)
    return Worker(**json.loads(told)) if told else None


def run(count: int, host: str, port: int) -> int:
    """Serve with so many workers until a signal ends it; the exit code. Raises OSError when the port is taken."""
    ours, theirs = socketpair()
    with tempfile.TemporaryDirectory(prefix="ragservice-") as directory, _bound(host, port) as listener, ours, theirs:
        workers = [Worker(number, count, directory, listener.fileno(), theirs.fileno()) for number in range(count)]
        return asyncio.run(_Keeper(workers, listener, ours).run())


def _bound(host: str, port: int) -> socket:
    """A socket on which nobody listens yet: until a worker does, connections are refused. Raises OSError."""
    made = socket(AF_INET6 if ":" in host else AF_INET)
    try:
        made.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
        made.bind((host, port))
    except OSError:
        made.close()
        raise
    return made


class _Keeper:
    def __init__(self, workers: list[Worker], listener: socket, told: socket) -> None:
        """`told`: where workers say that they listen."""
        self._workers = workers
        self._listener = listener
        self._address = listener.getsockname()
        self._told = told
        self._listening = [asyncio.Event() for _ in workers]
        self._processes: dict[int, asyncio.subprocess.Process] = {}
        self._stopping = asyncio.Event()
        self._code = 0

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, number)
        loop.add_reader(self._told, self._hear)
        first, *others = self._workers
        keeping = [asyncio.create_task(self._keep(first))]
        # The first one makes what is not there yet, such as a model's prepared files; the others find it.
        await self._listening[first.number].wait()
        keeping += [asyncio.create_task(self._keep(worker)) for worker in others]
        for listening in self._listening:
            await listening.wait()
        if not self._stopping.is_set():
            host, port = self._address[:2]
            where = f"[{host}]" if ":" in host else host
            log.info("%d workers running on http://%s:%d", len(self._workers), where, port)
        await asyncio.gather(*keeping)
        return self._code

    def _hear(self) -> None:
        for number in self._told.recv(100):
            self._listening[number].set()

    async def _keep(self, worker: Worker) -> None:
        """Start it, and start it again when it ends by itself: later and later while it fails at its start."""
        pause = FIRST_PAUSE
        while not self._stopping.is_set():
            began = time.monotonic()
            process = self._processes[worker.number] = await asyncio.create_subprocess_exec(
                sys.executable,
                *sys.orig_argv[1:],
                env={**os.environ, ENVIRONMENT: json.dumps(asdict(worker))},
                pass_fds=(worker.listening, worker.keeping),
                start_new_session=True,  # a terminal's Ctrl-C reaches them once, through this process
            )
            if self._stopping.is_set():
                process.send_signal(signal.SIGTERM)
            code = await process.wait()
            if self._stopping.is_set():
                return
            if code == BAD_CONFIGURATION:
                self._code = code
                self._stop(signal.SIGTERM)
                return
            lasted = time.monotonic() - began
            pause = FIRST_PAUSE if lasted > LASTING else min(pause * 2, LONGEST_PAUSE)
            log.error("Worker %d ended with code %d: another one starts in %.1f s", worker.number, code, pause)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)

    def _stop(self, number: int) -> None:
        """Hand a signal on. The socket is closed here, so that nobody connects any more once the workers close it."""
        self._stopping.set()
        for listening in self._listening:
            listening.set()
        self._listener.close()
        for process in self._processes.values():
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(number)
