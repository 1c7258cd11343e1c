"""A watch that keeps up is never taken for stalled, whatever happens between a list and an event."""

from typing import Any, cast

import kopf
from kubernetes.aio import client

from rag_operator.cluster import Cluster
from rag_operator.handlers import STALE, Handlers
from rag_operator.record import Key


def rag(version: int) -> dict[str, Any]:
    metadata = {"uid": "1", "namespace": "team", "name": "faq", "resourceVersion": str(version), "generation": 1}
    return {"metadata": metadata}


def event(kind: str, version: int) -> kopf.RawEvent:
    return cast(kopf.RawEvent, {"type": kind, "object": rag(version)})


async def test_what_a_list_showed_and_was_deleted_before_its_event_came_is_not_missing() -> None:
    """Kopf hands on the last of several events: of a change and a deletion at once only the deletion is heard of."""
    added: list[Key] = []
    handlers = Handlers(Cluster(client.Configuration()), added.append)
    await handlers._rag_service(event=event("ADDED", 9))
    handlers.freshness.listed([rag(10)], now=0.0)
    await handlers._rag_service(event=event("DELETED", 11))
    assert not handlers.freshness.stale(STALE + 1)
    assert added == [Key("team", "faq")] * 2


async def test_a_list_that_was_slower_than_the_deletion_is_not_newer() -> None:
    handlers = Handlers(Cluster(client.Configuration()), lambda _: None)
    await handlers._rag_service(event=event("DELETED", 11))
    handlers.freshness.listed([rag(10)], now=0.0)
    assert not handlers.freshness.stale(STALE + 1)


async def test_a_change_of_which_no_event_comes_is_missed() -> None:
    handlers = Handlers(Cluster(client.Configuration()), lambda _: None)
    await handlers._rag_service(event=event("ADDED", 9))
    handlers.freshness.listed([rag(10)], now=0.0)
    assert not handlers.freshness.stale(STALE - 1)
    assert handlers.freshness.stale(STALE + 1)
