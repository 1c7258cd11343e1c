"""Conditions keep the time of their last transition, and Ready rolls up what decides it."""

from datetime import UTC, datetime, timedelta

from rag_operator.api.conditions import (
    MESSAGE_MAX_LENGTH,
    Conditions,
    ConditionType,
    find,
    rolled_up,
    updated,
    without,
)
from rag_operator.api.v1alpha1 import ConditionStatus

NOW = datetime(2030, 1, 1, 12, 0, 0, 123456, tzinfo=UTC)
LATER = NOW + timedelta(minutes=5)


def one(status: bool | None = True, message: str = "all applied", now: datetime = NOW) -> Conditions:
    return updated((), ConditionType.RECONCILED, status, "Applied", message, now=now, generation=1)


def test_a_new_condition_is_dated_to_the_second_and_knows_its_generation() -> None:
    (condition,) = one()
    assert condition.last_transition_time == NOW.replace(microsecond=0)
    assert condition.observed_generation == 1
    assert condition.status is ConditionStatus.TRUE


def test_another_message_is_no_transition() -> None:
    (condition,) = updated(one(), ConditionType.RECONCILED, True, "Other", "words", now=LATER, generation=2)
    assert (condition.reason, condition.message, condition.observed_generation) == ("Other", "words", 2)
    assert condition.last_transition_time == NOW.replace(microsecond=0)


def test_another_status_is_a_transition() -> None:
    (condition,) = updated(one(), ConditionType.RECONCILED, None, "Unknown", "?", now=LATER, generation=1)
    assert condition.status is ConditionStatus.UNKNOWN
    assert condition.last_transition_time == LATER.replace(microsecond=0)


def test_conditions_keep_their_place() -> None:
    conditions = updated(one(), ConditionType.PAUSED, True, "Paused", "", now=NOW, generation=1)
    conditions = updated(conditions, ConditionType.RECONCILED, False, "ApplyFailed", "", now=LATER, generation=1)
    assert [condition.type for condition in conditions] == ["Reconciled", "Paused"]
    assert without(conditions, ConditionType.RECONCILED) == conditions[1:]


def test_a_long_message_is_cut_where_the_api_server_would_refuse_it() -> None:
    (condition,) = one(message="x" * 100_000)
    assert len(condition.message) == MESSAGE_MAX_LENGTH


def roll_up(**statuses: bool | None) -> tuple[ConditionStatus, str]:
    conditions: Conditions = ()
    for name, status in statuses.items():
        conditions = updated(
            conditions, ConditionType[name], status, f"{name}_REASON", f"{name} message", now=NOW, generation=3
        )
    ready = find(rolled_up(conditions, now=NOW, generation=3), ConditionType.READY)
    assert ready is not None
    return ready.status, ready.reason


def test_ready_needs_the_objects_and_the_reranker() -> None:
    assert roll_up(RECONCILED=True, RERANKER_AVAILABLE=True) == (ConditionStatus.TRUE, "Available")
    assert roll_up(RECONCILED=True, RERANKER_AVAILABLE=False) == (ConditionStatus.FALSE, "RERANKER_AVAILABLE_REASON")
    assert roll_up(RECONCILED=False, RERANKER_AVAILABLE=False) == (ConditionStatus.FALSE, "RECONCILED_REASON")
    assert roll_up(RECONCILED=True, RERANKER_AVAILABLE=None) == (ConditionStatus.UNKNOWN, "RERANKER_AVAILABLE_REASON")
    assert roll_up(RECONCILED=True) == (ConditionStatus.UNKNOWN, "Progressing")


def test_ready_does_not_wait_for_redis_or_metrics() -> None:
    status, _ = roll_up(
        RECONCILED=True, RERANKER_AVAILABLE=True, REDIS_AVAILABLE=False, SCALING_ACTIVE=False, AT_MAXIMUM=True
    )
    assert status is ConditionStatus.TRUE
