"""Pods without a node: this gives them a status, an address on the loopback interface, and a load to report.

Everything above the kubelet is real: API server, controllers, autoscaler, and the operator that reads the load by HTTP.
"""

import asyncio
import contextlib
import itertools
import os
import random
import time
from typing import Any

from aiohttp import web

from rag_operator.cluster import POD, ClusterError
from rag_service.contract import load
from rag_service.contract.settings import PORT
from tests.api.operator.client import Api
from tests.scaling_world import Pod

SPEED = 1000.0  # tokens a second of one pod


class Kubelet:
    """Runs the pods of one namespace. Reranker pods serve `tokens` a second between them."""

    def __init__(self, api: Api) -> None:
        self.tokens = 0.0
        self.hit_rate = 0.0
        self.answering = True
        self.start_seconds = 0.0
        self.statuses: dict[str, dict[str, Any]] = {}
        """Status by component for pods that shall not become ready."""
        self._api = api
        self._servers: dict[str, tuple[web.AppRunner, Pod]] = {}
        self._seen: dict[str, float] = {}
        # Another run beside this one must not take the same addresses.
        net = random.Random(f"{os.getpid()}{api.namespace}").randrange(1, 2**16)
        self._addresses = (f"127.{net >> 8 | 64}.{net & 255}.{host}" for host in itertools.count(1))

    async def run(self) -> None:
        """Look after the pods until cancelled."""
        try:
            while True:
                with contextlib.suppress(ClusterError):
                    await self._round()
                await asyncio.sleep(0.2)
        finally:
            for server, _ in self._servers.values():
                await server.cleanup()

    def restart_pods(self) -> None:
        """All counters at zero, as after a restart of every container."""
        for _, pod in self._servers.values():
            pod.restart(time.monotonic())

    async def _round(self) -> None:
        pods = await self._api.list(POD, self._api.namespace, "ragservice.dev/name")
        names = {pod["metadata"]["name"] for pod in pods}
        for name in set(self._servers) - names:
            server, _ = self._servers.pop(name)
            await server.cleanup()
        for pod in pods:
            if pod["status"]["phase"] == "Pending" and not pod["metadata"].get("deletionTimestamp"):
                await self._start(pod)

    async def _start(self, pod: dict[str, Any]) -> None:
        name, component = pod["metadata"]["name"], pod["metadata"]["labels"]["app.kubernetes.io/component"]
        seen = self._seen.setdefault(name, time.monotonic())
        if time.monotonic() - seen < self.start_seconds:
            return
        status = self.statuses.get(component)
        if status is None:
            address = next(self._addresses)
            status = _running(pod, address)
            if component == "reranker":
                self._servers[name] = await self._serve(address)
        if pod["status"].get("containerStatuses") != status.get("containerStatuses"):
            await self._api.patch(POD, name, {"status": status}, "status")

    async def _serve(self, address: str) -> tuple[web.AppRunner, Pod]:
        pod = Pod(SPEED, time.monotonic(), incarnation=str(random.randrange(10**9)))
        last = time.monotonic()

        async def report(_: web.Request) -> web.Response:
            nonlocal last
            if not self.answering:
                return web.Response(status=500)
            now = time.monotonic()
            pod.work(now - last, self.tokens * (now - last) / max(1, len(self._servers)), self.hit_rate)
            last = now
            return web.json_response(text=pod.report(now).model_dump_json(by_alias=True))

        app = web.Application()
        app.router.add_get(load.PATH, report)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, address, PORT).start()
        return runner, pod


def _running(pod: dict[str, Any], address: str) -> dict[str, Any]:
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return {
        "phase": "Running",
        "podIP": address,
        "podIPs": [{"ip": address}],
        "startTime": now,
        "conditions": [
            {"type": kind, "status": "True", "lastTransitionTime": now}
            for kind in ("PodScheduled", "Initialized", "ContainersReady", "Ready")
        ],
        "containerStatuses": [
            {
                "name": container["name"],
                "image": container["image"],
                "imageID": "",
                "ready": True,
                "started": True,
                "restartCount": 0,
                "state": {"running": {"startedAt": now}},
            }
            for container in pod["spec"]["containers"]
        ],
    }
