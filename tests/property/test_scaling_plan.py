"""What holds for every load, every history and every bound."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from rag_operator.scaling.estimate import Estimate
from rag_operator.scaling.plan import Goal, State, plan

FINITE = st.floats(min_value=0, max_value=1e9)
SHARE = st.floats(min_value=0, max_value=1)


@st.composite
def estimates(draw: st.DrawFn) -> Estimate:
    pods = draw(st.integers(0, 50))
    return Estimate(
        pods=pods,
        reporting=draw(st.integers(0, pods)),
        observed=draw(st.integers(0, pods)),
        offered=draw(FINITE),
        backlog=draw(FINITE),
        capacity=draw(st.none() | st.floats(min_value=1e-3, max_value=1e6)),
        utilization=draw(st.none() | SHARE),
        p95=draw(st.none() | st.floats(min_value=0, max_value=100)),
        answers=draw(st.integers(0, 10_000)),
    )


@st.composite
def goals(draw: st.DrawFn) -> Goal:
    low = draw(st.integers(1, 1000))
    return Goal(
        slo_p95=draw(st.floats(min_value=1e-3, max_value=600)),
        min_replicas=low,
        max_replicas=draw(st.integers(low, 1000)),
        scale_down_window=draw(st.floats(min_value=0, max_value=86_400)),
    )


HISTORIES = st.lists(st.tuples(estimates(), st.floats(min_value=0, max_value=600)), max_size=20)


def after(history: list[tuple[Estimate, float]], goal: Goal, replicas: int) -> tuple[State, float]:
    """The state and the time when all of it has happened."""
    now = 0.0
    state = State.start(replicas, now)
    for estimate, seconds in history:
        now += seconds
        _, state = plan(state, estimate, goal, now)
    return state, now


@given(HISTORIES, estimates(), goals(), st.integers(0, 1000))
def test_the_bounds_always_hold(
    history: list[tuple[Estimate, float]], estimate: Estimate, goal: Goal, replicas: int
) -> None:
    state, now = after(history, goal, replicas)
    decision, _ = plan(state, estimate, goal, now)
    assert goal.min_replicas <= decision.required <= goal.max_replicas
    assert decision.reason


@given(HISTORIES, estimates(), goals(), st.integers(0, 1000))
def test_missing_metrics_never_shrink(
    history: list[tuple[Estimate, float]], estimate: Estimate, goal: Goal, replicas: int
) -> None:
    state, now = after(history, goal, replicas)
    partial = replace(estimate, observed=min(estimate.observed, max(0, estimate.pods - 1)))
    decision, _ = plan(state, partial, goal, now)
    assert decision.required >= min(state.required, goal.max_replicas)


@given(HISTORIES, estimates(), goals(), st.integers(0, 1000), st.tuples(FINITE, FINITE))
def test_more_demand_never_asks_for_fewer_replicas(
    history: list[tuple[Estimate, float]], estimate: Estimate, goal: Goal, replicas: int, extra: tuple[float, float]
) -> None:
    state, now = after(history, goal, replicas)
    less, _ = plan(state, estimate, goal, now)
    more = replace(estimate, offered=estimate.offered + extra[0], backlog=estimate.backlog + extra[1])
    # A pod that scored nothing yet has no capacity to measure demand by: then, and only then, demand holds.
    if estimate.capacity is not None:
        assert plan(state, more, goal, now)[0].required >= less.required


@given(HISTORIES, estimates(), goals(), st.integers(0, 1000))
def test_replicas_stay_for_the_window(
    history: list[tuple[Estimate, float]], estimate: Estimate, goal: Goal, replicas: int
) -> None:
    state, now = after(history, goal, replicas)
    high, state = plan(state, estimate, goal, now)
    idle = Estimate(pods=1, reporting=1, observed=1, capacity=1.0, utilization=0.0)
    for share in (0.1, 0.5, 0.99):
        low, state = plan(state, idle, goal, now + share * goal.scale_down_window)
        if goal.scale_down_window >= 1:
            assert low.required >= min(high.required, goal.clamp(int(max(high.terms.values()))))


@given(st.floats(min_value=0.05, max_value=40), st.lists(st.floats(0.8, 1.2), min_size=120, max_size=120))
@settings(max_examples=50)
def test_constant_load_with_noise_settles(load: float, noise: list[float]) -> None:
    """Once the loudest moment of a window was seen, replicas change only by what exceeds it by a tenth."""
    goal = Goal(slo_p95=1.0, min_replicas=1, max_replicas=100, scale_down_window=300.0)
    capacity, state, history = 1000.0, State.start(1, 0.0), []
    loudest = [1.2, *noise]
    for step in range(600):
        factor = loudest[step % len(loudest)] if step % 50 else 1.2
        offered = load * capacity * 0.7 * factor
        pods = max(1, state.required)
        estimate = Estimate(pods, pods, pods, offered, 0.0, capacity, min(1.0, offered / (capacity * pods)), 0.1, 100)
        decision, state = plan(state, estimate, goal, 5.0 * step)
        history.append(decision.required)
    assert len(set(history[60:])) == 1


@given(goals(), st.integers(1, 1000), st.lists(estimates(), max_size=30))
def test_nothing_shrinks_for_a_window_after_a_start(goal: Goal, replicas: int, seen: list[Estimate]) -> None:
    state, now = State.start(replicas, 0.0), 0.0
    for estimate in seen:
        now += goal.scale_down_window / 31
        decision, state = plan(state, estimate, goal, now)
        if goal.scale_down_window >= 1:
            assert decision.required >= goal.clamp(replicas)
