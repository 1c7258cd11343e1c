"""A RAGService that is deleted between being read and being told about."""

from typing import Any, cast

import pytest

from rag_operator.cluster import Cluster, ClusterError
from rag_operator.events import Recorder
from rag_operator.reconcile import Reconciler
from rag_operator.record import Key
from rag_operator.resource_metrics import ResourceMetrics
from rag_operator.status import Images
from rag_operator.workqueue import RetryError

BODY = {
    "apiVersion": "ragservice.dev/v1alpha1",
    "kind": "RAGService",
    "metadata": {"name": "faq", "namespace": "docs", "uid": "u", "generation": 1, "resourceVersion": "1"},
    "spec": {"slo": {"p95": "300ms"}, "models": [{"name": "best", "uri": "package://m"}]},
}


class Refusing:
    """An API server that still shows the RAGService, and refuses its status: a moment that cannot be had at will."""

    def __init__(self, status: int) -> None:
        self.error = ClusterError("PATCH", status, "no")

    async def get(self, *_: Any) -> Any:
        return BODY

    async def apply_status(self, *_: Any) -> Any:
        raise self.error


def reconciler(status: int) -> Reconciler:
    refusing = cast("Cluster", Refusing(status))
    nothing: Any = None
    return Reconciler(refusing, {}, Images("s:1", "r:1"), cast("Recorder", nothing), cast("ResourceMetrics", nothing))


async def test_its_end_is_no_failure() -> None:
    assert await reconciler(404).reconcile(Key("docs", "faq")) is None


async def test_anything_else_is_tried_again() -> None:
    with pytest.raises(RetryError):
        await reconciler(409).reconcile(Key("docs", "faq"))
