"""The operator as a real process, as its own ServiceAccount, on a real control plane."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import aiohttp

SETTINGS = {
    "RAG_SERVICE_IMAGE": "ragservice/service:test",
    "RAG_REDIS_IMAGE": "redis:test",
    "RAG_SCRAPE_PERIOD": "1s",
    "RAG_SCRAPE_TIMEOUT": "500ms",
    "RAG_SWEEP_PERIOD": "5m",
}


class OperatorProcess:
    """`rag-operator run` with a kubeconfig; its log is kept over restarts."""

    def __init__(self, kubeconfig: Path, log: Path, **settings: str) -> None:
        self.kubeconfig = kubeconfig
        self.log = log
        self._environment = os.environ | SETTINGS | settings | {"KUBECONFIG": str(kubeconfig)}
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None
        return self._process.pid

    @property
    def runs(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    async def start(self) -> None:
        """Start it, and wait until it watches."""
        self._spawn()
        deadline = time.monotonic() + 60
        while await self.get("/readyz") != 200:
            assert self.runs, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            await asyncio.sleep(0.1)

    def _spawn(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        command = [sys.executable, "-m", "rag_operator", "run", "--port", str(self._port)]
        with self.log.open("a") as log:
            self._process = subprocess.Popen(command, env=self._environment, stdout=log, stderr=log)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End it and return its exit status."""
        assert self._process is not None
        if self.runs:
            self._process.send_signal(number)
        return self._process.wait(30)

    async def get(self, path: str) -> int:
        """The HTTP status of a probe; 0 where nothing answers."""
        try:
            async with (
                aiohttp.ClientSession() as session,
                session.get(f"http://127.0.0.1:{self._port}{path}") as answer,
            ):
                return answer.status
        except aiohttp.ClientError:
            return 0

    async def metric(self, metric: str, /, **labels: str) -> float | None:
        """The value of a metric that carries these labels."""
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{self._port}/metrics") as answer:
            lines = (await answer.text()).splitlines()
        for line in lines:
            series, _, value = line.rpartition(" ")
            if series.partition("{")[0] == metric and all(f'{key}="{one}"' in series for key, one in labels.items()):
                return float(value)
        return None
