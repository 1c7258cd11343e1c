"""Pure: the status of a RAGService from what was observed and decided."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pydantic import ValidationError

from rag_operator import pods
from rag_operator.api import conditions
from rag_operator.api.conditions import Conditions, ConditionType
from rag_operator.api.v1alpha1 import RAGService, RAGServiceStatus, ScalingStatus
from rag_operator.desired import names
from rag_operator.pods import Pod, Trouble
from rag_operator.record import Scaling
from rag_operator.scaling.estimate import Estimate
from rag_operator.scaling.plan import Decision
from rag_service.contract import duration


@dataclass(frozen=True)
class Observed:
    """What there is of a RAGService."""

    reranker: Sequence[Pod]
    redis: Sequence[Pod]
    refusal: str | None = None
    """Why the Deployment of the reranker cannot make pods."""


@dataclass(frozen=True)
class Images:
    """The images as they were resolved."""

    service: str
    redis: str


def read(body: dict[str, Any]) -> RAGService:
    """Read an object of the API server; parts of its status that this version does not know are left out.

    Raises pydantic.ValidationError when the rest is not what this version knows.
    """
    status = dict(body.get("status", {}))
    while True:
        try:
            return RAGService.parse(body | {"status": status})
        except ValidationError as error:
            places = [one["loc"] for one in error.errors()]
            broken = {place[1] for place in places if place[0] == "status" and len(place) > 1} & set(status)
            if not broken:
                raise
            status = {key: value for key, value in status.items() if key not in broken}


def problem(error: ValidationError) -> str:
    """What is wrong with a resource, one clause a field."""
    clauses = [
        f"{'.'.join(str(part) for part in one['loc']) or 'resource'}: {one['msg'].removeprefix('Value error, ')}"
        for one in error.errors()
    ]
    return f"this version of the operator cannot read the resource: {'; '.join(clauses[:5])}"


def unreadable(old: Conditions, message: str, generation: int, now: datetime) -> Conditions:
    """The conditions of a resource that the operator cannot read."""
    kind = ConditionType.RECONCILED
    new = conditions.updated(old, kind, False, "InvalidSpec", message, now=now, generation=generation)
    return conditions.rolled_up(new, now=now, generation=generation)


def paused(rag: RAGService, now: datetime) -> RAGServiceStatus:
    """The status of a paused RAGService: as it was, and the condition."""
    told = conditions.updated(
        rag.status.conditions,
        ConditionType.PAUSED,
        True,
        "SpecPaused",
        "the operator leaves everything as it is until spec.paused is false",
        now=now,
        generation=rag.metadata.generation,
    )
    return rag.status.model_copy(update={"conditions": list(told), "observed_generation": rag.metadata.generation})


def build(
    rag: RAGService,
    images: Images,
    observed: Observed,
    scaling: Scaling,
    *,
    failure: Trouble | None,
    now: datetime,
) -> RAGServiceStatus:
    """The status. `failure` is what kept the operator from applying everything, as a condition's reason."""
    told = conditions.without(rag.status.conditions, ConditionType.PAUSED)
    verdicts = [
        (ConditionType.RECONCILED, *_reconciled(failure)),
        (ConditionType.RERANKER_AVAILABLE, *_reranker(observed, rag.spec.scaling.min_replicas, now)),
        (ConditionType.REDIS_AVAILABLE, *_redis(observed, now)),
    ]
    verdicts += _of_scaling(scaling)
    generation = rag.metadata.generation
    for kind, holds, reason, message in verdicts:
        told = conditions.updated(told, kind, holds, reason, message, now=now, generation=generation)
    told = conditions.rolled_up(told, now=now, generation=generation)
    running = pods.alive(observed.reranker)
    return RAGServiceStatus(
        observed_generation=generation,
        conditions=list(told),
        replicas=len(running),
        ready_replicas=sum(map(pods.is_ready, running)),
        url=names.url(rag),
        model=rag.spec.models[0].name,
        image=images.service,
        redis_image=images.redis,
        scaling=numbers(scaling) or rag.status.scaling,
    )


def told_at_once(scaling: Scaling) -> tuple[Any, ...]:
    """What of a decision is worth a reconciliation when it changes: the replicas, and what the conditions say."""
    return scaling.required, [(kind, holds) for kind, holds, *_ in _of_scaling(scaling)]


def worth_writing(old: RAGServiceStatus, new: RAGServiceStatus) -> bool:
    """Whether the difference is a decision or a condition, not only numbers and words."""
    return _essence(old) != _essence(new)


def _essence(status: RAGServiceStatus) -> tuple[Any, ...]:
    told = [(one.type, one.status, one.reason, one.observed_generation) for one in status.conditions]
    bare = status.model_copy(update={"conditions": [], "scaling": None})
    return bare, told, status.scaling and status.scaling.required_replicas


def _reconciled(failure: Trouble | None) -> tuple[bool, str, str]:
    if failure:
        return False, failure.reason, failure.message
    return True, "Applied", "every object is as it should be"


def _reranker(observed: Observed, least: int, now: datetime) -> tuple[bool, str, str]:
    running = pods.alive(observed.reranker)
    ready = sum(map(pods.is_ready, running))
    found = pods.trouble(running, "spec.pod", now)
    if found is None and observed.refusal:
        found = Trouble("PodsRefused", f"no pod can be made: {observed.refusal}")
    count = f"{ready} of {max(len(running), least)} pods answer"
    if ready >= least:
        return True, "Available", f"{count}; {found.message}" if found else count
    if found:
        return False, found.reason, found.message
    if models := ", ".join(sorted(pods.preparing(running))):
        return False, "Progressing", f"{count}; model {models} is being fetched and prepared"
    return False, "Progressing", f"{count}; the others start"


def _redis(observed: Observed, now: datetime) -> tuple[bool, str, str]:
    running = pods.alive(observed.redis)
    if any(map(pods.is_ready, running)):
        return True, "Available", "Redis answers"
    found = pods.trouble(running, "spec.redis", now)
    if found:
        return False, found.reason, f"{found.message}; requests are answered without the cache"
    return False, "Progressing", "Redis starts; requests are answered without the cache"


def _of_scaling(scaling: Scaling) -> list[tuple[ConditionType, bool, str, str]]:
    """The conditions that rest on the last decision; none before the first."""
    decision, estimate = scaling.decision, scaling.estimate
    if decision is None or estimate is None:
        return []
    return [
        (ConditionType.SCALING_ACTIVE, *_scaling_active(estimate, decision)),
        (ConditionType.AT_MAXIMUM, *_at_maximum(decision)),
    ]


def _scaling_active(estimate: Estimate, decision: Decision) -> tuple[bool, str, str]:
    if 0 < estimate.pods <= 2 * estimate.reporting:
        return True, "LoadKnown", "the load of the pods is known"
    return False, "MetricsMissing", decision.reason


def _at_maximum(decision: Decision) -> tuple[bool, str, str]:
    if "scaling.maxReplicas" in decision.limits:
        return True, "MoreNeeded", decision.reason
    return False, "WithinBounds", "scaling.maxReplicas allows what is needed"


def numbers(scaling: Scaling) -> ScalingStatus | None:
    """The last decision, and the numbers that it rests on, rounded."""
    decision, estimate = scaling.decision, scaling.estimate
    if decision is None or estimate is None:
        return None
    return ScalingStatus(
        required_replicas=scaling.required,
        reason=decision.reason,
        p95=None if estimate.p95 is None else duration.text(timedelta(seconds=_significant(estimate.p95))),
        hit_rate=_percent(estimate.hit_rate),
        requests_per_second=f"{_significant(estimate.requests_per_second):g}",
        utilization=_percent(estimate.utilization),
        observed_pods=estimate.reporting,
    )


def _percent(share: float | None) -> str | None:
    return None if share is None else f"{share:.1%}"


def _significant(number: float) -> float:
    """Two significant digits: more would be noise, and a reason to write the status again."""
    return float(f"{number:.2g}")
