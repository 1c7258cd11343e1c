"""A namespace on its way out takes nothing any more: the operator leaves it alone."""

import asyncio

import pytest

from rag_operator.cluster import DEPLOYMENT, RAG_SERVICE, Kind
from tests.api.conftest import Kubectl
from tests.api.operator.client import Api, eventually
from tests.api.operator.kubelet import Kubelet
from tests.api.operator.process import OperatorProcess

pytestmark = pytest.mark.cluster

CONFIG_MAP = Kind("v1", "ConfigMap", "configmaps")


async def test_nothing_is_made_again_in_a_namespace_that_is_deleted(
    api: Api, operator: OperatorProcess, kubelet: Kubelet, kubectl: Kubectl
) -> None:
    await api.make()

    async def ready() -> bool:
        return bool((await api.condition("Ready")).get("status") == "True")

    await eventually(ready, "a service")
    # Something of somebody else keeps the namespace, and the RAGService with it, from going.
    stays = {"metadata": {"finalizers": ["example.com/wait"]}}
    metadata = {"name": "stays", "namespace": api.namespace}
    await api.create(CONFIG_MAP, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})
    await api.patch(CONFIG_MAP, "stays", stays)
    before = len(operator.log.read_text())
    kubectl("delete", "namespace", api.namespace, "--wait=false").check_returncode()

    async def gone() -> bool:
        left = await api.list(DEPLOYMENT, api.namespace) + await api.list(RAG_SERVICE, api.namespace)
        return left == []

    await eventually(gone, "the end of the service")
    await asyncio.sleep(3)
    assert await gone()
    log = operator.log.read_text()[before:]
    assert "WARNING" not in log, "it is not a fault"
    assert operator.runs
    await api.patch(CONFIG_MAP, "stays", {"metadata": {"finalizers": None}})
