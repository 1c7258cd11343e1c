"""The objects of a RAGService: made, owned, repaired, removed, and nobody else's touched."""

import asyncio
import random
from typing import Any

import pytest

from rag_operator.cluster import CHILDREN, DEPLOYMENT, HPA, POD, RAG_SERVICE, SCALE_MANAGER, SECRET, Kind, Object
from tests.api.operator.client import Api, eventually
from tests.api.operator.kubelet import Kubelet
from tests.api.operator.process import OperatorProcess

pytestmark = pytest.mark.cluster

CONFIG_MAP, SERVICE = Kind("v1", "ConfigMap", "configmaps"), Kind("v1", "Service", "services")
EXPECTED = {
    ("ServiceAccount", "faq"),
    ("ConfigMap", "faq-config"),
    ("Secret", "faq-redis"),
    ("Service", "faq"),
    ("Service", "faq-redis"),
    ("Deployment", "faq-redis"),
    ("Deployment", "faq-reranker"),
    ("HorizontalPodAutoscaler", "faq-reranker"),
}


async def children(api: Api, name: str = "faq") -> dict[tuple[str, str], Object]:
    found: dict[tuple[str, str], Object] = {}
    for kind in CHILDREN:
        for item in await api.list(kind, api.namespace, f"ragservice.dev/name={name}"):
            found[(item["kind"], item["metadata"]["name"])] = item
    return found


def essence(items: dict[tuple[str, str], Object]) -> dict[tuple[str, str], Any]:
    """The children without what a repair may change: versions, times, addresses that the API server chooses."""
    chosen = {"clusterIP", "clusterIPs", "healthCheckNodePort"}
    result: dict[tuple[str, str], Any] = {}
    for place, item in items.items():
        metadata = {key: item["metadata"].get(key) for key in ("labels", "ownerReferences")}
        spec = {key: value for key, value in item.get("spec", {}).items() if key not in chosen}
        result[place] = {"metadata": metadata, "spec": spec, "data": item.get("data")}
    return result


async def settled(api: Api) -> dict[tuple[str, str], Object]:
    async def complete() -> dict[tuple[str, str], Object] | None:
        found = await children(api)
        return found if set(found) == EXPECTED else None

    found: dict[tuple[str, str], Object] = await eventually(complete, "every child")
    return found


async def test_everything_is_made_owned_and_admitted_by_the_restricted_standard(
    api: Api, operator: OperatorProcess, kubelet: Kubelet
) -> None:
    rag = await api.make()
    found = await settled(api)
    for item in found.values():
        (owner,) = item["metadata"]["ownerReferences"]
        assert (owner["uid"], owner["controller"]) == (rag["metadata"]["uid"], True)
        assert item["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "ragservice-operator"

    async def ready() -> bool:
        return (await api.condition("Ready")).get("status") == "True"

    await eventually(ready, "Ready")
    status = (await api.rag())["status"]
    assert status["url"] == f"http://faq.{api.namespace}.svc"
    assert (status["image"], status["redisImage"]) == ("ragservice/service:test", "redis:test")
    assert (status["replicas"], status["readyReplicas"], status["model"]) == (1, 1, "best")
    metadata = (await api.rag())["metadata"]
    assert "finalizers" not in metadata, "a finalizer would keep it from being deleted while the operator is away"
    assert "annotations" not in metadata


async def test_the_replicas_belong_to_the_autoscaler(api: Api, operator: OperatorProcess, kubelet: Kubelet) -> None:
    await api.make(scaling={"minReplicas": 2, "scaleDownWindow": "10s"})
    await settled(api)
    deployment = await api.get(DEPLOYMENT, api.namespace, "faq-reranker")
    assert deployment is not None
    owned = {entry["manager"]: entry["fieldsV1"] for entry in deployment["metadata"]["managedFields"]}
    assert "f:replicas" not in owned["ragservice-operator"]["f:spec"]
    assert owned[SCALE_MANAGER] == {"f:spec": {"f:replicas": {}}}
    assert deployment["spec"]["replicas"] == 2
    # What the operator once set and leaves out later has to go, although another manager made the Deployment.
    await api.patch(RAG_SERVICE, "faq", {"spec": {"pod": {"env": [{"name": "COLOUR", "value": "blue"}]}}})

    async def colour() -> str:
        item = await api.get(DEPLOYMENT, api.namespace, "faq-reranker")
        assert item is not None
        return str(item["spec"]["template"]["spec"]["containers"][0].get("env"))

    await eventually(lambda: _contains(colour, "blue"), "the variable")
    await api.patch(RAG_SERVICE, "faq", {"spec": {"pod": {"env": []}}})
    await eventually(lambda: _lacks(colour, "blue"), "its end")
    assert await api.replicas() == 2


async def _contains(text: Any, part: str) -> bool:
    return part in await text()


async def _lacks(text: Any, part: str) -> bool:
    return part not in await text()


def mutations(rng: random.Random, item: Object) -> Object:
    """A merge patch that spoils something which the operator set. What others add is theirs: server-side apply."""
    spoiled: list[Object] = [
        {"metadata": {"labels": {"ragservice.dev/name": None}}},
        {"metadata": {"labels": {"app.kubernetes.io/managed-by": "somebody"}}},
        {"metadata": {"ownerReferences": None}},
    ]
    match item["kind"]:
        case "Deployment":
            container = item["spec"]["template"]["spec"]["containers"][0]
            spoiled += [
                {"spec": {"template": {"spec": {"containers": [container | {"image": "somebody/else:1"}]}}}},
                {"spec": {"template": {"spec": {"automountServiceAccountToken": True}}}},
                {"spec": {"replicas": 0}},
            ]
        case "Service":
            spoiled += [
                {"spec": {"selector": {"ragservice.dev/name": "other"}}},
                {"spec": {"ports": [item["spec"]["ports"][0] | {"targetPort": 9}]}},
            ]
        case "ConfigMap":
            spoiled += [{"data": {"config.json": "{}"}}, {"data": None}]
        case "Secret":
            spoiled += [{"data": {"redis.conf": ""}}, {"data": None}, {"data": {"password": ""}}]
        case "HorizontalPodAutoscaler":
            spoiled += [{"spec": {"maxReplicas": 77}}, {"spec": {"scaleTargetRef": {"name": "other"}}}]
    return rng.choice(spoiled)


@pytest.mark.parametrize("seed", range(3))
async def test_whatever_is_deleted_or_edited_comes_back_as_it_was(
    api: Api, operator: OperatorProcess, kubelet: Kubelet, seed: int
) -> None:
    rng = random.Random(seed)
    await api.make()
    expected = essence(await settled(api))
    kinds = {kind.kind: kind for kind in CHILDREN}
    for _ in range(6):
        done = []
        for _ in range(rng.randint(1, 3)):
            current = await children(api)
            place = rng.choice(sorted(current))
            if rng.random() < 0.4:
                await api.delete(kinds[place[0]], current[place])
                done.append(f"delete {place}")
            else:
                patch = mutations(rng, current[place])
                await api.patch(kinds[place[0]], place[1], patch)
                done.append(f"{place} {patch}")

        async def repaired() -> bool:
            return essence(await children(api)) == expected

        try:
            await eventually(repaired, str(done), seconds=20)
        except AssertionError:
            now = essence(await children(api))
            differing = {place: (now.get(place), want) for place, want in expected.items() if now.get(place) != want}
            raise AssertionError(f"after {done}: {differing}") from None


async def test_a_deployment_without_replicas_is_repaired(api: Api, operator: OperatorProcess, kubelet: Kubelet) -> None:
    await api.make(scaling={"minReplicas": 2, "scaleDownWindow": "10s"})
    await settled(api)
    await api.patch(DEPLOYMENT, "faq-reranker", {"spec": {"replicas": 0}}, "scale")

    async def back() -> bool:
        return await api.replicas() == 2

    await eventually(back, "2 replicas")


async def test_what_is_no_longer_needed_is_removed_and_others_are_not(api: Api, operator: OperatorProcess) -> None:
    rag = await api.make()
    await settled(api)
    labels = {"ragservice.dev/name": "faq"}
    owner = {
        "apiVersion": "ragservice.dev/v1alpha1",
        "kind": "RAGService",
        "name": "faq",
        "uid": rag["metadata"]["uid"],
    }
    left_over = {"name": "faq-old", "namespace": api.namespace, "labels": labels, "ownerReferences": [owner]}
    somebodys = {"name": "faq-notes", "namespace": api.namespace, "labels": labels}
    for metadata in (left_over, somebodys):
        await api.create(CONFIG_MAP, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})

    async def pruned() -> bool:
        return await api.get(CONFIG_MAP, api.namespace, "faq-old") is None

    await eventually(pruned, "the end of the left-over")
    assert await api.get(CONFIG_MAP, api.namespace, "faq-notes") is not None


async def test_an_object_of_somebody_else_is_left_alone_and_told(api: Api, operator: OperatorProcess) -> None:
    metadata = {"name": "faq", "namespace": api.namespace}
    spec = {"ports": [{"port": 80}], "selector": {"app": "mine"}}
    mine = {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}
    before = await api.create(SERVICE, mine)
    await api.make()

    async def told() -> bool:
        return (await api.condition("Ready")).get("reason") == "NameTaken"

    await eventually(told, "NameTaken")
    message = (await api.condition("Reconciled"))["message"]
    assert message.startswith("Service faq exists and does not belong to this RAGService; delete it, or")
    after = await api.get(SERVICE, api.namespace, "faq")
    assert after is not None
    assert after["spec"] == before["spec"]
    await api.delete(SERVICE, after)
    await settled(api)


async def test_paused_touches_nothing(api: Api, operator: OperatorProcess, kubelet: Kubelet) -> None:
    await api.make()
    await settled(api)
    await api.patch(RAG_SERVICE, "faq", {"spec": {"paused": True}})

    async def paused() -> bool:
        return (await api.condition("Paused")).get("status") == "True"

    await eventually(paused, "Paused")
    await api.remove(CONFIG_MAP, "faq-config")
    await api.patch(DEPLOYMENT, "faq-reranker", {"spec": {"replicas": 0}}, "scale")
    await api.patch(RAG_SERVICE, "faq", {"spec": {"scaling": {"minReplicas": 3}}})
    await asyncio.sleep(4)
    assert await api.get(CONFIG_MAP, api.namespace, "faq-config") is None
    assert await api.replicas() == 0
    await api.patch(RAG_SERVICE, "faq", {"spec": {"paused": False}})

    async def restored() -> bool:
        return await api.replicas() == 3 and await api.condition("Paused") == {}

    await settled(api)
    await eventually(restored, "3 replicas, and no condition")


async def test_deleting_it_leaves_nothing_with_the_operator_stopped_too(
    api: Api, operator: OperatorProcess, kubelet: Kubelet
) -> None:
    await api.make()
    await settled(api)
    assert operator.stop() == 0
    await api.remove(RAG_SERVICE, "faq")

    async def empty() -> bool:
        kinds = (*CHILDREN, POD, RAG_SERVICE)
        return not [item for kind in kinds for item in await api.list(kind, api.namespace, "ragservice.dev/name=faq")]

    await eventually(empty, "the end of all objects")
    assert await api.get(RAG_SERVICE, api.namespace, "faq") is None


async def test_two_ragservices_in_a_namespace_do_not_mix(api: Api, operator: OperatorProcess, kubelet: Kubelet) -> None:
    await api.make("faq")
    await api.make("faq-two", scaling={"minReplicas": 2, "scaleDownWindow": "10s"})

    async def both() -> bool:
        ready = [(await api.condition("Ready", name)).get("status") for name in ("faq", "faq-two")]
        return await api.replicas("faq-two") == 2 and "True" in ready

    await eventually(both, "two services")
    passwords = set()
    for name in ("faq", "faq-two"):
        secret = await api.get(SECRET, api.namespace, f"{name}-redis")
        assert secret is not None
        passwords.add(secret["data"]["password"])
    assert len(passwords) == 2
    await api.remove(RAG_SERVICE, "faq-two")

    async def gone() -> bool:
        return await children(api, "faq-two") == {}

    await eventually(gone, "the end of the other")
    await settled(api)
    hpa = await api.get(HPA, api.namespace, "faq-reranker")
    assert hpa is not None
    assert hpa["spec"]["minReplicas"] == 1


async def test_a_new_default_image_restarts_no_pod(api: Api, operator: OperatorProcess, kubelet: Kubelet) -> None:
    await api.make()
    await settled(api)
    operator.stop()
    before = essence(await children(api))
    newer = OperatorProcess(operator.kubeconfig, operator.log, RAG_SERVICE_IMAGE="ragservice/service:newer")
    await newer.start()
    try:
        await api.make("young")

        async def young() -> bool:
            return (await api.rag("young")).get("status", {}).get("image") == "ragservice/service:newer"

        await eventually(young, "the newer image")
        assert essence(await children(api)) == before
    finally:
        newer.stop()
