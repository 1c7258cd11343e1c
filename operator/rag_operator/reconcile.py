"""Level-based: whatever happened, look at what there is, work out what there should be, and close the gap.

The order is observe → desired → apply → status. Doing it twice changes nothing; stopping half-way loses nothing.
"""

import logging
import secrets
import time
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from rag_operator import pods, status
from rag_operator.api import conditions
from rag_operator.api.conditions import ConditionType
from rag_operator.api.v1alpha1 import API_VERSION, KIND, Condition, ConditionStatus, RAGService, RAGServiceStatus
from rag_operator.children import Children, LeftOverError, NameTakenError
from rag_operator.cluster import DEPLOYMENT, RAG_SERVICE, SECRET, Cluster, ClusterError, Object
from rag_operator.desired import names, redis
from rag_operator.desired.manifests import Inputs, manifests
from rag_operator.desired.names import Component
from rag_operator.events import Recorder
from rag_operator.pods import Trouble
from rag_operator.record import Key, Record, Records, Scaling
from rag_operator.resource_metrics import ResourceMetrics
from rag_operator.scaling import actuate
from rag_operator.scaling.plan import Goal, State
from rag_operator.status import Images, Observed
from rag_operator.workqueue import RetryError

log = logging.getLogger(__name__)

# Seconds between two writes of a status of which only numbers changed.
STATUS_PERIOD = 60.0
# Seconds after which a RAGService that starts is looked at again: a failing probe shows only in time passed.
LOOK_AGAIN = 10.0
# Failures in a row after which a fault that may pass by itself is told in the status.
PATIENCE = 3


class Reconciler:
    """Makes what a RAGService says true."""

    def __init__(
        self,
        cluster: Cluster,
        records: Records,
        defaults: Images,
        events: Recorder,
        resource_metrics: ResourceMetrics,
    ) -> None:
        """`defaults`: the images where neither spec nor status names one."""
        self._cluster = cluster
        self._records = records
        self._defaults = defaults
        self._events = events
        self._resource_metrics = resource_metrics

    async def reconcile(self, key: Key) -> float | None:
        """Reconcile one RAGService; returns the seconds after which to look again although nothing may happen.

        Raises RetryError when it should be tried again.
        """
        try:
            return await self._reconcile(key)
        except ClusterError as error:
            # It was deleted meanwhile, or is about to be: the event of that follows.
            if error.terminating or error.status == 404:
                return None
            raise RetryError(str(error), error.retry_after) from error

    async def _reconcile(self, key: Key) -> float | None:
        body = await self._cluster.get(RAG_SERVICE, key.namespace, key.name)
        if body is None or body["metadata"].get("deletionTimestamp"):
            # Kubernetes removes what the owner references name, with or without an operator.
            self._records.pop(key, None)
            return None
        record = self._records.get(key)
        if record is None or record.uid != body["metadata"]["uid"]:
            record = self._records[key] = Record(uid=body["metadata"]["uid"])
        try:
            rag = status.read(body)
        except ValidationError as error:
            record.scaling = None
            await self._refuse(body, status.problem(error))
            return None
        if rag.spec.paused:
            record.scaling = None
            await self._write(rag, record, status.paused(rag, _now()))
            return None
        return await self._close_the_gap(rag, record)

    async def _close_the_gap(self, rag: RAGService, record: Record) -> float | None:
        images = self._images(rag)
        if (rag.status.image, rag.status.redis_image) != (images.service, images.redis):
            # Before any pod runs them: an operator that is replaced in between must not resolve them anew.
            chosen = rag.status.model_copy(update={"image": images.service, "redis_image": images.redis})
            rag = await self._write(rag, record, chosen)
        children = await Children.observe(self._cluster, rag)
        deployment = await children.get(DEPLOYMENT, names.reranker(rag.metadata.name)) or {}
        scaling = self._scaling(rag, record, deployment)
        observed = Observed(
            reranker=children.pods(Component.RERANKER),
            redis=children.pods(Component.REDIS),
            refusal=_refusal(deployment),
        )
        scaling.targets = pods.targets(observed.reranker)
        inputs = Inputs(
            service_image=images.service,
            redis_image=images.redis,
            redis_password=await self._password(rag, record, children),
            hpa=actuate.bounds(
                scaling.required,
                rag.spec.scaling,
                resource_metrics=self._resource_metrics.know(Key(rag.metadata.namespace, rag.metadata.name)),
            ),
        )
        failure = await children.apply(manifests(rag, inputs), record.applied, scaling.required)
        if isinstance(failure, ClusterError) and failure.terminating:
            raise failure
        record.failures = record.failures + 1 if failure else 0
        if failure is None or record.failures >= PATIENCE or not _may_pass(failure):
            new = status.build(rag, images, observed, scaling, failure=_trouble(failure), now=_now())
            rag = await self._write(rag, record, new)
        if failure:
            raise RetryError(str(failure), failure.retry_after if isinstance(failure, ClusterError) else None)
        ready = conditions.find(rag.status.conditions, ConditionType.READY)
        return LOOK_AGAIN if ready and ready.reason == "Progressing" else None

    def _images(self, rag: RAGService) -> Images:
        return Images(
            service=rag.spec.image or rag.status.image or self._defaults.service,
            redis=rag.spec.redis.image or rag.status.redis_image or self._defaults.redis,
        )

    @staticmethod
    def _scaling(rag: RAGService, record: Record, deployment: Object) -> Scaling:
        """The scaling with the goal as it is now; at first with the replicas that there are, or were."""
        wanted = rag.spec.scaling
        goal = Goal(
            slo_p95=rag.spec.slo.p95.total_seconds(),
            min_replicas=wanted.min_replicas,
            max_replicas=wanted.max_replicas,
            scale_down_window=wanted.scale_down_window.total_seconds(),
        )
        if record.scaling is None:
            running = deployment.get("spec", {}).get("replicas", 0)
            last = rag.status.scaling.required_replicas if rag.status.scaling else 0
            record.scaling = Scaling(goal, State.start(goal.clamp(max(running, last)), time.monotonic()))
        record.scaling.goal = goal
        return record.scaling

    @staticmethod
    async def _password(rag: RAGService, record: Record, children: Children) -> str:
        """The password in the Secret; where there is none, the last one known, or a new one."""
        secret = await children.get(SECRET, names.redis(rag.metadata.name))
        record.password = redis.existing_password(secret) or record.password or secrets.token_urlsafe(32)
        return record.password

    async def _refuse(self, body: Object, message: str) -> None:
        """Say that the resource cannot be read, whatever is in it."""
        metadata, old = body["metadata"], _conditions(body)
        new = status.unreadable(old, message, metadata.get("generation", 1), _now())
        if new == old:
            return
        log.warning("%s/%s: %s", metadata["namespace"], metadata["name"], message)
        told = [one.model_dump(mode="json", by_alias=True, exclude_none=True) for one in new]
        await self._write_status(metadata, body.get("status", {}) | {"conditions": told})

    async def _write(self, rag: RAGService, record: Record, new: RAGServiceStatus) -> RAGService:
        """Write the status if it says something new, or the numbers in it are old. Returns the RAGService with it."""
        due = time.monotonic() - record.status_checked >= STATUS_PERIOD
        if not (due or status.worth_writing(rag.status, new)):
            return rag
        if new != rag.status:
            told = new.model_dump(mode="json", by_alias=True, exclude_none=True)
            metadata = rag.metadata.model_dump(mode="json", by_alias=True)
            version = await self._write_status(metadata, told)
            await self._tell(rag, new)
            rag = rag.model_copy(update={"metadata": rag.metadata.model_copy(update={"resource_version": version})})
        record.status_checked, record.told = time.monotonic(), new.scaling
        return rag.model_copy(update={"status": new})

    async def _write_status(self, read: dict[str, Any], told: dict[str, Any]) -> str:
        """Write the status of what was `read`, in that version: another RAGService of its name must not get it.

        Returns the version that it then has.
        """
        metadata = {key: read[key] for key in ("name", "namespace", "resourceVersion")}
        manifest = {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "status": told}
        written = await self._cluster.apply_status(RAG_SERVICE, manifest)
        return str(written["metadata"]["resourceVersion"])

    async def _tell(self, rag: RAGService, new: RAGServiceStatus) -> None:
        """Events for what a person wants to know of: readiness that came or went, another number of replicas."""
        key = Key(rag.metadata.namespace, rag.metadata.name)
        before, after = (conditions.find(one.conditions, ConditionType.READY) for one in (rag.status, new))
        if after and (before is None or (before.status, before.reason) != (after.status, after.reason)):
            log.info("%s: Ready is %s: %s", key, after.status.value, after.message)
            warning = after.status is ConditionStatus.FALSE and after.reason != "Progressing"
            await self._events.post(rag, "Reconcile", after.reason, after.message, warning=warning)
        old = rag.status.scaling and rag.status.scaling.required_replicas
        if old and new.scaling and old != new.scaling.required_replicas:
            note = f"from {old} to {new.scaling.required_replicas} replicas: {new.scaling.reason}"
            await self._events.post(rag, "Scale", "Scaling", note)


def _trouble(failure: Exception | None) -> Trouble | None:
    if failure is None:
        return None
    if isinstance(failure, LeftOverError):
        return Trouble("Progressing", str(failure))
    return Trouble("NameTaken" if isinstance(failure, NameTakenError) else "ApplyFailed", str(failure))


def _may_pass(failure: Exception) -> bool:
    return isinstance(failure, ClusterError) and failure.retryable


def _refusal(deployment: Object) -> str | None:
    """Why a Deployment cannot make its pods: a quota, a policy, an admission webhook."""
    told = deployment.get("status", {}).get("conditions", [])
    return next((one["message"] for one in told if one["type"] == "ReplicaFailure" and one["status"] == "True"), None)


def _conditions(body: Object) -> tuple[Condition, ...]:
    try:
        return tuple(Condition.model_validate(one) for one in body.get("status", {}).get("conditions", []))
    except ValidationError:
        return ()


def _now() -> datetime:
    return datetime.now(UTC)
