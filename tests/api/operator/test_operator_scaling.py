"""Load in, replicas out: the operator's process, the real autoscaler, pods that report a load over HTTP."""

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator

import pytest

from rag_operator.cluster import DEPLOYMENT, HPA, RAG_SERVICE
from tests.api.operator.client import Api, eventually
from tests.api.operator.kubelet import SPEED, Kubelet
from tests.api.operator.process import OperatorProcess

pytestmark = pytest.mark.cluster

WINDOW = 10.0
FOUR_PODS = 2.5 * SPEED  # at 70 % busy


async def reaches(api: Api, replicas: int, seconds: float = 60) -> None:
    async def there() -> bool:
        return await api.replicas() == replicas

    await eventually(there, f"{replicas} replicas", seconds)


@contextlib.asynccontextmanager
async def watching(api: Api) -> AsyncIterator[list[int | None]]:
    """Every number of replicas that the Deployment had meanwhile; None where there was no Deployment."""
    seen: list[int | None] = []

    async def watch() -> None:
        while True:
            now = await api.replicas()
            if not seen or seen[-1] != now:
                seen.append(now)
            await asyncio.sleep(0.05)

    task = asyncio.create_task(watch())
    yield seen
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def four_needed(api: Api, kubelet: Kubelet) -> None:
    """A service that needs four pods and has them."""
    await api.make()
    kubelet.tokens = FOUR_PODS

    async def known() -> bool:
        status = (await api.rag()).get("status", {})
        return status.get("readyReplicas", 0) >= 4 and status.get("scaling", {}).get("requiredReplicas", 0) >= 4

    await eventually(known, "four pods")


async def test_replicas_follow_the_load_up_and_down(api: Api, operator: OperatorProcess, kubelet: Kubelet) -> None:
    await api.make()
    await reaches(api, 1)
    kubelet.tokens = FOUR_PODS

    async def settled() -> bool:
        # What waited while the pods started may ask for more at first; that ends with the window.
        labels = {"namespace": api.namespace, "name": "faq"}
        needed = await operator.metric("ragservice_required_replicas", **labels)
        busy = await operator.metric("ragservice_utilization_ratio", **labels)
        return needed == 4 and busy == pytest.approx(2.5 / 4, abs=0.1)

    await eventually(settled, "four replicas", 120)
    await reaches(api, 4)
    async with watching(api) as steady:
        await asyncio.sleep(8)
    assert steady == [4], "constant load, constant replicas"
    kubelet.tokens = 0
    off = time.monotonic()
    async with watching(api) as falling:
        await reaches(api, 1)
    assert time.monotonic() - off >= 0.8 * WINDOW, "not before the window is over"
    assert falling == sorted(falling, reverse=True), "down without a way back"


async def test_answers_from_the_cache_need_no_pods(api: Api, operator: OperatorProcess, kubelet: Kubelet) -> None:
    await four_needed(api, kubelet)
    kubelet.hit_rate = 0.8
    await reaches(api, 1, 90)

    async def told() -> bool:
        scaling = (await api.rag())["status"]["scaling"]
        return scaling.get("requiredReplicas") == 1

    await eventually(told, "the decision in the status")
    ratio = await operator.metric("ragservice_hit_ratio", name="faq", namespace=api.namespace)
    assert ratio == pytest.approx(0.8, abs=0.05)


async def test_silent_pods_keep_their_replicas(api: Api, operator: OperatorProcess, kubelet: Kubelet) -> None:
    await four_needed(api, kubelet)
    before = await api.replicas()
    kubelet.answering = False
    kubelet.tokens = 0
    async with watching(api) as seen:
        await asyncio.sleep(WINDOW + 8)
    assert seen == [before]
    condition = await api.condition("ScalingActive")
    assert (condition["status"], condition["reason"]) == ("False", "MetricsMissing")
    assert "0 of 4 pods tell their load" in condition["message"] or before != 4
    assert (await api.condition("Ready"))["status"] == "True", "it still answers"


async def test_a_killed_operator_comes_back_without_a_dip(
    api: Api, operator: OperatorProcess, kubelet: Kubelet
) -> None:
    await four_needed(api, kubelet)
    before = await api.replicas() or 0
    async with watching(api) as seen:
        operator.stop(signal.SIGKILL)
        kubelet.tokens = 0.1 * SPEED
        await asyncio.sleep(3)
        await operator.start()
        await asyncio.sleep(8)
    assert min(replicas or 0 for replicas in seen) == before
    kubelet.tokens = FOUR_PODS


async def test_a_deleted_deployment_comes_back_as_large_as_it_was(
    api: Api, operator: OperatorProcess, kubelet: Kubelet
) -> None:
    await four_needed(api, kubelet)
    await api.remove(DEPLOYMENT, "faq-reranker")
    async with watching(api) as seen:
        await eventually(api.replicas, "a Deployment", every=0.05)
        await asyncio.sleep(5)
    assert min(replicas for replicas in seen if replicas is not None) >= 4
    operator.stop(signal.SIGKILL)
    await api.remove(DEPLOYMENT, "faq-reranker")
    await api.remove(HPA, "faq-reranker")
    async with watching(api) as seen:
        await operator.start()
        await eventually(api.replicas, "a Deployment", every=0.05)
        await asyncio.sleep(5)
    assert min(replicas for replicas in seen if replicas is not None) >= 4, "what was needed last is in the status"


async def test_the_maximum_is_kept_and_told(api: Api, operator: OperatorProcess, kubelet: Kubelet) -> None:
    await api.make(scaling={"maxReplicas": 2, "scaleDownWindow": "10s"})
    kubelet.tokens = 3 * SPEED

    async def told() -> bool:
        return (await api.condition("AtMaximum")).get("status") == "True"

    await eventually(told, "AtMaximum")
    await reaches(api, 2)
    assert "limited by scaling.maxReplicas" in (await api.condition("AtMaximum"))["message"]
    await api.patch(RAG_SERVICE, "faq", {"spec": {"scaling": {"maxReplicas": 6}}})

    async def enough() -> bool:
        return (await api.replicas() or 0) >= 5

    await eventually(enough, "five replicas")


async def test_a_steady_service_writes_its_status_rarely(api: Api, operator: OperatorProcess, kubelet: Kubelet) -> None:
    await api.make()
    kubelet.tokens = 0.4 * SPEED

    async def planned() -> bool:
        return (await api.condition("ScalingActive")).get("status") == "True"

    await eventually(planned, "a plan")
    await asyncio.sleep(5)
    versions = set()
    for _ in range(24):
        versions.add((await api.rag())["metadata"]["resourceVersion"])
        await asyncio.sleep(0.5)
    assert len(versions) <= 2, "numbers change every second, the status once a minute"


async def test_an_autoscaler_without_resource_metrics_is_given_the_need_as_both_bounds(
    api: Api, operator: OperatorProcess, kubelet: Kubelet
) -> None:
    await four_needed(api, kubelet)
    hpa = await api.get(HPA, api.namespace, "faq-reranker")
    assert hpa is not None
    assert hpa["spec"]["minReplicas"] == hpa["spec"]["maxReplicas"] == await api.replicas()
