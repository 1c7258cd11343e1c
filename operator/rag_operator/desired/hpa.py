"""The HorizontalPodAutoscaler: the only one that changes the replicas of a running reranker Deployment."""

from dataclasses import dataclass

from rag_operator.api.v1alpha1 import RAGService
from rag_operator.desired import names, quantity
from rag_operator.desired.names import Component, Manifest

# Percent of the CPU limit at which pods are saturated whatever the plan believes.
SATURATION = 95


@dataclass(frozen=True)
class HpaBounds:
    """What the `Bounds` actuator gives the HorizontalPodAutoscaler.

    Where resource metrics work: min = need, max = the user's, `cpu_target` on as a safety net that only ever adds.
    Where they don't: min = max = need and `cpu_target` off, because an autoscaler whose only metric fails never
    shrinks, while its bounds are always kept.
    """

    min: int
    max: int
    cpu_target: bool


def horizontal_pod_autoscaler(rag: RAGService, bounds: HpaBounds) -> Manifest:
    """The autoscaler. It follows its bounds at once: smoothing is the plan's work, and two windows would add up."""
    spec: Manifest = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": names.reranker(rag.metadata.name)},
        "minReplicas": bounds.min,
        "maxReplicas": bounds.max,
        "behavior": {
            "scaleUp": {
                "stabilizationWindowSeconds": 0,
                "selectPolicy": "Max",
                "policies": [{"type": "Pods", "value": rag.spec.scaling.max_replicas, "periodSeconds": 15}],
                # With the usual 10 % a target of 95 % would be reached at 104.5 %: never.
                "tolerance": "0",
            },
            "scaleDown": {
                "stabilizationWindowSeconds": 0,
                "selectPolicy": "Max",
                "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}],
            },
        },
    }
    if bounds.cpu_target:
        spec["metrics"] = [
            {
                "type": "Resource",
                "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": _target(rag)}},
            }
        ]
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": names.metadata(rag, names.reranker(rag.metadata.name), Component.RERANKER),
        "spec": spec,
    }


def _target(rag: RAGService) -> int:
    """The saturation of the limit as the autoscaler counts it: in percent of the request."""
    resources = rag.spec.pod.resources
    limit = quantity.parse(resources.limits["cpu"])
    request = quantity.parse(resources.requests.get("cpu", resources.limits["cpu"]))
    return int(SATURATION * limit / request)
