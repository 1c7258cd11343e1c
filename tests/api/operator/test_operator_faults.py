"""The API server fails, throttles, cuts watches, or goes away: the operator stays and catches up."""

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from aiohttp import web

from devcluster.cluster import Cluster as Devcluster
from rag_operator.cluster import DEPLOYMENT, RAG_SERVICE, Kind
from tests.api.operator.client import Api, eventually
from tests.api.operator.kubelet import Kubelet
from tests.api.operator.process import OperatorProcess
from tests.api.operator.proxy import Proxy

pytestmark = pytest.mark.cluster

CONFIG_MAP = Kind("v1", "ConfigMap", "configmaps")


@pytest_asyncio.fixture
async def proxy(
    operator_kubeconfig: Path, shared_operator: OperatorProcess, tmp_path: Path
) -> AsyncIterator[tuple[Proxy, OperatorProcess]]:
    """An operator behind a proxy; the one without steps aside."""
    if shared_operator.runs:
        shared_operator.stop()
    proxy = Proxy(operator_kubeconfig)
    operator = OperatorProcess(await proxy.start(tmp_path), tmp_path / "operator.log")
    await operator.start()
    yield proxy, operator
    operator.stop()
    await proxy.stop()
    print(operator.log.read_text())


async def whole(api: Api, replicas: int = 1, name: str = "faq") -> bool:
    """Whether a service has its replicas and its settings, and says that it is ready."""
    settings = await api.get(CONFIG_MAP, api.namespace, f"{name}-config")
    ready = (await api.condition("Ready", name)).get("status")
    return settings is not None and await api.replicas(name) == replicas and ready == "True"


async def test_any_request_may_fail(api: Api, kubelet: Kubelet, proxy: tuple[Proxy, OperatorProcess]) -> None:
    door, operator = proxy
    rng = random.Random(11)

    def sometimes(request: web.Request) -> str | None:
        if "watch" in request.query:
            return rng.choice(["500", "drop", "cut", "cut", "cut", "429", None])
        return rng.choice(["409", "429", "500", "503", "504", "drop"]) if rng.random() < 0.1 else None

    door.fail(sometimes)
    await api.make()
    # It works in spite of it …
    await eventually(lambda: whole(api), "a service", 120)
    await api.remove(CONFIG_MAP, "faq-config")
    await api.remove(DEPLOYMENT, "faq-reranker")
    await eventually(lambda: whole(api), "a repaired service", 120)
    door.fail(None)
    # … and afterwards as if nothing had been.
    await api.patch(RAG_SERVICE, "faq", {"spec": {"scaling": {"minReplicas": 2}}})
    await eventually(lambda: whole(api, 2), "2 replicas")
    assert operator.runs
    assert await operator.get("/healthz") == 200
    assert sum(door.failed.values()) >= 10, "there were faults to get over"


async def test_nothing_answers_for_a_while(api: Api, kubelet: Kubelet, proxy: tuple[Proxy, OperatorProcess]) -> None:
    door, operator = proxy
    await api.make()
    await eventually(lambda: whole(api), "a service")
    # Watches that exist live on in a proxy; the next ones fail.
    door.fail(lambda _: "503")
    await api.remove(CONFIG_MAP, "faq-config")
    await api.patch(RAG_SERVICE, "faq", {"spec": {"scaling": {"minReplicas": 3}}})
    await asyncio.sleep(8)
    assert operator.runs
    refused = sum(door.failed.values())
    assert 0 < refused < 200, "it tries again, but not all the time"
    door.fail(None)
    await eventually(lambda: whole(api, 3), "what was asked for meanwhile")
    lines = [line for line in operator.log.read_text().splitlines() if "WARNING" in line]
    assert len(lines) < 40, "a lasting fault stays readable"


async def test_a_conflict_is_tried_again_and_not_told(
    api: Api, kubelet: Kubelet, proxy: tuple[Proxy, OperatorProcess]
) -> None:
    door, _ = proxy
    seen: set[str] = set()

    def once(request: web.Request) -> str | None:
        if request.method != "PATCH" or request.path in seen:
            return None
        seen.add(request.path)
        return "409"

    door.fail(once)
    await api.make()
    reasons = set()

    async def ready() -> bool:
        reasons.add((await api.condition("Reconciled")).get("reason"))
        return await whole(api)

    await eventually(ready, "a service")
    assert "ApplyFailed" not in reasons
    assert len(seen) >= 8


async def test_what_is_refused_for_good_is_told(
    api: Api, kubelet: Kubelet, proxy: tuple[Proxy, OperatorProcess]
) -> None:
    door, _ = proxy
    door.fail(lambda request: "403" if request.method == "PATCH" and "/services/" in request.path else None)
    await api.make()

    async def told() -> bool:
        return (await api.condition("Ready")).get("reason") == "ApplyFailed"

    await eventually(told, "ApplyFailed")
    message = (await api.condition("Ready"))["message"]
    assert message == f"PATCH /api/v1/namespaces/{api.namespace}/services/faq-redis: injected (403)"
    assert await api.replicas() == 1, "one refusal does not keep the rest from being made"
    door.fail(None)
    await eventually(lambda: whole(api), "a service")


async def test_the_api_server_is_killed_and_comes_back(
    cluster: Devcluster, api: Api, operator: OperatorProcess, kubelet: Kubelet
) -> None:
    await api.make()
    await eventually(lambda: whole(api), "a service")
    (server,) = (one.pid for one in cluster.status() if one.name == "kube-apiserver")
    assert server is not None
    os.kill(server, signal.SIGKILL)
    await asyncio.sleep(5)
    assert operator.runs
    await asyncio.to_thread(cluster.up, nodes=0)
    await api.remove(CONFIG_MAP, "faq-config")
    await api.patch(RAG_SERVICE, "faq", {"spec": {"scaling": {"minReplicas": 2}}})
    await eventually(lambda: whole(api, 2), "what was asked for since")
    assert operator.runs
    assert await operator.get("/healthz") == 200
