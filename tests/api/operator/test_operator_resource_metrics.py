"""Resource metrics come and go: the autoscaler's bounds follow within a few scrapes."""

import json

import pytest

from rag_operator.cluster import HPA, POD, POD_METRICS, ClusterError, Object
from tests.api.conftest import Kubectl
from tests.api.operator.client import Api, eventually
from tests.api.operator.kubelet import Kubelet
from tests.api.operator.process import OperatorProcess

pytestmark = pytest.mark.cluster

# The API server itself serves what otherwise comes from metrics-server.
METRICS_API = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {
        "name": "pods.metrics.k8s.io",
        "annotations": {"api-approved.kubernetes.io": "unapproved, of a test"},
    },
    "spec": {
        "group": "metrics.k8s.io",
        "names": {"kind": "PodMetrics", "plural": "pods", "singular": "pod", "listKind": "PodMetricsList"},
        "scope": "Namespaced",
        "versions": [
            {
                "name": "v1beta1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
            }
        ],
    },
}


async def test_the_bounds_follow_as_resource_metrics_come_and_go(
    api: Api, operator: OperatorProcess, kubelet: Kubelet, kubectl: Kubectl
) -> None:
    await api.make(scaling={"minReplicas": 2, "maxReplicas": 6})

    async def hpa() -> Object:
        found = await api.get(HPA, api.namespace, "faq-reranker")
        assert found is not None
        return dict(found["spec"])

    async def ready() -> bool:
        return bool((await api.condition("Ready")).get("status") == "True")

    await eventually(ready, "a service")
    spec = await hpa()
    assert (spec["minReplicas"], spec["maxReplicas"]) == (2, 2)
    try:
        kubectl("apply", "-f", "-", stdin=json.dumps(METRICS_API)).check_returncode()
        pod, *_ = await api.list(POD, api.namespace, "app.kubernetes.io/component=reranker")

        async def measured() -> bool:
            metadata = {key: pod["metadata"][key] for key in ("name", "namespace", "labels")}
            try:
                await api.create(
                    POD_METRICS, {"apiVersion": POD_METRICS.api_version, "kind": "PodMetrics", "metadata": metadata}
                )
            except ClusterError:
                return False  # not served yet
            return True

        await eventually(measured, "a measurement")

        async def bounds() -> tuple[int, int]:
            spec = await hpa()
            return spec["minReplicas"], spec["maxReplicas"]

        async def wide() -> bool:
            return await bounds() == (2, 6)

        async def narrow() -> bool:
            return await bounds() == (2, 2)

        await eventually(wide, "the user's maximum", 30)
        target = (await hpa())["metrics"][0]["resource"]["target"]
        assert target == {"type": "Utilization", "averageUtilization": 95}
        kubectl("delete", "crd", "pods.metrics.k8s.io").check_returncode()
        await eventually(narrow, "the need as the maximum", 30)
    finally:
        kubectl("delete", "crd", "pods.metrics.k8s.io", "--ignore-not-found").check_returncode()
