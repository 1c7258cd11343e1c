"""From events to names: what queues a RAGService, what does not, and when the watch is called stale."""

from typing import Any, cast

import kopf

from rag_operator.cluster import Cluster
from rag_operator.handlers import STALE, Freshness, Handlers
from rag_operator.record import Key


def item(version: int, **more: Any) -> dict[str, Any]:
    metadata = {"name": "faq", "namespace": "docs", "uid": "u", "resourceVersion": str(version), "generation": 1}
    return {"kind": "RAGService", "metadata": metadata | more.pop("metadata", {}), **more}


def handlers() -> tuple[Handlers, list[Key]]:
    queued: list[Key] = []
    return Handlers(cast("Cluster", None), queued.append), queued


def event(kind: str | None, body: dict[str, Any]) -> kopf.RawEvent:
    return cast("kopf.RawEvent", {"type": kind, "object": body})


async def test_a_status_of_our_own_queues_nothing() -> None:
    one, queued = handlers()
    await one._rag_service(event=event(None, item(1)))
    await one._rag_service(event=event("MODIFIED", item(2, status={"replicas": 3})))
    assert queued == [("docs", "faq")]
    await one._rag_service(event=event("MODIFIED", item(3, metadata={"generation": 2})))
    await one._rag_service(event=event("MODIFIED", item(4, metadata={"generation": 2, "deletionTimestamp": "now"})))
    await one._rag_service(event=event("DELETED", item(5)))
    assert len(queued) == 4


async def test_an_autoscalers_measurements_queue_nothing_but_its_bounds_do() -> None:
    one, queued = handlers()
    hpa = {"kind": "HorizontalPodAutoscaler", "spec": {"minReplicas": 1}}
    owned = {"metadata": {"labels": {"ragservice.dev/name": "faq"}}}
    await one._child(event=event("ADDED", item(1) | hpa | item(1, **owned) | hpa))
    await one._child(event=event("MODIFIED", item(2, **owned) | hpa | {"status": {"currentReplicas": 2}}))
    assert queued == [("docs", "faq")]
    await one._child(event=event("MODIFIED", item(3, **owned) | hpa | {"spec": {"minReplicas": 7}}))
    assert len(queued) == 2


async def test_a_child_queues_its_owner_though_its_label_was_changed() -> None:
    one, queued = handlers()
    owner = {"apiVersion": "ragservice.dev/v1alpha1", "kind": "RAGService", "name": "faq", "uid": "u"}
    metadata = {"ownerReferences": [owner], "labels": {"ragservice.dev/name": "other"}}
    await one._child(event=event("MODIFIED", item(1, metadata=metadata) | {"kind": "ConfigMap"}))
    assert set(queued) == {("docs", "faq"), ("docs", "other")}


def test_a_watch_that_tells_what_lists_show_is_fresh() -> None:
    freshness = Freshness()
    freshness.saw(item(5))
    freshness.listed([item(5)], now=0)
    assert not freshness.stale(10 * STALE)
    freshness.listed([item(4)], now=0)
    assert not freshness.stale(10 * STALE), "a list may be older than the watch"


def test_a_watch_that_misses_a_change_is_stale_after_a_while() -> None:
    freshness = Freshness()
    freshness.saw(item(5))
    freshness.listed([item(6)], now=100)
    assert not freshness.stale(100 + STALE)
    assert freshness.stale(101 + STALE)
    freshness.listed([item(7)], now=100 + STALE)
    assert freshness.stale(101 + STALE), "it misses one since then"
    freshness.saw(item(7))
    assert not freshness.stale(1000)


def test_what_is_deleted_is_not_missed() -> None:
    freshness = Freshness()
    freshness.listed([item(6)], now=0)
    freshness.listed([], now=1)
    assert not freshness.stale(1000)
