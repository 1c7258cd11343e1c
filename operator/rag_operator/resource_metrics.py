"""Which RAGServices have pods that `metrics.k8s.io` knows: their autoscalers can follow a CPU target, others can't."""

import asyncio
import logging
from collections.abc import Callable

from rag_operator.cluster import POD_METRICS, Cluster, ClusterError
from rag_operator.desired import names
from rag_operator.desired.names import Component
from rag_operator.record import Key

log = logging.getLogger(__name__)

# Seconds between two looks: less than the autoscaler's own period of 15.
PERIOD = 10.0

_SELECTOR = f"{names.LABEL_NAME},{names.LABEL_COMPONENT}={Component.RERANKER}"


class ResourceMetrics:
    """The last answer. One request tells it for all RAGServices, so that no reconciliation waits for it."""

    def __init__(self, cluster: Cluster, reconcile: Callable[[Key], None]) -> None:
        """`reconcile` queues a RAGService for which the answer is another than before."""
        self._cluster = cluster
        self._reconcile = reconcile
        self._known: frozenset[Key] = frozenset()

    def know(self, key: Key) -> bool:
        """Whether a reranker pod of the RAGService was measured."""
        return key in self._known

    async def run(self) -> None:
        """Look again and again until cancelled."""
        while True:
            await asyncio.sleep(PERIOD)
            await self.look()

    async def look(self) -> None:
        """Ask, and queue what changed."""
        before, self._known = self._known, await self._measured()
        for key in before ^ self._known:
            log.info("%s: resource metrics %s", key, "work" if key in self._known else "are missing")
            self._reconcile(key)

    async def _measured(self) -> frozenset[Key]:
        try:
            found = await self._cluster.list(POD_METRICS, labels=_SELECTOR)
        except ClusterError as error:
            log.debug("resource metrics: %s", error)
            # A server that says nothing, or says that it is busy, says nothing about the metrics.
            return self._known if error.status in {None, 429} else frozenset()
        metadata = (item["metadata"] for item in found)
        return frozenset(Key(one["namespace"], one["labels"][names.LABEL_NAME]) for one in metadata)
