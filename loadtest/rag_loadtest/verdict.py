"""From samples to a verdict. Pure."""

from collections import Counter
from collections.abc import Iterable, Sequence
from decimal import ROUND_DOWN, Decimal
from enum import StrEnum

from pydantic import NonNegativeFloat, NonNegativeInt

from rag_loadtest.answers import Outcome, Sample
from rag_loadtest.target import Objective
from rag_service.contract.model import Shape

# With fewer, the 95th percentile hangs on a handful of requests.
MIN_REQUESTS = 100
# The generator measures its own delays as latency of the target, and asks less than it should.
MAX_LAG_SHARE = 0.1  # of slo.p95
MAX_CPU_SHARE = 0.9  # of the one core that its event loop can use


class Result(StrEnum):
    """Invalid: the load generator was too slow, or there were too few requests to tell."""

    PASSED = "passed"
    MISSED = "missed"
    INVALID = "invalid"


class Generator(Shape):
    """How well the load generator itself kept up while it measured."""

    lag_p95_seconds: NonNegativeFloat
    """How late its event loop came back from a short sleep."""
    cpu_share: NonNegativeFloat
    """CPU seconds a second."""


class Latency(Shape):
    """Exact percentiles of the answered requests, in seconds."""

    p50: NonNegativeFloat
    p95: NonNegativeFloat
    p99: NonNegativeFloat


class Measurement(Shape):
    """What happened to the requests that were meant to start within the measured window."""

    seconds: NonNegativeFloat
    requests: NonNegativeInt
    answered: NonNegativeInt
    rejected: NonNegativeInt
    failed: NonNegativeInt
    problems: dict[str, NonNegativeInt]
    answered_per_second: NonNegativeFloat
    slow: NonNegativeInt
    """Answered requests that took longer than slo.p95."""
    latency_seconds: Latency | None
    """None when nothing was answered."""
    hit_rate: NonNegativeFloat | None
    """Share of pairs whose score came from the cache; None when no answer told."""
    generator: Generator

    @property
    def availability(self) -> Decimal:
        """Answered requests, in percent of all, rounded down so that 100 means all."""
        return (Decimal(100 * self.answered) / max(1, self.requests)).quantize(Decimal("0.0001"), ROUND_DOWN)


class Verdict(Shape):
    """Whether the SLO held, and why."""

    result: Result
    reason: str


def percentile(ordered: Sequence[float], percent: int) -> float:
    """The smallest value that at least `percent` of 100 values do not exceed (nearest rank); `ordered` ascends."""
    return ordered[max(0, -(-percent * len(ordered) // 100) - 1)]


def measure(
    samples: Iterable[Sample], begin: float, seconds: float, objective: Objective, generator: Generator
) -> Measurement:
    """Sum up the requests that were meant to start in the `seconds` after `begin`; the others are warm-up."""
    window = [sample for sample in samples if begin <= sample.start < begin + seconds]
    outcomes = Counter(sample.outcome for sample in window)
    answered = sorted(sample.latency for sample in window if sample.outcome is Outcome.ANSWERED)
    p50, p95, p99 = (percentile(answered, percent) for percent in (50, 95, 99)) if answered else (0.0, 0.0, 0.0)
    hits, misses = sum(sample.hits for sample in window), sum(sample.misses for sample in window)
    return Measurement(
        seconds=seconds,
        requests=len(window),
        answered=outcomes[Outcome.ANSWERED],
        rejected=outcomes[Outcome.REJECTED],
        failed=outcomes[Outcome.FAILED],
        problems=dict(Counter(sample.problem for sample in window if sample.problem).most_common()),
        answered_per_second=len(answered) / seconds,
        slow=sum(latency > objective.p95.total_seconds() for latency in answered),
        latency_seconds=Latency(p50=p50, p95=p95, p99=p99) if answered else None,
        hit_rate=hits / (hits + misses) if hits + misses else None,
        generator=generator,
    )


def judge(measured: Measurement, objective: Objective) -> Verdict:
    """Passed, missed or invalid.

    A miss stands on few requests too, if it would remain one after filling up to `MIN_REQUESTS` with perfect ones:
    a target so slow that it answers three requests a minute has missed its SLO.
    """
    if problem := _too_slow(measured.generator, objective):
        return Verdict(result=Result.INVALID, reason=problem)
    missing = max(0, MIN_REQUESTS - measured.requests)
    if misses := _misses(measured, objective, missing):
        return Verdict(result=Result.MISSED, reason=", and ".join(misses))
    if missing or not measured.latency_seconds:
        reason = (
            f"{measured.answered} answers to {measured.requests} requests in {measured.seconds:g} s are too few for a "
            f"verdict, {MIN_REQUESTS} are needed: measure longer (--duration) or with more users (--users)"
        )
        return Verdict(result=Result.INVALID, reason=reason)
    reason = (
        f"p95 is {milliseconds(measured.latency_seconds.p95)}, the SLO allows "
        f"{milliseconds(objective.p95.total_seconds())}; {percent(measured.availability)} of {measured.requests} "
        f"requests were answered, the SLO asks for {percent(objective.availability)}"
    )
    return Verdict(result=Result.PASSED, reason=reason)


def _too_slow(generator: Generator, objective: Objective) -> str:
    if generator.cpu_share >= MAX_CPU_SHARE:
        symptom = f"used {generator.cpu_share:.0%} of the one core it can use"
    elif generator.lag_p95_seconds > MAX_LAG_SHARE * objective.p95.total_seconds():
        symptom = f"was itself late by {milliseconds(generator.lag_p95_seconds)} (p95)"
    else:
        return ""
    return f"the load generator {symptom}, so its figures are not the target's: give it more CPU, or fewer --users"


def _misses(measured: Measurement, objective: Objective, missing: int) -> list[str]:
    """What was missed, with so many perfect requests added to those measured."""
    misses = []
    answered, latency = measured.answered + missing, measured.latency_seconds
    if latency and 100 * measured.slow > 5 * answered:
        allowed = milliseconds(objective.p95.total_seconds())
        misses.append(f"p95 is {milliseconds(latency.p95)}, the SLO allows {allowed}")
    if Decimal(100 * answered) < objective.availability * (measured.requests + missing):
        problems = ", ".join(f"{count} × {problem}" for problem, count in measured.problems.items())
        misses.append(
            f"only {percent(measured.availability)} of {measured.requests} requests were answered, the SLO asks for "
            f"{percent(objective.availability)} ({problems})"
        )
    return misses


def milliseconds(seconds: float) -> str:
    """`812.3 ms`, `1500 ms`."""
    return f"{1000 * seconds:.1f}".removesuffix(".0") + " ms"


def percent(value: Decimal) -> str:
    """`99.9 %`, without trailing zeros."""
    return f"{value.normalize():f} %"
