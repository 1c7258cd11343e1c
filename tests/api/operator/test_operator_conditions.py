"""What goes wrong below a RAGService is told by the RAGService, with the pod's name and the next step."""

import json
from typing import Any

import pytest
import yaml

from rag_operator.api import crd
from rag_operator.api.v1alpha1 import API_VERSION, KIND
from rag_operator.cluster import EVENT, POD, RAG_SERVICE, ClusterError, Kind
from tests.api.conftest import Kubectl
from tests.api.operator.client import Api, eventually
from tests.api.operator.kubelet import Kubelet
from tests.api.operator.process import OperatorProcess

pytestmark = pytest.mark.cluster

QUOTA = Kind("v1", "ResourceQuota", "resourcequotas")


def container(**state: Any) -> dict[str, Any]:
    """A pod's status with one container in this state."""
    one = {"name": "reranker", "image": "ragservice/service:test", "imageID": "", "ready": False, "restartCount": 3}
    return {"phase": "Pending", "containerStatuses": [one | state]}


async def ready_reason(api: Api, reason: str) -> dict[str, Any]:
    async def told() -> dict[str, Any] | None:
        condition = await api.condition("Ready")
        return condition if condition.get("reason") == reason else None

    condition: dict[str, Any] = await eventually(told, reason)
    return condition


async def test_an_image_that_cannot_be_pulled(api: Api, operator: OperatorProcess, kubelet: Kubelet) -> None:
    kubelet.statuses["reranker"] = container(
        state={"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image: not found"}}
    )
    await api.make()
    condition = await ready_reason(api, "ImagePullFailed")
    assert condition["status"] == "False"
    assert "faq-reranker-" in condition["message"]
    assert "not found; check the image's name" in condition["message"]

    async def events() -> list[str]:
        items = await api.list(EVENT, api.namespace)
        return [item["reason"] for item in items if item["regarding"]["kind"] == KIND]

    async def warned() -> bool:
        return "ImagePullFailed" in await events()

    await eventually(warned, "an event")


async def test_a_container_that_ends_with_its_last_words(api: Api, operator: OperatorProcess, kubelet: Kubelet) -> None:
    words = "loading\nrag-service: model best: the package gt-none is not installed\n"
    kubelet.statuses["reranker"] = container(
        state={"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s restarting failed container"}},
        lastState={"terminated": {"exitCode": 1, "reason": "Error", "message": words}},
    )
    await api.make()
    condition = await ready_reason(api, "ContainerFailed")
    assert (
        "ended with exit code 1: rag-service: model best: the package gt-none is not installed" in condition["message"]
    )
    # It mends itself: the status follows.
    kubelet.statuses.clear()
    await ready_reason(api, "Available")


@pytest.mark.parametrize(
    ("line", "state"),
    [
        ("rag-service: hf://acme/ranker: the hub knows no such model", "waiting"),
        ("rag-service: hf://acme/ranker: the model is gated: a token is needed", "terminated"),
        ("rag-service: hf://acme/ranker: no space left on the volume", "waiting"),
    ],
    ids=["not found", "token", "space"],
)
async def test_a_model_that_cannot_be_prepared(
    api: Api, operator: OperatorProcess, kubelet: Kubelet, line: str, state: str
) -> None:
    ended = {"terminated": {"exitCode": 2, "reason": "Error", "message": f"fetching\n{line}\n"}}
    again = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s restarting failed container"}}
    status = container(state={"waiting": {"reason": "PodInitializing"}})
    one = {"name": "prepare-best", "image": "ragservice/service:test", "imageID": "", "ready": False, "restartCount": 1}
    init = {**one, "state": again, "lastState": ended} if state == "waiting" else {**one, "state": ended}
    kubelet.statuses["reranker"] = {**status, "initContainerStatuses": [init]}
    await api.make(models=[{"name": "best", "uri": "hf://acme/ranker"}])
    condition = await ready_reason(api, "ModelNotPrepared")
    assert condition["status"] == "False"
    [pod] = await api.list(POD, api.namespace, "app.kubernetes.io/component=reranker")
    name = pod["metadata"]["name"]
    assert condition["message"] == (
        f"model best cannot be prepared in pod {name}: {line}; see `kubectl logs {name} -c prepare-best`"
    )


async def test_a_pod_whose_models_are_prepared_becomes_ready(
    api: Api, operator: OperatorProcess, kubelet: Kubelet
) -> None:
    running = {"name": "prepare-best", "image": "", "imageID": "", "ready": False, "restartCount": 0, "started": True}
    state = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
    kubelet.statuses["reranker"] = {
        **container(state={"waiting": {"reason": "PodInitializing"}}),
        "initContainerStatuses": [running | {"state": state}],
        "conditions": [{"type": "PodScheduled", "status": "True"}],
    }
    await api.make(models=[{"name": "best", "uri": "hf://acme/ranker"}])
    await ready_reason(api, "Progressing")
    kubelet.statuses.clear()
    await ready_reason(api, "Available")


async def test_pods_that_are_refused(api: Api, operator: OperatorProcess, kubelet: Kubelet) -> None:
    metadata = {"name": "none", "namespace": api.namespace}
    await api.create(
        QUOTA, {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": metadata, "spec": {"hard": {"pods": "0"}}}
    )
    await api.make()
    condition = await ready_reason(api, "PodsRefused")
    assert "exceeded quota: none" in condition["message"]


async def test_a_stored_resource_that_this_version_cannot_read(
    api: Api, operator: OperatorProcess, kubectl: Kubectl
) -> None:
    """As after a downgrade: the CRD once took what it now refuses. The operator says so, and goes on."""
    loose = yaml.safe_load(crd.text())
    for version in loose["spec"]["versions"]:
        version["schema"]["openAPIV3Schema"] = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    apply = ("apply", "--server-side", "--force-conflicts", "-f", "-")
    try:
        kubectl(*apply, stdin=json.dumps(loose)).check_returncode()
        spec = {"slo": {"p95": "soon"}, "models": [], "colour": "blue"}
        metadata = {"name": "faq", "namespace": api.namespace}
        body = {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": spec}

        async def stored() -> bool:
            try:
                await api.create(RAG_SERVICE, body)
            except ClusterError as error:
                # The CRD takes a moment to change.
                return error.status == 409
            return True

        await eventually(stored, "the bad resource")
    finally:
        kubectl(*apply, stdin=crd.text()).check_returncode()
    condition = await ready_reason(api, "InvalidSpec")
    for part in ("spec.slo.p95: 'soon' is not a duration", "spec.models"):
        assert part in condition["message"]
    await api.make("good")

    async def made() -> bool:
        return await api.replicas("good") == 1

    await eventually(made, "the good one")
    assert await api.replicas() is None
