"""The API as the tests of the operator see it: as the administrator, with shortcuts for RAGServices."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from rag_operator.api.v1alpha1 import API_VERSION, KIND
from rag_operator.cluster import DEPLOYMENT, RAG_SERVICE, Cluster, Object


class Api(Cluster):
    """A connection, and the test's namespace."""

    namespace = ""

    async def make(self, name: str = "faq", **spec: Any) -> Object:
        """Create a RAGService; `spec` is merged over a small one."""
        base = {
            "slo": {"p95": "300ms"},
            "models": [{"name": "best", "uri": "package://model"}],
            "scaling": {"scaleDownWindow": "10s"},
        }
        metadata = {"name": name, "namespace": self.namespace}
        body = {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": base | spec}
        return await self.create(RAG_SERVICE, body)

    async def rag(self, name: str = "faq") -> Object:
        """The RAGService."""
        item = await self.get(RAG_SERVICE, self.namespace, name)
        assert item is not None
        return item

    async def condition(self, kind: str, name: str = "faq") -> dict[str, Any]:
        """A condition of the RAGService; empty where there is none."""
        conditions = (await self.rag(name)).get("status", {}).get("conditions", [])
        return next((one for one in conditions if one["type"] == kind), {})

    async def replicas(self, name: str = "faq") -> int | None:
        """The replicas that the reranker's Deployment should have; None where there is no Deployment."""
        item = await self.get(DEPLOYMENT, self.namespace, f"{name}-reranker")
        return None if item is None else item["spec"]["replicas"]

    async def patch(self, kind: Any, name: str, body: Any, subresource: str | None = None) -> Object:
        """A merge patch."""
        path = kind.path(self.namespace, name, subresource)
        return await self._request("PATCH", path, body=body, content_type="application/merge-patch+json")

    async def remove(self, kind: Any, name: str) -> None:
        """Delete an object by name, if it is there."""
        item = await self.get(kind, self.namespace, name)
        if item is not None:
            await self.delete(kind, item)


async def eventually(
    condition: Callable[[], Awaitable[Any]], what: str = "it", seconds: float = 60, every: float = 0.2
) -> Any:
    """Wait until the condition gives something true, and return that. The deadline only ends what hangs."""
    deadline = time.monotonic() + seconds
    last: Any = None
    while time.monotonic() < deadline:
        last = await condition()
        if last:
            return last
        await asyncio.sleep(every)
    raise AssertionError(f"{what} did not happen within {seconds:.0f}s; last: {last!r}")
