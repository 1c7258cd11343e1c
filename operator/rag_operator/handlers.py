"""The only module that knows Kopf: it turns the API server's events into names to reconcile, and does nothing else.

There are no handlers for creation, update or deletion, no timers and no daemons: those make Kopf put finalizers and
annotations on the objects, and a finalizer keeps a RAGService from being deleted while the operator is away.
"""

import asyncio
import hashlib
import itertools
import json
import socket
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import kopf
from kopf._core.engines.peering import Identity

from rag_operator.api.v1alpha1 import GROUP, KIND, PLURAL, VERSION
from rag_operator.cluster import CHILDREN, HPA, POD, Cluster, Object
from rag_operator.desired import names
from rag_operator.record import Key

# A watch without a word for so long, bookmarks included (there is one a minute), is dead and begun again.
INACTIVITY_TIMEOUT = 70.0
# The API server ends a watch after this; the next one continues where it was.
WATCH_TIMEOUT = 300
CONNECT_TIMEOUT = 10.0
REQUEST_TIMEOUT = 30.0
# Less than the grace period of the pod.
EXIT_TIMEOUT = 10.0
# How long a change that a list shows may be unknown to the watch.
STALE = 60.0


class Freshness:
    """Whether the watch of RAGServices keeps up: what a list shows must have come as an event, or come soon."""

    def __init__(self) -> None:
        self._seen: dict[str, int] = {}
        self._missing: dict[str, float] = {}

    def saw(self, item: Object) -> None:
        """An event came."""
        uid, version = _version(item)
        self._seen[uid] = max(version, self._seen.get(uid, 0))
        self._missing.pop(uid, None)

    def listed(self, items: Iterable[Object], now: float) -> None:
        """All there is was listed."""
        versions = dict(map(_version, items))
        self._seen = {uid: version for uid, version in self._seen.items() if uid in versions}
        behind = {uid for uid, version in versions.items() if version > self._seen.get(uid, 0)}
        self._missing = {uid: self._missing.get(uid, now) for uid in behind}

    def stale(self, now: float) -> bool:
        """Whether something has been missing for too long."""
        return any(now - since > STALE for since in self._missing.values())


class Handlers:
    """Event handlers, bound to a queue."""

    def __init__(self, cluster: Cluster, add: Callable[[Key], None]) -> None:
        """`add` queues a RAGService."""
        self.freshness = Freshness()
        self.ready = asyncio.Event()
        self.stopping = asyncio.Event()
        """Set on SIGTERM and SIGINT: Kopf waits for every task of the process to end before `run` returns."""
        self._add = add
        self._specs: dict[str, str] = {}
        self._registry = kopf.OperatorRegistry()
        kopf.on.login(registry=self._registry)(_login(cluster))
        kopf.on.cleanup(registry=self._registry)(self._cleanup)
        kopf.on.event(GROUP, VERSION, PLURAL, registry=self._registry)(self._rag_service)
        for kind in (*CHILDREN, POD):
            kopf.on.event(*_selector(kind.api_version, kind.plural), registry=self._registry)(self._child)

    async def run(self) -> None:
        """Watch until the process is told to stop. Returns on SIGTERM and SIGINT."""
        await kopf.operator(
            registry=self._registry,
            settings=_settings(),
            clusterwide=True,
            standalone=True,
            ready_flag=self.ready,
            # Kopf would make one up from the user's name, and a container's user has none.
            identity=Identity(socket.gethostname()),
        )

    async def _cleanup(self, **_: Any) -> None:
        self.stopping.set()

    async def _rag_service(self, event: kopf.RawEvent, **_: Any) -> None:
        item: Object = dict(event["object"])
        self.freshness.saw(item)
        # The status is our own writing: whoever reconciles because of it never stops.
        if self._changed(event["type"], item, json.dumps(item["metadata"].get("generation"))):
            self._add(Key(item["metadata"]["namespace"], item["metadata"]["name"]))

    async def _child(self, event: kopf.RawEvent, **_: Any) -> None:
        item: Object = dict(event["object"])
        # An autoscaler's status changes with every measurement.
        if item.get("kind") == HPA.kind and not self._changed(event["type"], item, json.dumps(item.get("spec"))):
            return
        for name in _names(item):
            self._add(Key(item["metadata"]["namespace"], name))

    def _changed(self, event: str | None, item: Object, essence: str) -> bool:
        """Whether the object is not as it was last time, but for its status."""
        metadata = item["metadata"]
        if event == "DELETED":
            self._specs.pop(metadata["uid"], None)
            return True
        place = {key: metadata.get(key) for key in ("deletionTimestamp", "labels", "annotations", "ownerReferences")}
        digest = hashlib.sha256((essence + json.dumps(place, sort_keys=True)).encode()).hexdigest()
        known = self._specs.get(metadata["uid"])
        self._specs[metadata["uid"]] = digest
        return known != digest


class _Delays:
    """Seconds between attempts to reach the API server, for ever: it comes back, and we must still be there."""

    def __iter__(self) -> Iterator[float]:
        return itertools.chain((0.2, 0.5, 1, 2, 5), itertools.repeat(10))


def _settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.watching.server_timeout = WATCH_TIMEOUT
    settings.watching.client_timeout = WATCH_TIMEOUT + 30
    settings.watching.connect_timeout = CONNECT_TIMEOUT
    settings.watching.inactivity_timeout = INACTIVITY_TIMEOUT
    settings.networking.connect_timeout = CONNECT_TIMEOUT
    settings.networking.request_timeout = REQUEST_TIMEOUT
    settings.networking.error_backoffs = _Delays()
    settings.process.ultimate_exiting_timeout = EXIT_TIMEOUT
    for kind in (*CHILDREN, POD):
        settings.watching.label_selectors[_selector(kind.api_version, kind.plural)] = names.LABEL_NAME
    return settings


def _selector(api_version: str, plural: str) -> tuple[str, str, str]:
    group, _, version = api_version.rpartition("/")
    return group, version, plural


def _login(cluster: Cluster) -> Callable[..., Any]:
    async def login(**_: Any) -> kopf.ConnectionInfo:
        return kopf.ConnectionInfo(**await cluster.credentials())

    return login


def _names(item: Object) -> set[str]:
    """The RAGServices that an object belongs to, by label and by owner: either may have been tampered with."""
    metadata = item["metadata"]
    owners = {owner["name"] for owner in metadata.get("ownerReferences", []) if owner["kind"] == KIND}
    label = metadata.get("labels", {}).get(names.LABEL_NAME)
    return owners | ({label} if label else set())


def _version(item: Object) -> tuple[str, int]:
    return item["metadata"]["uid"], int(item["metadata"]["resourceVersion"])
