"""What is learned from load reports, and what is set aside."""

import math
from typing import Any

import pytest

from rag_operator.scaling import estimate
from rag_operator.scaling.estimate import Estimate, Memory, Sample
from rag_service.contract.histogram import Histogram
from rag_service.contract.load import LoadReport, Pairs, Requests, Tokens
from tests.scaling_world import report


def observe(*rounds: dict[str, Sample | None]) -> Estimate:
    """The estimate after some rounds of scraping; all pods are ready."""
    memory = Memory()
    for scraped in rounds:
        memory = estimate.remember(memory, scraped, set(scraped))
    return estimate.estimate(memory, rounds[-1])


def at(seconds: float, **counters: Any) -> Sample:
    return Sample(100 + seconds, report(**{"uptime": 50 + seconds, **counters}))


def latencies(*seconds: float) -> tuple[int, ...]:
    histogram = Histogram()
    for second in seconds:
        histogram.observe(second)
    return tuple(histogram.counts)


def test_rates_are_differences_over_the_pods_own_time() -> None:
    before = at(0, tokens=Tokens(offered=1000, scored=500), busy=7.0)
    after = at(
        5,
        tokens=Tokens(offered=6000, scored=5500),
        busy=9.5,
        requests=Requests(answered=50),
        pairs=Pairs(hits=300, misses=100),
        queued_tokens=700,
        latency=latencies(*[0.1] * 50),
    )
    seen = observe({"a": before}, {"a": after})
    assert seen.offered == pytest.approx(1000)
    assert seen.capacity == pytest.approx(2000)
    assert seen.utilization == pytest.approx(0.5)
    assert seen.requests_per_second == pytest.approx(10)
    assert seen.hit_rate == pytest.approx(0.75)
    assert seen.backlog == 700
    assert seen.answers == 50
    assert seen.p95 == pytest.approx(0.1, rel=0.15)


def test_p95_is_that_of_all_answers_not_a_mean_of_pods() -> None:
    """One pod of two is slow, for 10 % of the answers: p95 is slow, whatever the fast pod's own p95 says."""
    nothing = {"a": at(0), "b": at(0)}
    seen = observe(nothing, {"a": at(5, latency=latencies(*[0.02] * 900)), "b": at(5, latency=latencies(*[2.0] * 100))})
    assert seen.p95 == pytest.approx(2.0, rel=0.15)


def test_threads_multiply_capacity_and_divide_utilisation() -> None:
    seen = observe(
        {"a": at(0, threads=4)}, {"a": at(5, threads=4, busy=10.0, tokens=Tokens(offered=1000, scored=1000))}
    )
    assert seen.capacity == pytest.approx(400)
    assert seen.utilization == pytest.approx(0.5)


def test_a_pods_first_report_is_only_a_beginning() -> None:
    seen = observe({"a": at(0, tokens=Tokens(offered=10**9))})
    assert (seen.pods, seen.observed, seen.offered) == (1, 0, 0.0)


@pytest.mark.parametrize(
    ("name", "after"),
    [
        ("restarted", at(5, incarnation="b")),
        ("backwards", at(5, tokens=Tokens(offered=1))),
        ("a bucket backwards", at(5, tokens=Tokens(offered=100), latency=(0,) * len(report().latency))),
        ("uptime stands still", Sample(105, report(uptime=50.0, tokens=Tokens(offered=200)))),
        ("uptime leaps", Sample(105, report(uptime=5000.0, tokens=Tokens(offered=200)))),
        ("busier than time allows", at(5, tokens=Tokens(offered=200), busy=60.0)),
        ("busy for ever", at(5, tokens=Tokens(offered=200), busy=math.inf)),
        ("late", at(500, tokens=Tokens(offered=200))),
    ],
)
def test_what_does_not_continue_is_set_aside(name: str, after: Sample) -> None:
    before = at(0, tokens=Tokens(offered=100), latency=latencies(0.1))
    other = [{"b": at(0)}, {"b": at(5, tokens=Tokens(offered=5000))}]
    seen = observe({"a": before, **other[0]}, {"a": after, **other[1]})
    assert (seen.pods, seen.observed) == (2, 1), name
    assert seen.offered == pytest.approx(1000), "the sound pod counts"


def test_a_pod_that_lied_counts_again_after_two_true_reports() -> None:
    lie = at(10, tokens=Tokens(offered=0))
    truth = [at(second, tokens=Tokens(offered=1000 * second)) for second in (0, 5, 15, 20)]
    rounds = [*truth[:2], lie, *truth[2:]]
    observed = [observe(*({"a": sample} for sample in rounds[: end + 1])) for end in range(len(rounds))]
    assert [seen.observed for seen in observed] == [0, 1, 0, 0, 1]
    assert observed[-1].offered == pytest.approx(1000)


def test_a_silent_pod_is_taken_for_as_busy_as_the_others() -> None:
    rounds = [{pod: at(second, tokens=Tokens(offered=1000 * second)) for pod in "abc"} for second in (0, 5)]
    rounds[1]["c"] = None
    seen = observe(*rounds)
    assert (seen.pods, seen.observed) == (3, 2)
    assert seen.offered == pytest.approx(3000)


def test_when_pods_join_all_windows_begin_again() -> None:
    """All the work goes to one pod, then half of it: what was measured before must not be added to the new pod's."""
    rounds: list[dict[str, Sample | None]] = [
        {"a": at(second, tokens=Tokens(offered=1000 * second))} for second in (0, 5)
    ]
    rounds.append({"a": at(10, tokens=Tokens(offered=10_000)), "b": at(10)})
    rounds.append({"a": at(15, tokens=Tokens(offered=12_500)), "b": at(15, tokens=Tokens(offered=2500))})
    seen = [observe(*rounds[: end + 1]) for end in range(len(rounds))]
    assert [(one.observed, one.reporting) for one in seen] == [(0, 1), (1, 1), (0, 2), (2, 2)]
    assert seen[-1].offered == pytest.approx(1000)


def test_one_new_pod_among_many_adds_nothing_before_its_second_report() -> None:
    many = "abcdefghijkl"
    first = {pod: at(0) for pod in many}
    second = {pod: at(5, tokens=Tokens(offered=5000)) for pod in many}
    seen = observe(first, second, {pod: at(10, tokens=Tokens(offered=10_000)) for pod in many} | {"new": at(10)})
    assert (seen.pods, seen.observed) == (13, 12)
    assert seen.offered == pytest.approx(12_000)


def test_pods_that_are_gone_are_forgotten() -> None:
    memory = estimate.remember(Memory(), {"a": at(0), "b": at(0)}, "ab")
    assert set(estimate.remember(memory, {"b": at(5)}, "ab").samples) == {"b"}


def test_memory_of_a_pod_is_bounded() -> None:
    memory = Memory()
    for second in range(0, 3600, 5):
        memory = estimate.remember(memory, {"a": at(second)}, "ab")
    assert len(memory.samples["a"]) < 10


def test_speed_outlives_idle_time_and_follows_loaded_pods() -> None:
    def run(memory: Memory, start: int, seconds: int, speed: int, share: float) -> Memory:
        tokens, busy = (memory.samples["a"][-1].report.tokens.scored, memory.samples["a"][-1].report.busy)
        for second in range(5, seconds + 1, 5):
            busy += 5 * share
            tokens += round(5 * share * speed)
            sample = at(start + second, busy=busy, tokens=Tokens(offered=tokens, scored=tokens))
            memory = estimate.remember(memory, {"a": sample}, "ab")
        return memory

    memory = estimate.remember(Memory(), {"a": at(0)}, "ab")
    memory = run(memory, 0, 60, speed=1000, share=0.1)
    assert memory.speed.value == pytest.approx(1000), "better than nothing"
    memory = run(memory, 60, 60, speed=500, share=1.0)
    assert memory.speed.value == pytest.approx(500, rel=0.01), "a loaded pod knows better"
    memory = run(memory, 120, 3600, speed=1000, share=0.2)
    assert memory.speed.value == pytest.approx(500, rel=0.05), "an idle one does not"
    memory = run(memory, 3720, 120, speed=800, share=0.9)
    assert memory.speed.value == pytest.approx(800, rel=0.05)


@pytest.mark.parametrize("value", ["NaN", "-1", "Infinity", "1e400", '"x"', "null"])
def test_a_report_with_impossible_numbers_is_no_report(value: str) -> None:
    text = report().model_dump_json(by_alias=True).replace('"uptime":0.0', f'"uptime":{value}')
    assert value in text
    try:
        parsed = LoadReport.model_validate_json(text)
    except ValueError:
        return
    seen = observe({"a": at(0)}, {"a": Sample(105, parsed)})
    assert seen.observed == 0
