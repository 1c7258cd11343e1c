"""Pure: from an estimate of the load to the number of replicas, with the reason.

Two terms ask for replicas, both in (fractional) pods:

- work: (offered + backlog / DRAIN) / (capacity of a pod x TARGET_UTILIZATION)
- latency: while p95, or the time that the backlog will take, is above the SLO and the pods are busy, one more than
  there are; while they are saturated, in proportion to the excess, at most twice as many. A closed-loop client sends
  no more than what is answered, so that an overloaded service sees only as much demand as it serves; this term finds
  the rest. It counts from the pods that are observed, so it never runs ahead of pods that are still starting.

More replicas at once; fewer only down to the most that was needed within the scale-down window, and only when a tenth
more would still fit: constant load with noise then leaves the replicas alone. Unknown load holds, partly known load
may add, and neither ever removes.
"""

import math
from dataclasses import dataclass

from rag_operator.scaling.estimate import Estimate

# Busy share of the engine threads that leaves room for a tail: half-way between M/D/1 and what a batch absorbs.
TARGET_UTILIZATION = 0.7
# From here on the pods serve all they can, and demand may be anything.
SATURATION = 0.9
# Seconds in which a backlog should be gone: about what an autoscaler and a starting pod take.
DRAIN = 30.0
# The most by which the latency term multiplies the pods.
MAX_GROWTH = 2.0
# Answers that a p95 must rest on.
MIN_ANSWERS = 20
# Replicas are removed when this times the demand would still fit into what is left.
HYSTERESIS = 1.1

_ROUNDING = 1e-9


@dataclass(frozen=True)
class Goal:
    """What the user asks for. Times in seconds."""

    slo_p95: float
    min_replicas: int
    max_replicas: int
    scale_down_window: float

    def clamp(self, replicas: int) -> int:
        """The nearest number within the bounds."""
        return max(self.min_replicas, min(self.max_replicas, replicas))


@dataclass(frozen=True)
class State:
    """What one decision hands to the next: the replicas, and the needs that may still be the window's greatest.

    `needs` are pairs (time, pods), ever later and ever smaller: a need that a later one exceeds never matters again.
    """

    required: int
    needs: tuple[tuple[float, float], ...] = ()

    @classmethod
    def start(cls, replicas: int, now: float) -> "State":
        """The state when nothing is known but the replicas there are: they count as needed now."""
        return cls(replicas, ((now, float(replicas)),))


@dataclass(frozen=True)
class Decision:
    """How many replicas, and why."""

    required: int
    reason: str
    """One sentence for a person."""
    terms: dict[str, float]
    """What each term asked for, in pods, before the bounds."""
    limits: tuple[str, ...] = ()
    """Fields of the spec that kept the decision from what was needed."""


def plan(state: State, estimate: Estimate, goal: Goal, now: float) -> tuple[Decision, State]:
    """One step. `now` is in seconds on a clock that never runs backwards."""
    terms = _terms(estimate, goal)
    if not terms or estimate.observed < estimate.pods:
        terms["hold"] = float(state.required)
    need = max(terms.values())
    needs = _latest(state.needs, need, now, goal.scale_down_window)
    unbounded = max(_ceil(need), min(state.required, _ceil(needs[0][1] * HYSTERESIS)))
    required = goal.clamp(unbounded)
    limits = _limits(unbounded, goal)
    reason = _reason(terms, estimate, goal, required, peak=needs[0][1])
    if unbounded > goal.max_replicas:
        reason += "; limited by scaling.maxReplicas"
    return Decision(required, reason, terms, limits), State(required, needs)


def _terms(estimate: Estimate, goal: Goal) -> dict[str, float]:
    """The pods that each term asks for; none of them when the load is not known."""
    if not estimate.observed or (estimate.capacity is None and estimate.offered > 0):
        return {}
    if estimate.capacity is None:
        return {"work": 0.0}
    demand = estimate.offered + estimate.backlog / DRAIN
    terms = {"work": demand / (estimate.capacity * TARGET_UTILIZATION)}
    excess = latency(estimate) / goal.slo_p95
    busy = estimate.utilization or 0.0
    if excess > 1 and busy >= TARGET_UTILIZATION:
        growth = min(excess, MAX_GROWTH) if busy >= SATURATION else 1.0
        terms["latency"] = max(estimate.observed + 1.0, estimate.observed * growth)
    return terms


def latency(estimate: Estimate) -> float:
    """Seconds: p95 where it rests on enough answers, or the time that the backlog will take if that is longer."""
    measured = estimate.p95 if estimate.p95 is not None and estimate.answers >= MIN_ANSWERS else 0.0
    waiting = estimate.backlog / (estimate.capacity * estimate.observed) if estimate.capacity else 0.0
    return max(measured, waiting)


def _latest(
    needs: tuple[tuple[float, float], ...], need: float, now: float, window: float
) -> tuple[tuple[float, float], ...]:
    """The needs of the window with a new one. The first is the greatest."""
    return (*((time, pods) for time, pods in needs if pods > need and time > now - window), (now, need))


def _limits(unbounded: int, goal: Goal) -> tuple[str, ...]:
    if unbounded > goal.max_replicas:
        return ("scaling.maxReplicas",)
    if unbounded < goal.min_replicas:
        return ("scaling.minReplicas",)
    return ()


def _reason(terms: dict[str, float], estimate: Estimate, goal: Goal, required: int, *, peak: float) -> str:
    need, term = max((pods, name) for name, pods in terms.items())
    if term == "hold":
        return f"{_replicas(need)} kept: {_unknown(estimate)}"
    if _ceil(need) < required and required > goal.min_replicas:
        return f"{_replicas(required)} kept: {peak:.1f} were needed within the last {goal.scale_down_window:.0f}s"
    if _ceil(need) < goal.min_replicas:
        return f"{_replicas(required)} kept, as scaling.minReplicas asks: {_work(estimate)}"
    if term == "latency":
        return (
            f"{_replicas(need)} needed: answers take {latency(estimate):.2f}s, the objective is "
            f"{goal.slo_p95:.2f}s, and {estimate.observed} pods are {estimate.utilization or 0:.0%} busy"
        )
    return f"{_replicas(need)} needed: {_work(estimate)}"


def _work(estimate: Estimate) -> str:
    if not estimate.offered and not estimate.backlog:
        return "nothing arrives that has to be scored"
    return (
        f"{estimate.offered:.0f} tokens/s arrive and {estimate.backlog:.0f} tokens wait, "
        f"a pod scores {estimate.capacity or 0:.0f} tokens/s"
    )


def _replicas(pods: float) -> str:
    count = _ceil(pods)
    return "1 replica is" if count == 1 else f"{count} replicas are"


def _unknown(estimate: Estimate) -> str:
    if not estimate.pods:
        return "no pod is ready"
    if estimate.reporting < estimate.pods:
        return f"{estimate.reporting} of {estimate.pods} pods tell their load"
    if estimate.observed < estimate.pods:
        return "the load spreads over new pods"
    return "no pod has scored anything yet"


def _ceil(pods: float) -> int:
    return math.ceil(pods - _ROUNDING)
