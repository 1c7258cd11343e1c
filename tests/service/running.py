"""A running service: as a process of its own, as in a pod, or in the test's process, where a test can reach into it."""

import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import numpy as np
import uvicorn
from numpy.typing import NDArray

from rag_service import app
from rag_service.cache import NoCache, pairs
from rag_service.contract.settings import ServiceSettings
from rag_service.contract.wire import parse_cache_header
from rag_service.engine import rankers
from rag_service.engine.backends import Backend
from rag_service.engine.tokens import Tokens
from rag_service.models import prepare
from rag_service.watch import Drain
from tests.children import WITH_PARENT

# Named, because a trial of what else there is would take seconds.
REFERENCE = {"backend": "onnxruntime", "precision": "fp32"}
STARTED = re.compile(rb"running on http://127\.0\.0\.1:(\d+)")


def until(condition: Callable[[], object], seconds: float = 60) -> None:
    """Wait for something to become true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)


def settings(models: Mapping[str, str], redis: str = "", **changes: Any) -> dict[str, Any]:
    """Settings as the operator writes them. `models`: URIs by name. `redis`: its URL. `changes`: in camelCase."""
    cache: dict[str, Any] = {"ttl": "1h"} | ({"redis": {"url": redis}} if redis else {})
    return {
        "service": "default/faq",
        "models": [{"name": name, "uri": uri} | REFERENCE for name, uri in models.items()],
        "cache": cache | changes.pop("cache", {}),
        "requestTimeout": "20s",
        "drain": "0s",
        "threads": 1,
        **changes,
    }


class Service:
    """What a client does with a service."""

    url: str
    client: httpx.Client

    def rerank(self, query: str, texts: Sequence[Any], **more: Any) -> httpx.Response:
        """Ask for a ranking."""
        return self.client.post("/rerank", json={"query": query, "texts": list(texts)} | more)

    def scores(self, query: str, texts: Sequence[Any], **more: Any) -> list[float]:
        """Raw scores in the order of the texts."""
        return self.known(query, texts, **more)[0]

    def known(self, query: str, texts: Sequence[Any], **more: Any) -> tuple[list[float], int, int]:
        """Raw scores in the order of the texts; how many came from the cache, and how many did not."""
        answer = self.rerank(query, texts, raw_scores=True, **more)
        assert answer.status_code == 200, answer.text
        cached = parse_cache_header(answer.headers["X-Cache"])
        assert cached is not None
        ranks = sorted(answer.json(), key=lambda rank: rank["index"])
        return ([rank["score"] for rank in ranks], *cached)

    def load(self) -> dict[str, Any]:
        """The load report."""
        report: dict[str, Any] = self.client.get("/internal/load").json()
        return report

    def connect(self, url: str) -> None:
        """Talk to this address."""
        self.url = url
        self.client = httpx.Client(base_url=url, timeout=60)


class ServiceProcess(Service):
    """`rag-service serve` on a free loopback port. It is ended gracefully, unless it was ended already."""

    program: Sequence[str] = ("rag_service",)  # for `python -m`

    def __init__(self, directory: Path, models: Mapping[str, str], redis: str = "", **changes: Any) -> None:
        self._config = directory / "config.json"
        self._config.write_text(json.dumps(settings(models, redis, **changes)))
        self._log = directory / "service.log"
        self.process: subprocess.Popen[bytes]

    def __enter__(self) -> Self:
        command = [*WITH_PARENT, sys.executable, "-m", *self.program, "serve", "--config", str(self._config)]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen([*command, "--host", "127.0.0.1", "--port", "0"], stdout=log, stderr=log)
        deadline = time.monotonic() + 120
        while not (started := STARTED.search(self._log.read_bytes())):
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.process.kill()
                raise RuntimeError(f"the service did not start:\n{self._log.read_text()}")
            time.sleep(0.02)
        self.connect(f"http://127.0.0.1:{int(started[1])}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.client.close()
        self.stop()

    def stop(self) -> int:
        """End it gracefully; its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


class Gate:
    """A real backend behind a gate that a test can shut, or where batches fail."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._open = threading.Event()
        self._open.set()
        self.errors: list[BaseException] = []  # one for each batch that comes next
        self.broken = False  # give nonsense
        self.inputs = 0  # that were computed
        self.waiting = 0  # threads at the gate

    def shut(self) -> None:
        """Let no batch through."""
        self._open.clear()

    def open(self) -> None:
        """Let batches through again."""
        self._open.set()

    def run(self, batch: Sequence[Tokens], length: int) -> NDArray[np.float32]:
        """See `Backend`."""
        self.waiting += 1
        self._open.wait(60)
        self.waiting -= 1
        if self.errors:
            raise self.errors.pop()
        self.inputs += len(batch)
        rows = self._backend.run(batch, length)
        return rows * np.float32("nan") if self.broken else rows


class InProcess(Service):
    """The same in a thread, the backend of the first model behind `gate`."""

    def __init__(self, models: Mapping[str, str], redis: str = "", **changes: Any) -> None:
        wanted = ServiceSettings.model_validate(settings(models, redis, **changes))
        loaded = {model.name: rankers.load(*prepare.find(model.uri)) for model in wanted.models}
        first = next(iter(loaded.values()))
        self.gate = first.backend = Gate(first.backend)
        where = wanted.cache.redis
        cache = pairs.connect(wanted.service, wanted.cache, where) if where else NoCache()
        self.app = app.create(wanted, loaded, cache, Drain())
        self.engine = self.app.state.reranker.engine
        self.meter = self.app.state.meter
        config = uvicorn.Config(self.app, host="127.0.0.1", port=0, log_config=None, lifespan="on", ws="none")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, name="server")

    def __enter__(self) -> Self:
        self._thread.start()
        until(lambda: self._server.started or not self._thread.is_alive())
        self.connect(f"http://127.0.0.1:{self._server.servers[0].sockets[0].getsockname()[1]}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.gate.open()
        self.client.close()
        self._server.should_exit = True
        self._thread.join(60)
        assert not self._thread.is_alive()


@dataclass
class Drained:
    """What clients met of a server that was told to stop while they asked."""

    answered: list[int] = field(default_factory=list)  # statuses
    failed: list[httpx.HTTPError] = field(default_factory=list)
    told: int = 0  # clients that were asked to connect elsewhere


def drain(service: ServiceProcess, clients: int) -> Drained:
    """Send SIGTERM while so many clients ask over connections that they keep, until each fails or is told to leave."""
    met = Drained()
    one_at_a_time = threading.Lock()

    def ask() -> None:
        with httpx.Client(base_url=service.url, timeout=30) as client:
            while True:
                try:
                    answer = client.post("/rerank", json={"query": "q", "texts": ["a", "b"]})
                except httpx.HTTPError as error:
                    met.failed.append(error)
                    return
                met.answered.append(answer.status_code)
                if answer.headers.get("Connection") == "close":
                    with one_at_a_time:
                        met.told += 1
                    return

    threads = [threading.Thread(target=ask) for _ in range(clients)]
    for thread in threads:
        thread.start()
    until(lambda: len(met.answered) > 50)
    service.process.send_signal(signal.SIGTERM)
    for thread in threads:
        thread.join(30)
    return met
