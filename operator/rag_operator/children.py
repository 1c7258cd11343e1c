"""The objects that a RAGService consists of: look at them, make them what they should be, remove what is left over."""

import asyncio
import hashlib
import json
import logging
from collections.abc import Iterable
from typing import Any

from rag_operator.api.v1alpha1 import KIND, RAGService
from rag_operator.cluster import CHILDREN, DEPLOYMENT, POD, SCALE_MANAGER, Cluster, ClusterError, Kind, Object
from rag_operator.desired import names
from rag_operator.desired.manifests import Manifest, replicas_only
from rag_operator.desired.names import Component
from rag_operator.record import Key

log = logging.getLogger(__name__)

_KINDS = {kind.kind: kind for kind in CHILDREN}
# What changes without anybody's wish.
_PASSING = ("resourceVersion", "generation", "managedFields")

Place = tuple[str, str]
"""Kind and name."""

Applied = dict[Place, tuple[str, str]]
"""Digests of each manifest, and of the object after it was applied."""


class NameTakenError(Exception):
    """An object that the RAGService needs belongs to somebody else."""


class LeftOverError(NameTakenError):
    """It belongs to an earlier RAGService of the same name, and Kubernetes removes it."""


class Children:
    """The children of one RAGService as they were when they were listed, and as they became since."""

    def __init__(self, cluster: Cluster, rag: RAGService, items: Iterable[Object], pods: list[Object]) -> None:
        """`items` and `pods`: everything that carries the RAGService's label."""
        self._cluster = cluster
        self._rag = rag
        self._key = Key(rag.metadata.namespace, rag.metadata.name)
        self._items: dict[Place, Object | None] = {_place(item): item for item in items}
        self._labelled = tuple(self._items)
        self._pods = pods

    @classmethod
    async def observe(cls, cluster: Cluster, rag: RAGService) -> "Children":
        """List everything that carries the RAGService's label."""
        labels = f"{names.LABEL_NAME}={rag.metadata.name}"
        kinds = (*CHILDREN, POD)
        *found, pods = await asyncio.gather(*(cluster.list(kind, rag.metadata.namespace, labels) for kind in kinds))
        return cls(cluster, rag, (item for items in found for item in items), pods)

    def pods(self, component: Component) -> list[Object]:
        """The pods of a component."""
        return [pod for pod in self._pods if pod["metadata"]["labels"].get(names.LABEL_COMPONENT) == component]

    async def get(self, kind: Kind, name: str) -> Object | None:
        """A child, whether or not it still carries the label; None where there is none, or it is somebody else's."""
        item = await self._find((kind.kind, name))
        return item if item is not None and _is_ours(item, self._rag) else None

    async def apply(self, manifests: Iterable[Manifest], applied: Applied, replicas: int) -> Exception | None:
        """Make the children what the manifests say, and remove others. Returns the first failure.

        One failure does not keep the others from being tried. But where somebody else has a name, nothing that comes
        later is touched, because it builds on it: pods would mount it, the autoscaler would scale it.

        `applied` remembers what needs no request: an object that is as it was after the same manifest was applied.
        A Deployment whose manifest leaves out the replicas is made with `replicas`; later they are its autoscaler's.
        """
        failures: list[Exception] = []
        wanted = {_place(manifest): manifest for manifest in manifests}
        for place, manifest in wanted.items():
            try:
                await self._apply(place, manifest, applied, replicas)
            except ClusterError as error:
                failures.append(error)
            except NameTakenError as error:
                failures.append(error)
                break
        for place in self._labelled:
            try:
                if place not in wanted:
                    await self._prune(place)
            except ClusterError as error:
                failures.append(error)
        return failures[0] if failures else None

    async def _find(self, place: Place) -> Object | None:
        kind, name = place
        if place not in self._items:
            self._items[place] = await self._cluster.get(_KINDS[kind], self._key.namespace, name)
        return self._items[place]

    async def _apply(self, place: Place, manifest: Manifest, applied: Applied, replicas: int) -> None:
        kind = _KINDS[place[0]]
        item = await self._find(place)
        if item is not None:
            self._refuse_others(place, item)
            if applied.get(place) == (_digest(manifest), _digest(_lasting(item))) and not _is_stuck(manifest, item):
                return
        if kind is DEPLOYMENT and "replicas" not in manifest["spec"]:
            item = await self._apply_scaled(manifest, item, replicas)
        else:
            item = await self._cluster.apply(kind, _this_very(manifest, item))
        self._items[place] = item
        applied[place] = (_digest(manifest), _digest(_lasting(item)))

    async def _apply_scaled(self, manifest: Manifest, item: Object | None, replicas: int) -> Object:
        """Apply a Deployment whose replicas belong to the autoscaler."""
        if item is None:
            first = {**manifest, "spec": {"replicas": replicas, **manifest["spec"]}}
            item = await self._cluster.apply(DEPLOYMENT, first, manager=SCALE_MANAGER)
            log.info("%s: made Deployment %s with %d replicas", self._key, manifest["metadata"]["name"], replicas)
        item = await self._cluster.apply(DEPLOYMENT, _this_very(manifest, item))
        if _holds_more_than_replicas(item):
            # What the maker held on to would stay when the operator later leaves it out.
            item = await self._cluster.apply(DEPLOYMENT, replicas_only(item), manager=SCALE_MANAGER)
        if _is_stuck(manifest, item):
            log.warning("%s: Deployment %s had no replicas", self._key, manifest["metadata"]["name"])
            await self._cluster.scale(DEPLOYMENT, self._key.namespace, manifest["metadata"]["name"], replicas)
        return item

    def _refuse_others(self, place: Place, item: Object) -> None:
        if _is_ours(item, self._rag):
            return
        what = f"{place[0]} {place[1]}"
        owners = item["metadata"].get("ownerReferences", [])
        if any((owner["kind"], owner["name"]) == (KIND, self._rag.metadata.name) for owner in owners):
            raise LeftOverError(f"{what} of an earlier RAGService of this name is being removed")
        raise NameTakenError(
            f"{what} exists and does not belong to this RAGService; delete it, or give the RAGService another name"
        )

    async def _prune(self, place: Place) -> None:
        """Delete what belongs to the RAGService; what only looks like it is left alone."""
        item = self._items[place]
        owners = item["metadata"].get("ownerReferences", []) if item else []
        if item and any(owner["uid"] == self._rag.metadata.uid for owner in owners):
            log.info("%s: %s %s is no longer needed", self._key, *place)
            await self._cluster.delete(_KINDS[place[0]], item)


def _place(item: Object) -> Place:
    return item["kind"], item["metadata"]["name"]


def _this_very(manifest: Manifest, item: Object | None) -> Manifest:
    """The manifest for the object that was seen: where that is gone meanwhile, applying it is a conflict.

    It would make another one else, and a Deployment with one replica, since its manifest leaves them out.
    """
    if item is None:
        return manifest
    return {**manifest, "metadata": {**manifest["metadata"], "uid": item["metadata"]["uid"]}}


def _is_ours(item: Object, rag: RAGService) -> bool:
    """Whether the object is the RAGService's: by its owner, or where that was wiped out, by label or field manager."""
    metadata = item["metadata"]
    owners = metadata.get("ownerReferences", [])
    if any(owner["uid"] == rag.metadata.uid for owner in owners):
        return True
    if any(owner.get("controller") for owner in owners):
        return False
    labels = metadata.get("labels", {})
    managers = {entry.get("manager") for entry in metadata.get("managedFields", [])}
    return labels.get(names.LABEL_NAME) == rag.metadata.name or names.MANAGER in managers


def _is_stuck(manifest: Manifest, item: Object) -> bool:
    """Whether a Deployment has no replicas although it should: an autoscaler leaves it alone for ever."""
    return bool(manifest["kind"] == "Deployment" and item["spec"].get("replicas") == 0)


def _holds_more_than_replicas(deployment: Object) -> bool:
    return any(
        entry["manager"] == SCALE_MANAGER
        and entry["operation"] == "Apply"
        and entry.get("fieldsV1") != {"f:spec": {"f:replicas": {}}}
        for entry in deployment["metadata"]["managedFields"]
    )


def _lasting(item: Object) -> Any:
    """The object without what changes without anybody's wish."""
    metadata = {key: value for key, value in item["metadata"].items() if key not in _PASSING}
    return {key: value for key, value in item.items() if key != "status"} | {"metadata": metadata}


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
