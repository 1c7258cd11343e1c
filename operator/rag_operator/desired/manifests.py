"""What a RAGService consists of, as a function: the same resource and inputs give the same manifests."""

from dataclasses import dataclass, field

from rag_operator.api.v1alpha1 import RAGService
from rag_operator.desired import config, hpa, redis, reranker, service, service_account
from rag_operator.desired.hpa import HpaBounds
from rag_operator.desired.names import Manifest

__all__ = ["HpaBounds", "Inputs", "Manifest", "manifests"]


@dataclass(frozen=True)
class Inputs:
    """What the manifests depend on besides the RAGService.

    Images are resolved once by the caller (`spec` first, then `status`, then the operator's default) and kept in
    `status`, so that a new operator restarts no pod. The password is `redis.existing_password` of the Secret; fresh
    (`secrets.token_urlsafe(32)`) only where that is None: a new one restarts Redis and the reranker.
    """

    service_image: str
    redis_image: str
    redis_password: str = field(repr=False)
    hpa: HpaBounds


def manifests(rag: RAGService, inputs: Inputs) -> list[Manifest]:
    """Everything that should exist, in the order in which to apply it: what a pod needs before the pod.

    The reranker's Deployment comes without replicas, which belong to the HorizontalPodAutoscaler: an apply that leaves
    out a field which it once owned resets it. Whoever creates the Deployment gives it its first number under a field
    manager of its own, and lets go of the rest with `replicas_only`.
    """
    return [
        service_account.service_account(rag),
        config.config_map(rag),
        redis.secret(rag, inputs.redis_password),
        redis.service(rag),
        service.front(rag),
        redis.deployment(rag, inputs.redis_image, inputs.redis_password),
        reranker.deployment(rag, inputs.service_image, inputs.redis_password),
        hpa.horizontal_pod_autoscaler(rag, inputs.hpa),
    ]


def replicas_only(deployment: Manifest) -> Manifest:
    """The Deployment's identity and its number of replicas, nothing else."""
    return {
        "apiVersion": deployment["apiVersion"],
        "kind": deployment["kind"],
        "metadata": {key: deployment["metadata"][key] for key in ("name", "namespace")},
        "spec": {"replicas": deployment["spec"]["replicas"]},
    }
