"""The servers under test: how each is started and asked, and what it costs."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.bench import load
from tests.bench.texts import Asked
from tests.children import WITH_PARENT
from tests.redis_server import free_port

_TICKS = os.sysconf("SC_CLK_TCK")
START = 300.0  # seconds to be ready; torch alone needs a minute on a slow disk


class StartError(Exception):
    """A server did not start. The message is one line."""


@dataclass
class Server:
    """A process that ranks over HTTP. `also`: processes of others whose work counts as this server's."""

    name: str
    command: Callable[[int], Sequence[str]]
    body: Callable[[Asked], Mapping[str, Any]]
    health: str
    log: Path
    folder: Path = field(default_factory=Path.cwd)
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)
    also: Sequence[int] = ()
    port: int = 0

    def __enter__(self) -> Self:
        self.launch()
        try:
            self.wait()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def launch(self) -> None:
        """Start the process, and do not wait for it."""
        self.port = free_port()
        self.log.parent.mkdir(parents=True, exist_ok=True)
        command = [*WITH_PARENT, *self.command(self.port)]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, cwd=self.folder, env=self.environment, stdout=log, stderr=log)

    def wait(self) -> None:
        """Wait until it is ready. Raises StartError."""
        deadline = time.monotonic() + START
        while not self._ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                lines = self.log.read_text(errors="replace").strip().splitlines() or ["it said nothing"]
                raise StartError(f"{self.name} did not start: {lines[-1][:300]} (log: {self.log.name})")
            time.sleep(0.02)

    def stop(self) -> None:
        """End it."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def request(self, asked: Asked) -> bytes:
        """A request for these texts, as it goes over the wire."""
        return load.request("/rerank", json.dumps(self.body(asked)).encode())

    def cpu(self) -> float:
        """Seconds that its processes have computed since they started."""
        return self.own_cpu() + sum(map(tree_cpu, self.also))

    def own_cpu(self) -> float:
        """The same, without what others computed for it."""
        return tree_cpu(self.process.pid)

    def rss(self) -> float:
        """Megabytes of memory that its own processes hold."""
        return sum(_rss(pid) for pid in tree(self.process.pid))

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://{load.HOST}:{self.port}{self.health}", timeout=2) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False


def ours(name: str, settings: Mapping[str, Any], folder: Path, also: Sequence[int] = ()) -> Server:
    """The service with these settings."""
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / f"{name}.json"
    config.write_text(json.dumps(settings, indent=2))
    command = [sys.executable, "-m", "rag_service", "serve", "--config", str(config), "--host", load.HOST, "--port"]
    return Server(
        name=name,
        command=lambda port: [*command, str(port)],
        body=lambda asked: {"query": asked.query, "texts": asked.documents},
        health="/readyz",
        log=folder / "logs" / f"{name}.log",
        also=also,
    )


def naive(python: Path, model: Path, folder: Path, environment: Mapping[str, str]) -> Server:
    """FastAPI and CrossEncoder."""
    script = Path(__file__).with_name("naive.py")
    return Server(
        name="naive",
        command=lambda port: [str(python), "-P", str(script), str(model), str(port)],
        body=lambda asked: {"query": asked.query, "documents": asked.documents},
        health="/health",
        log=folder / "logs" / "naive.log",
        environment=environment,
    )


def infinity(
    name: str, options: Sequence[str], python: Path, model: Path, *, folder: Path, environment: Mapping[str, str]
) -> Server:
    """Infinity with these options. It finds a local ONNX file only from within the model's folder."""
    fixed = ["v2", "--model-id", ".", "--served-model-name", "model", "--host", load.HOST, "--device", "cpu"]
    return Server(
        name=name,
        command=lambda port: [str(python.with_name("infinity_emb")), *fixed, *options, "--port", str(port)],
        body=lambda asked: {
            "model": "model", "query": asked.query, "documents": asked.documents, "return_documents": False,
        },
        health="/health",
        log=folder / "logs" / f"{name}.log",
        folder=model,
        environment=environment,
    )  # fmt: skip


def tree(root: int) -> Iterator[int]:
    """A process and all that descend from it."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    waiting = [root]
    while waiting:
        pid = waiting.pop()
        yield pid
        waiting += children.get(pid, [])


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the third on (proc(5)): state, ppid, …; none when the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def tree_cpu(root: int) -> float:
    """Seconds that a process and its descendants have computed."""
    # utime, stime, and those of children that have ended
    return sum(sum(map(int, _stat(pid)[11:15])) for pid in tree(root)) / _TICKS


def _rss(pid: int) -> float:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    match = re.search(r"^VmRSS:\s+(\d+) kB", status, re.MULTILINE)
    return int(match[1]) * 1024 / 1e6 if match else 0.0
