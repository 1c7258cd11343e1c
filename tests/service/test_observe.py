"""Probes, metrics, load, statistics: three views of the same counts."""

import time
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from rag_service.contract.histogram import Histogram
from rag_service.contract.load import LoadReport
from tests.redis_server import RedisServer
from tests.service.running import InProcess, until


def samples(service: InProcess) -> dict[tuple[str, str], float]:
    """Values by name and, where there is one, the value of the only label."""
    text = service.client.get("/metrics").text
    return {
        (sample.name, next(iter(sample.labels.values()), "")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_the_views_agree_and_add_up(tmp_path: Path, tiny: dict[str, str], redis: RedisServer) -> None:
    with InProcess(tiny, redis.url, threads=2) as service:
        first = LoadReport.model_validate(service.load())
        texts = [f"{'abcdefghij'[number]} text" for number in range(10)]
        for number in range(5):
            assert service.rerank(f"query {'abcde'[number]}", texts).status_code == 200
        until(lambda: redis.client.dbsize() == 5)
        assert service.rerank("query a", [*texts, "one more"]).status_code == 200
        assert service.rerank("query a", []).status_code == 422
        assert service.rerank("query a", ["a"], model="none").status_code == 404

        report = LoadReport.model_validate(service.load())
        assert report.incarnation == first.incarnation
        assert report.uptime > first.uptime
        assert report.threads == 2
        assert (report.requests.answered, report.requests.rejected, report.requests.failed) == (6, 0, 0)
        assert (report.pairs.hits, report.pairs.misses) == (10, 51)
        # [CLS] q u e r y a [SEP] x t e x t [SEP], and one pair with "onemore"
        assert report.tokens.offered == report.tokens.scored == 50 * 14 + 16
        assert (report.queued_tokens, report.in_flight) == (0, 0)
        assert 0 < report.busy < report.uptime * 2
        assert sum(report.latency) == 6

        found = samples(service)
        assert found["ragservice_requests_total", "answered"] == 6
        assert found["ragservice_requests_total", "invalid"] == 2
        assert found["ragservice_cache_pairs_total", "hit"] == 10
        assert found["ragservice_cache_pairs_total", "miss"] == 51
        assert found["ragservice_engine_tokens_total", "scored"] == report.tokens.scored
        assert found["ragservice_request_duration_seconds_count", ""] == 6
        assert found["ragservice_request_duration_seconds_bucket", "+Inf"] == 6
        assert found["ragservice_cache_available", ""] == 1
        busy = sum(found["ragservice_engine_busy_seconds_total", thread] for thread in "01")
        assert busy == pytest.approx(report.busy)

        stats = service.client.get("/stats").json()
        assert (stats["samples"], stats["cache_hits"], stats["cache_misses"]) == (6, 10, 51)
        assert stats["hit_rate"] == pytest.approx(10 / 61)
        assert stats["p95"] == Histogram(report.latency).quantile(0.95)


def test_statistics_of_nothing_are_null_and_not_zero(tmp_path: Path, tiny: dict[str, str]) -> None:
    with InProcess(tiny) as service:
        stats = service.client.get("/stats").json()
        assert (stats["samples"], stats["p95"], stats["hit_rate"]) == (0, None, None)
        assert samples(service)["ragservice_cache_available", ""] == 0


def test_a_restart_is_another_incarnation(tmp_path: Path, tiny: dict[str, str]) -> None:
    seen = set()
    for _ in range(2):
        with InProcess(tiny) as service:
            seen.add(service.load()["incarnation"])
    assert len(seen) == 2


def test_latency_begins_where_the_gateway_stamped_it(tmp_path: Path, tiny: dict[str, str]) -> None:
    def ask(service: InProcess, stamp: str) -> float:
        body = {"query": "q", "texts": ["a"]}
        assert service.client.post("/rerank", json=body, headers={"X-Request-Start": stamp}).status_code == 200
        return samples(service)["ragservice_request_duration_seconds_sum", ""]

    with InProcess(tiny) as service:
        assert 3 <= ask(service, f"t={time.time() - 3:.3f}") < 4
        before = ask(service, "nonsense")
        for stamp in ("t=0", f"t={time.time() + 1000:.3f}", f"t={time.time() - 1000:.3f}", "t=NaN"):
            assert ask(service, stamp) < before + 1


def test_models_are_named_with_their_fingerprints(service: InProcess) -> None:
    families = {family.name: family for family in text_string_to_metric_families(service.client.get("/metrics").text)}
    models = [sample.labels for sample in families["ragservice_model_info"].samples]
    assert [model["name"] for model in models] == ["best", "light", "cosine"]
    assert len({model["fingerprint"] for model in models}) == 3


def test_probes_answer(service: InProcess) -> None:
    assert service.client.get("/healthz").text == "ok\n"
    assert service.client.get("/readyz").text == "ok\n"
