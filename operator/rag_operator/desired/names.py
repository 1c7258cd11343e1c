"""The names and labels of everything that belongs to a RAGService."""

from enum import StrEnum
from typing import Any

from rag_operator.api.v1alpha1 import API_VERSION, GROUP, KIND, RAGService

Manifest = dict[str, Any]

LABEL_NAME = f"{GROUP}/name"
LABEL_COMPONENT = "app.kubernetes.io/component"
LABEL_MANAGED_BY = "app.kubernetes.io/managed-by"
MANAGER = "ragservice-operator"
PREPARE = "prepare-"
CONFIG_HASH = f"{GROUP}/config-hash"


class Component(StrEnum):
    """The parts of a RAGService, as the label `app.kubernetes.io/component` tells them apart."""

    RERANKER = "reranker"
    REDIS = "redis"


def reranker(name: str) -> str:
    """Name of the reranker's Deployment and of its HorizontalPodAutoscaler."""
    return f"{name}-reranker"


def redis(name: str) -> str:
    """Name of Redis' Deployment, Service and Secret."""
    return f"{name}-redis"


def config(name: str) -> str:
    """Name of the ConfigMap with the service's settings."""
    return f"{name}-config"


def prepare(model: str) -> str:
    """Name of the init container that makes a model's files ready."""
    return f"{PREPARE}{model}"


def url(rag: RAGService) -> str:
    """Where the service answers inside the cluster: its stable front."""
    return f"http://{rag.metadata.name}.{rag.metadata.namespace}.svc"


def selector(rag: RAGService, component: Component) -> dict[str, str]:
    """The labels by which a Deployment or Service finds its pods. A Deployment's can never change again."""
    return {LABEL_NAME: rag.metadata.name, LABEL_COMPONENT: component.value}


def labels(rag: RAGService, component: Component) -> dict[str, str]:
    """All labels of an object that belongs to the RAGService."""
    return {
        "app.kubernetes.io/name": "ragservice",
        "app.kubernetes.io/instance": rag.metadata.name,
        "app.kubernetes.io/part-of": "ragservice",
        LABEL_MANAGED_BY: MANAGER,
        **selector(rag, component),
    }


def metadata(rag: RAGService, name: str, component: Component) -> Manifest:
    """Metadata of a child. The owner reference lets Kubernetes remove it with the RAGService, operator or not."""
    return {
        "name": name,
        "namespace": rag.metadata.namespace,
        "labels": labels(rag, component),
        "ownerReferences": [
            {
                "apiVersion": API_VERSION,
                "kind": KIND,
                "name": rag.metadata.name,
                "uid": rag.metadata.uid,
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ],
    }
