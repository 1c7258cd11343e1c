"""The stable front: the Service that clients use, named after the RAGService for ever."""

from rag_operator.api.v1alpha1 import RAGService
from rag_operator.desired import names
from rag_operator.desired.names import Component, Manifest

FRONT_PORT = 80


def front(rag: RAGService) -> Manifest:
    """The Service in front of the reranker pods."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": names.metadata(rag, rag.metadata.name, Component.RERANKER),
        "spec": {
            "type": "ClusterIP",
            "sessionAffinity": "None",
            "selector": names.selector(rag, Component.RERANKER),
            "ports": [
                {
                    "name": "http",
                    "port": FRONT_PORT,
                    "targetPort": "http",
                    "protocol": "TCP",
                    "appProtocol": "http",
                }
            ],
        },
    }
