"""The status: what it rolls up, what makes it worth writing, and what of a broken one is still read."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from rag_operator import status
from rag_operator.api import conditions
from rag_operator.api.conditions import ConditionType
from rag_operator.api.v1alpha1 import Condition, RAGService, RAGServiceStatus
from rag_operator.pods import Trouble
from rag_operator.record import Scaling
from rag_operator.scaling.estimate import Estimate
from rag_operator.scaling.plan import Decision, Goal, State
from rag_operator.status import Images, Observed

NOW = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
GOAL = Goal(slo_p95=0.3, min_replicas=1, max_replicas=10, scale_down_window=300)
IMAGES = Images(service="service:1", redis="redis:1")
BODY: dict[str, Any] = {
    "apiVersion": "ragservice.dev/v1alpha1",
    "kind": "RAGService",
    "metadata": {"name": "faq", "namespace": "docs", "uid": "u", "generation": 7},
    "spec": {"slo": {"p95": "300ms"}, "models": [{"name": "best", "uri": "package://m"}]},
}
READY_POD = {
    "metadata": {"name": "p", "labels": {}},
    "status": {"phase": "Running", "podIP": "10.0.0.1", "conditions": [{"type": "Ready", "status": "True"}]},
}
SCALING = Scaling(
    goal=GOAL,
    state=State(required=3),
    estimate=Estimate(
        pods=3, reporting=3, observed=3, utilization=0.6123, p95=0.2345, hit_rate=0.83149, requests_per_second=123.4
    ),
    decision=Decision(required=3, reason="3 replicas are needed", terms={"work": 2.6}),
)


def build(
    old: RAGServiceStatus | None = None,
    *,
    reranker: int = 1,
    redis: int = 1,
    scaling: Scaling = SCALING,
    failure: Trouble | None = None,
    at: datetime = NOW,
) -> RAGServiceStatus:
    rag = RAGService.parse(BODY).model_copy(update={"status": old or RAGServiceStatus()})
    observed = Observed(reranker=[READY_POD] * reranker, redis=[READY_POD] * redis)
    return status.build(rag, IMAGES, observed, scaling, failure=failure, now=at)


def condition(built: RAGServiceStatus, kind: ConditionType) -> Condition:
    found = conditions.find(built.conditions, kind)
    assert found is not None
    return found


def test_a_service_that_is_well() -> None:
    built = build()
    assert condition(built, ConditionType.READY).status.value == "True"
    assert (built.observed_generation, built.replicas, built.ready_replicas) == (7, 1, 1)
    assert (built.url, built.model, built.image, built.redis_image) == (
        "http://faq.docs.svc",
        "best",
        "service:1",
        "redis:1",
    )
    assert built.scaling is not None
    assert built.scaling.model_dump(by_alias=True, exclude={"reason"}) == {
        "requiredReplicas": 3,
        "p95": "230ms",
        "hitRate": "83.1%",
        "requestsPerSecond": "120",
        "utilization": "61.2%",
        "observedPods": 3,
    }


def test_redis_away_is_told_but_the_service_is_ready() -> None:
    built = build(redis=0)
    redis = condition(built, ConditionType.REDIS_AVAILABLE)
    assert redis.status.value == "False"
    assert "requests are answered without the cache" in redis.message
    assert condition(built, ConditionType.READY).status.value == "True"


def test_what_could_not_be_applied_makes_it_unready() -> None:
    built = build(failure=Trouble("ApplyFailed", "quota"))
    ready = condition(built, ConditionType.READY)
    assert (ready.status.value, ready.reason, ready.message) == ("False", "ApplyFailed", "quota")


def test_no_pod_and_no_trouble_is_progress() -> None:
    ready = condition(build(reranker=0), ConditionType.READY)
    assert (ready.status.value, ready.reason) == ("False", "Progressing")
    assert ready.message == "0 of 1 pods answer; the others start"


def test_a_model_that_is_being_prepared_is_progress() -> None:
    container = {"name": "prepare-best", "state": {"running": {}}}
    pod = {"metadata": {"name": "p"}, "status": {"phase": "Pending", "initContainerStatuses": [container]}}
    observed = Observed(reranker=[pod], redis=[READY_POD])
    built = status.build(RAGService.parse(BODY), IMAGES, observed, SCALING, failure=None, now=NOW)
    ready = condition(built, ConditionType.READY)
    assert (ready.status.value, ready.reason) == ("False", "Progressing")
    assert ready.message == "0 of 1 pods answer; model best is being fetched and prepared"


def test_before_the_first_plan_nothing_is_said_about_scaling() -> None:
    built = build(scaling=Scaling(GOAL, State(required=1)))
    assert conditions.find(built.conditions, ConditionType.SCALING_ACTIVE) is None
    assert built.scaling is None


def test_after_a_restart_the_last_decision_stays_until_there_is_a_new_one() -> None:
    restarted = build(build(), scaling=Scaling(GOAL, State(required=3)))
    assert restarted.scaling == build().scaling


def test_pods_without_a_load_are_told() -> None:
    silent = Scaling(
        GOAL,
        State(required=3),
        estimate=Estimate(pods=3, reporting=1, observed=1),
        decision=Decision(required=3, reason="3 replicas are kept: 1 of 3 pods tell their load", terms={"hold": 3}),
    )
    active = condition(build(scaling=silent), ConditionType.SCALING_ACTIVE)
    assert (active.status.value, active.reason) == ("False", "MetricsMissing")
    assert active.message == "3 replicas are kept: 1 of 3 pods tell their load"


def test_numbers_and_words_alone_are_not_worth_a_write_now() -> None:
    old = build()
    assert SCALING.decision is not None
    assert SCALING.estimate is not None
    moved = Scaling(
        GOAL,
        SCALING.state,
        estimate=replace(SCALING.estimate, p95=0.5, requests_per_second=7.0),
        decision=replace(SCALING.decision, reason="3 replicas are needed: other numbers"),
    )
    new = build(old, scaling=moved, at=NOW + timedelta(seconds=5))
    assert new != old
    assert not status.worth_writing(old, new)


@pytest.mark.parametrize(
    "new",
    [
        build(scaling=replace(SCALING, state=State(required=4))),
        build(reranker=2),
        build(reranker=0),
        build(redis=0),
        build(failure=Trouble("ApplyFailed", "x")),
    ],
)
def test_decisions_and_conditions_are(new: RAGServiceStatus) -> None:
    assert status.worth_writing(build(), new)


def test_the_same_twice_is_the_same() -> None:
    assert build(build(), at=NOW + timedelta(hours=1)) == build()


def test_paused_keeps_the_rest_and_ends_with_the_pause() -> None:
    rag = RAGService.parse(BODY).model_copy(update={"status": build()})
    paused = status.paused(rag, NOW)
    assert condition(paused, ConditionType.PAUSED).status.value == "True"
    assert paused.scaling == build().scaling
    assert conditions.find(build(paused).conditions, ConditionType.PAUSED) is None


def test_a_status_of_another_version_is_read_as_far_as_it_goes() -> None:
    told = build().model_dump(mode="json", by_alias=True, exclude_none=True)
    told["scaling"]["observedPods"] = "all"
    told["colour"] = "blue"
    read = status.read(BODY | {"status": told})
    assert read.status.image == "service:1", "or an older operator would restart every pod"
    assert read.status.scaling is None


def test_a_spec_that_cannot_be_read_is_told_field_by_field() -> None:
    body = BODY | {"spec": {"slo": {"p95": "soon", "timeout": "0s"}, "models": []}}
    with pytest.raises(ValidationError) as caught:
        status.read(body)
    message = status.problem(caught.value)
    assert message.startswith("this version of the operator cannot read the resource: ")
    for field in ("spec.slo.p95: 'soon' is not a duration", "spec.slo.timeout", "spec.models"):
        assert field in message
    told = status.unreadable((), message, 7, NOW)
    assert [(one.type, one.status.value, one.reason) for one in told] == [
        ("Reconciled", "False", "InvalidSpec"),
        ("Ready", "False", "InvalidSpec"),
    ]
