"""The identity of the pods: a ServiceAccount without any right, and without a token."""

from rag_operator.api.v1alpha1 import RAGService
from rag_operator.desired import names
from rag_operator.desired.names import Component, Manifest


def service_account(rag: RAGService) -> Manifest:
    """The ServiceAccount."""
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": names.metadata(rag, rag.metadata.name, Component.RERANKER),
        "automountServiceAccountToken": False,
    }
