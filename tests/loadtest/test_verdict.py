from collections.abc import Iterable
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_loadtest.answers import Outcome, Sample
from rag_loadtest.target import Objective
from rag_loadtest.verdict import Generator, Measurement, Result, Verdict, judge, measure, percentile

OBJECTIVE = Objective.model_validate({"p95": "1s", "availability": "99"})
IDLE = Generator(lag_p95_seconds=0.001, cpu_share=0.1)


def answered(count: int, latency: float = 0.5) -> list[Sample]:
    return [Sample(start=1, latency=latency, outcome=Outcome.ANSWERED)] * count


def failed(count: int, outcome: Outcome = Outcome.FAILED, problem: str = "status 500") -> list[Sample]:
    return [Sample(start=1, latency=0.1, outcome=outcome, problem=problem)] * count


def measured(samples: Iterable[Sample], generator: Generator = IDLE) -> Measurement:
    return measure(samples, begin=0, seconds=10, objective=OBJECTIVE, generator=generator)


def verdict(samples: Iterable[Sample], generator: Generator = IDLE) -> Verdict:
    return judge(measured(samples, generator), OBJECTIVE)


@given(st.lists(st.floats(0, 1e6), min_size=1), st.integers(0, 100))
def test_percentiles_are_those_of_numpy(values: list[float], percent: int) -> None:
    expected = np.percentile(values, percent, method="inverted_cdf")
    assert percentile(sorted(values), percent) == expected


@given(st.lists(st.floats(0, 2), min_size=1, max_size=60))
def test_p95_and_the_count_of_slow_answers_tell_the_same(latencies: list[float]) -> None:
    result = measured(Sample(1, latency, Outcome.ANSWERED) for latency in latencies)
    assert result.latency_seconds is not None
    assert (result.latency_seconds.p95 > 1) == (100 * result.slow > 5 * result.answered)


def test_only_requests_that_were_meant_to_start_in_the_window_count() -> None:
    samples = [Sample(start, 0.5, Outcome.ANSWERED) for start in (0, 9.999, 10, 15, 69.999, 70)]
    window = measure(samples, begin=10, seconds=60, objective=OBJECTIVE, generator=IDLE)
    assert window.requests == 3
    assert window.answered_per_second == 3 / 60


def test_an_answer_counts_when_it_came_after_the_end() -> None:
    assert measured([Sample(start=9.9, latency=30, outcome=Outcome.ANSWERED)]).slow == 1


def test_the_slo_holds() -> None:
    result = verdict([*answered(95), *answered(5, latency=3)])
    assert result.result is Result.PASSED
    assert result.reason == (
        "p95 is 500 ms, the SLO allows 1000 ms; 100 % of 100 requests were answered, the SLO asks for 99 %"
    )


def test_p95_is_over_the_slo() -> None:
    result = verdict([*answered(940), *answered(60, latency=3)])
    assert result.result is Result.MISSED
    assert result.reason == "p95 is 3000 ms, the SLO allows 1000 ms"


def test_rejected_and_failed_requests_count_against_availability() -> None:
    assert verdict([*answered(990), *failed(5), *failed(5, Outcome.REJECTED, "status 429")]).result is Result.PASSED
    result = verdict([*answered(989), *failed(6), *failed(5, Outcome.REJECTED, "status 429")])
    assert result.result is Result.MISSED
    assert result.reason == (
        "only 98.9 % of 1000 requests were answered, the SLO asks for 99 % (6 × status 500, 5 × status 429)"
    )


def test_fast_failures_do_not_make_p95_better() -> None:
    result = verdict([*answered(10, latency=3), *failed(990)])
    assert result.result is Result.MISSED
    assert "p95 is 3000 ms" in result.reason
    assert "only 1 % of 1000 requests were answered" in result.reason


def test_too_few_requests_give_no_verdict() -> None:
    result = verdict(answered(99))
    assert result.result is Result.INVALID
    assert result.reason.startswith("99 answers to 99 requests in 10 s are too few for a verdict, 100 are needed")
    assert verdict([]).result is Result.INVALID


@pytest.mark.parametrize("samples", [answered(6, latency=30), failed(2)])
def test_a_miss_that_perfect_requests_could_not_mend_stands_on_few(samples: list[Sample]) -> None:
    assert verdict(samples).result is Result.MISSED


@pytest.mark.parametrize("samples", [answered(5, latency=30), failed(1)])
def test_a_miss_that_perfect_requests_could_mend_does_not(samples: list[Sample]) -> None:
    assert verdict(samples).result is Result.INVALID


@pytest.mark.parametrize(
    ("generator", "symptom"),
    [
        (Generator(lag_p95_seconds=0.101, cpu_share=0.1), "was itself late by 101 ms"),
        (Generator(lag_p95_seconds=0.001, cpu_share=0.95), "used 95% of the one core"),
    ],
)
def test_a_slow_generator_gives_no_verdict_good_or_bad(generator: Generator, symptom: str) -> None:
    for samples in (answered(1000), answered(1000, latency=3)):
        result = verdict(samples, generator)
        assert result.result is Result.INVALID
        assert symptom in result.reason


def test_the_hit_rate_is_that_of_pairs() -> None:
    samples = [Sample(1, 0.1, Outcome.ANSWERED, hits=4, misses=1), Sample(1, 0.1, Outcome.ANSWERED, hits=0, misses=5)]
    assert measured(samples).hit_rate == 0.4
    assert measured(answered(1)).hit_rate is None


def test_availability_is_rounded_down() -> None:
    almost_all = measured([]).model_copy(update={"requests": 10_000_000, "answered": 9_999_999})
    assert almost_all.availability == Decimal("99.9999")
