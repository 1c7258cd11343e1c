"""Names that somebody else has, or had: nothing is taken over, nothing of somebody else's is used."""

import uuid
from base64 import b64encode

import pytest

from devcluster.cluster import Cluster as Devcluster
from rag_operator.api.v1alpha1 import API_VERSION, KIND
from rag_operator.children import Children
from rag_operator.cluster import DEPLOYMENT, EVENT, HPA, RAG_SERVICE, SECRET, ClusterError, Kind, Object
from rag_operator.desired.hpa import HpaBounds
from rag_operator.desired.manifests import Inputs, manifests
from rag_operator.events import Recorder
from rag_operator.reconcile import Reconciler
from rag_operator.record import Key
from rag_operator.resource_metrics import ResourceMetrics
from rag_operator.status import Images, read
from rag_operator.workqueue import RetryError
from tests.api.operator.client import Api, eventually
from tests.api.operator.kubelet import Kubelet
from tests.api.operator.process import OperatorProcess

pytestmark = pytest.mark.cluster

CONFIG_MAP = Kind("v1", "ConfigMap", "configmaps")


def deployment(api: Api, name: str, replicas: int) -> Object:
    """A Deployment that has nothing to do with any RAGService."""
    labels = {"app": "mine"}
    spec = {"containers": [{"name": "mine", "image": "mine:1"}]}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": api.namespace},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }


async def name_taken(api: Api) -> str:
    """Wait for the condition; returns its message."""

    async def told() -> str | None:
        ready = await api.condition("Ready")
        return str(ready["message"]) if ready.get("reason") == "NameTaken" else None

    return str(await eventually(told, "NameTaken"))


async def ready(api: Api) -> bool:
    return bool((await api.condition("Ready")).get("status") == "True")


async def test_a_foreign_deployment_is_neither_taken_over_nor_scaled(
    api: Api, operator: OperatorProcess, kubelet: Kubelet
) -> None:
    before = await api.create(DEPLOYMENT, deployment(api, "faq-reranker", 5))
    await api.make()
    assert "Deployment faq-reranker exists and does not belong to this RAGService" in await name_taken(api)
    assert await api.get(HPA, api.namespace, "faq-reranker") is None, "an autoscaler would scale what isn't ours"
    after = await api.get(DEPLOYMENT, api.namespace, "faq-reranker")
    assert after is not None
    assert after["spec"] == before["spec"]
    await api.delete(DEPLOYMENT, after)
    await eventually(lambda: ready(api), "a service of our own", 90)
    assert await api.replicas() == 1, "the replicas of another's Deployment say nothing about the need"


async def test_a_foreign_secret_is_not_used(api: Api, operator: OperatorProcess, kubelet: Kubelet) -> None:
    metadata = {"name": "faq-redis", "namespace": api.namespace}
    data = {"password": b64encode(b"somebody-elses-password-0123456789").decode()}
    before = await api.create(SECRET, {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data})
    await api.make()
    assert "Secret faq-redis exists and does not belong to this RAGService" in await name_taken(api)
    assert await api.list(DEPLOYMENT, api.namespace) == [], "its pods would mount it"
    assert await api.get(SECRET, api.namespace, "faq-redis") == before


async def test_what_an_earlier_ragservice_left_goes_first_without_alarm(
    api: Api, operator: OperatorProcess, kubelet: Kubelet
) -> None:
    owner = {"apiVersion": API_VERSION, "kind": KIND, "name": "faq", "uid": str(uuid.uuid4()), "controller": True}
    metadata = {
        "name": "faq-config",
        "namespace": api.namespace,
        "ownerReferences": [owner],
        # Kubernetes removes it, but not before the RAGService was looked at.
        "finalizers": ["example.com/wait"],
    }
    await api.create(CONFIG_MAP, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})
    await api.make()

    async def waits() -> bool:
        told = await api.condition("Reconciled")
        return told.get("reason") == "Progressing" and "earlier RAGService" in told["message"]

    await eventually(waits, "the wait for the earlier one's end")
    await api.patch(CONFIG_MAP, "faq-config", {"metadata": {"finalizers": None}})
    await eventually(lambda: ready(api), "the service", 90)
    events = await api.list(EVENT, api.namespace)
    told = [(event["type"], event["note"]) for event in events if event["regarding"]["kind"] == KIND]
    # That no node takes the pod is true for a moment: the stand-in for the kubelet is slower than the scheduler.
    assert [note for kind, note in told if kind != "Normal" and "faq-config" in note] == []


async def test_a_deployment_that_vanishes_meanwhile_does_not_come_back_with_one_replica(api: Api) -> None:
    """Applied without replicas, as one that exists is, it would be made with 1."""
    rag = read(await api.make(paused=True))  # no operator comes in between
    inputs = Inputs("service:1", "redis:1", "p" * 43, HpaBounds(4, 4, False))
    assert await (await Children.observe(api, rag)).apply(manifests(rag, inputs), {}, 4) is None
    children = await Children.observe(api, rag)
    await api.remove(DEPLOYMENT, "faq-reranker")
    failure = await children.apply(manifests(rag, inputs), {}, 4)
    assert isinstance(failure, ClusterError)
    assert failure.retryable
    assert await (await Children.observe(api, rag)).apply(manifests(rag, inputs), {}, 4) is None
    assert await api.replicas() == 4


class Replaced(Api):
    """The RAGService is deleted and made again between what the operator reads and what it writes."""

    async def apply_status(self, kind: Kind, manifest: Object) -> Object:
        await self.remove(RAG_SERVICE, "faq")
        await self.make()
        return await super().apply_status(kind, manifest)


async def test_the_status_of_one_that_is_gone_is_not_given_to_the_next(
    cluster: Devcluster, api: Api, shared_operator: OperatorProcess
) -> None:
    if shared_operator.runs:
        shared_operator.stop()
    await api.make()
    between = await Replaced.connect(cluster.environment())
    between.namespace = api.namespace
    images = Images("service:old", "redis:old")
    reconciler = Reconciler(between, {}, images, Recorder(between), ResourceMetrics(between, lambda _: None))
    with pytest.raises(RetryError, match="the object has been modified"):
        await reconciler.reconcile(Key(api.namespace, "faq"))
    await between.close()
    assert "status" not in await api.rag()
