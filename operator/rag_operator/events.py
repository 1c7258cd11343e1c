"""Events for people: `kubectl describe` and `kubectl events` show them. Losing one loses nothing else."""

import logging
import os
from datetime import UTC, datetime

from rag_operator.api.v1alpha1 import API_VERSION, GROUP, KIND, RAGService
from rag_operator.cluster import EVENT, Cluster, ClusterError

log = logging.getLogger(__name__)

_NOTE = 1024


class Recorder:
    """Posts events. There is one per change, so they need no aggregation."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._instance = os.environ.get("HOSTNAME") or "ragservice-operator"

    async def post(self, rag: RAGService, action: str, reason: str, note: str, *, warning: bool = False) -> None:
        """Post an event about a RAGService. Failing is logged, not raised."""
        metadata = rag.metadata
        event = {
            "apiVersion": EVENT.api_version,
            "kind": EVENT.kind,
            "metadata": {"generateName": f"{metadata.name}-", "namespace": metadata.namespace},
            "eventTime": datetime.now(UTC).isoformat(timespec="microseconds"),
            "reportingController": f"{GROUP}/operator",
            "reportingInstance": self._instance,
            "action": action,
            "reason": reason,
            "type": "Warning" if warning else "Normal",
            "note": note[:_NOTE],
            "regarding": {
                "apiVersion": API_VERSION,
                "kind": KIND,
                "name": metadata.name,
                "namespace": metadata.namespace,
                "uid": metadata.uid,
            },
        }
        try:
            await self._cluster.create(EVENT, event)
        except ClusterError as error:
            log.debug("event %s of %s/%s: %s", reason, metadata.namespace, metadata.name, error)
