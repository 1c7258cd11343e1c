from datetime import timedelta

from rag_loadtest.answers import Outcome, Sample
from rag_loadtest.report import Report, Settings, live_line, table
from rag_loadtest.target import Objective
from rag_loadtest.verdict import Generator, judge, measure

OBJECTIVE = Objective.model_validate({"p95": "1s"})
SETTINGS = Settings(
    service="faq",
    url="http://faq",
    users=6,
    warm_up=timedelta(seconds=10),
    duration=timedelta(minutes=1),
    pace=None,
    distinct_queries=100,
    seed=3,
)


def report(samples: list[Sample]) -> Report:
    generator = Generator(lag_p95_seconds=0.0012, cpu_share=0.07)
    measured = measure(samples, begin=10, seconds=60, objective=OBJECTIVE, generator=generator)
    return Report(settings=SETTINGS, objective=OBJECTIVE, measurement=measured, verdict=judge(measured, OBJECTIVE))


def test_the_table_has_everything_that_the_verdict_rests_on() -> None:
    samples = [Sample(10 + n / 10, 0.2, Outcome.ANSWERED, hits=1, misses=3) for n in range(300)]
    assert table(report(samples)).splitlines() == [
        "Load check of faq at http://faq",
        "6 users, each with one request in flight, for 1m after 10s of warm-up",
        "10 documents of about 60 tokens a request, seed 3",
        "",
        "                   measured   SLO",
        "  p50                200 ms",
        "  p95                200 ms   at most 1000 ms",
        "  p99                200 ms",
        "  availability        100 %   at least 99.9 %",
        "  requests              300   0 rejected, 0 failed",
        "  rate                5.0/s   answered",
        "  hit rate           25.0 %   of (query, document) pairs",
        "  generator          1.2 ms   late (p95), 7% of a core",
        "",
        "PASSED: p95 is 200 ms, the SLO allows 1000 ms; 100 % of 300 requests were answered, the SLO asks for 99.9 %",
    ]


def test_the_table_of_nothing() -> None:
    assert "INVALID: 0 answers to 0 requests" in table(report([]))


def test_the_report_survives_json() -> None:
    made = report([Sample(10, 0.2, Outcome.ANSWERED), Sample(10, 0.2, Outcome.FAILED, "status 500")])
    assert Report.model_validate_json(made.model_dump_json(by_alias=True)) == made


def test_a_live_line_is_about_the_last_seconds() -> None:
    samples = [
        Sample(1, 5, Outcome.FAILED, "status 500"),
        *(Sample(n / 10, 0.5, Outcome.ANSWERED, hits=3, misses=1) for n in range(100, 200)),
        Sample(19, 0.1, Outcome.REJECTED, "status 429"),
    ]
    assert live_line(20, samples, SETTINGS, "replicas 1 of 2 ready, 2 needed") == (
        "   20 s  measure  6 users  10.0/s  p95 500 ms  hit rate 75 %  1 rejected  replicas 1 of 2 ready, 2 needed"
    )
    assert live_line(2, [], SETTINGS, "") == "    2 s  warm-up  6 users  0.0/s  p95 -  hit rate -"
