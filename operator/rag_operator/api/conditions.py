"""Conditions of a RAGService: which there are, who sets them, and how they change. Pure.

| type                | True                              | absent                     | counts for Ready |
|---------------------|-----------------------------------|----------------------------|------------------|
| `Ready`             | requests are answered             | never seen by the operator |                  |
| `Reconciled`        | all objects are as they should be | never seen by the operator | yes              |
| `RerankerAvailable` | at least minReplicas pods answer  | before the first apply     | yes              |
| `RedisAvailable`    | Redis answers                     | before the first apply     | no               |
| `ScalingActive`     | the load of the pods is known     | before the first plan      | no               |
| `AtMaximum`         | the SLO needs more than it may    | before the first plan      | no               |
| `Paused`            | the operator leaves all as it is  | unless `spec.paused`       | no               |

Reconciliation sets all of them, and `Ready` last. Redis does not count: without it requests are answered, only not
from the cache. Nor does scaling: without metrics the number of replicas stays, and at the maximum the service may
still be fast enough. `AtMaximum` and `Paused` are the two of which True asks for attention.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from enum import StrEnum

from rag_operator.api.v1alpha1 import Condition, ConditionStatus

MESSAGE_MAX_LENGTH = 1024


class ConditionType(StrEnum):
    """What a condition is about."""

    READY = "Ready"
    """Requests are answered as the spec says. Rolls up `Reconciled` and `RerankerAvailable`: the first of them that
    is not True gives the reason and the message; on True the reason is `Available`."""

    RECONCILED = "Reconciled"
    """Every object was applied. False: `ApplyFailed` (the API server refused one: which, and why), `NameTaken` (an
    object of that name belongs to somebody else), `Progressing` (one of an earlier RAGService of the name is still
    being removed), `InvalidSpec` (this version of the operator can't read the spec)."""

    RERANKER_AVAILABLE = "RerankerAvailable"
    """At least minReplicas reranker pods answer. False: `Progressing` (they start), or what a pod says:
    `ImagePullFailed`, `ModelNotPrepared` (with what the model's init container said), `ContainerFailed` (with the exit
    code and the last words), `OutOfMemory`, `Unschedulable`, `ProbeFailed`; the message names the pod and the next
    step. `PodsRefused`: no pod may be made (quota, policy)."""

    REDIS_AVAILABLE = "RedisAvailable"
    """The pod of Redis is ready. False: reasons as of `RerankerAvailable`. Requests go on without the cache."""

    SCALING_ACTIVE = "ScalingActive"
    """The load of enough pods was read for the last plan. False: `MetricsMissing`; the number of replicas is held."""

    AT_MAXIMUM = "AtMaximum"
    """The SLO needs more pods than maxReplicas. The message says how many."""

    PAUSED = "Paused"
    """`spec.paused` is set: the other conditions are as they were when it was."""


# What `Ready` rolls up, in the order in which a cause comes before its effects.
_COUNTED = (ConditionType.RECONCILED, ConditionType.RERANKER_AVAILABLE)

_STATUS = {True: ConditionStatus.TRUE, False: ConditionStatus.FALSE, None: ConditionStatus.UNKNOWN}

Conditions = tuple[Condition, ...]


def find(conditions: Iterable[Condition], kind: ConditionType) -> Condition | None:
    """The condition of that type, or None."""
    return next((condition for condition in conditions if condition.type == kind), None)


def updated(
    conditions: Sequence[Condition],
    kind: ConditionType,
    status: bool | None,
    reason: str,
    message: str,
    *,
    now: datetime,
    generation: int,
) -> Conditions:
    """The conditions with one of them set, in place or at the end; `status` None is Unknown.

    The time of the last transition changes only with the status, as Kubernetes' own `SetStatusCondition` has it.
    """
    old = find(conditions, kind)
    unchanged = old is not None and old.status is _STATUS[status]
    new = Condition(
        type=kind.value,
        status=_STATUS[status],
        reason=reason,
        message=message if len(message) <= MESSAGE_MAX_LENGTH else f"{message[: MESSAGE_MAX_LENGTH - 1]}…",
        observed_generation=generation,
        last_transition_time=old.last_transition_time if old and unchanged else now.replace(microsecond=0),
    )
    if old is None:
        return (*conditions, new)
    return tuple(new if condition.type == kind else condition for condition in conditions)


def without(conditions: Iterable[Condition], kind: ConditionType) -> Conditions:
    """The conditions without the one of that type."""
    return tuple(condition for condition in conditions if condition.type != kind)


def rolled_up(conditions: Sequence[Condition], *, now: datetime, generation: int) -> Conditions:
    """The conditions with `Ready` set from those that it rolls up; one that is absent is not known yet."""
    status, reason, message = _verdict(conditions)
    return updated(conditions, ConditionType.READY, status, reason, message, now=now, generation=generation)


def _verdict(conditions: Sequence[Condition]) -> tuple[bool | None, str, str]:
    for kind in _COUNTED:
        condition = find(conditions, kind)
        if condition is None:
            return None, "Progressing", f"{kind.value} is not known yet"
        if condition.status is not ConditionStatus.TRUE:
            unknown = condition.status is ConditionStatus.UNKNOWN
            return (None if unknown else False), condition.reason, condition.message
    return True, "Available", "requests are answered"
