"""Everything that is counted, in one place; `/metrics`, `/internal/load` and `/stats` are three views of it."""

import secrets
import time
from collections.abc import Callable, Iterator
from enum import StrEnum

from prometheus_client import GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector, CollectorRegistry
from pydantic import BaseModel

from rag_service.contract.histogram import BOUNDS, Histogram
from rag_service.contract.load import LoadReport, Pairs, Requests, Tokens
from rag_service.rerank import Reranker


class Outcome(StrEnum):
    """How a request ended."""

    ANSWERED = "answered"
    REJECTED = "rejected"  # 429: too much work waits
    FAILED = "failed"  # 5xx: the service's fault
    INVALID = "invalid"  # 4xx: the client's fault
    ABANDONED = "abandoned"  # the client left


class Stats(BaseModel):
    """`GET /stats`: totals since the process started, for people. Percentiles in seconds; null: nothing known."""

    samples: int
    p50: float | None
    p95: float | None
    p99: float | None
    cache_hits: int
    cache_misses: int
    hit_rate: float | None


class Meter:
    """Counts requests and pairs, and reads the rest from those who count it."""

    def __init__(self, reranker: Reranker, clock: Callable[[], float] = time.monotonic) -> None:
        self.requests = dict.fromkeys(Outcome, 0)
        self.latency = Histogram()
        self.latency_sum = 0.0
        self.hits = 0
        self.misses = 0
        self.in_flight = 0
        self.reranker = reranker
        self._clock = clock
        self._started = clock()
        self._incarnation = secrets.token_hex(8)

    def ended(self, outcome: Outcome, seconds: float) -> None:
        """Count a request that ended after so many seconds."""
        self.requests[outcome] += 1
        if outcome is Outcome.ANSWERED:
            self.latency.observe(seconds)
            self.latency_sum += seconds

    def ranked(self, hits: int, misses: int) -> None:
        """Count an answer's pairs: those whose score was known, and those that were computed."""
        self.hits += hits
        self.misses += misses

    def load(self) -> LoadReport:
        """The operator's view."""
        engine = self.reranker.engine
        return LoadReport(
            incarnation=self._incarnation,
            uptime=self._clock() - self._started,
            threads=len(engine.work.busy),
            busy=sum(engine.work.busy),
            requests=Requests(
                answered=self.requests[Outcome.ANSWERED],
                rejected=self.requests[Outcome.REJECTED],
                failed=self.requests[Outcome.FAILED],
            ),
            pairs=Pairs(hits=self.hits, misses=self.misses),
            tokens=Tokens(offered=engine.work.offered, scored=engine.work.scored),
            queued_tokens=engine.queued_tokens,
            in_flight=self.in_flight,
            latency=tuple(self.latency.counts),
        )

    def stats(self) -> Stats:
        """The view for people."""
        pairs = self.hits + self.misses
        return Stats(
            samples=self.latency.total,
            p50=self.latency.quantile(0.5),
            p95=self.latency.quantile(0.95),
            p99=self.latency.quantile(0.99),
            cache_hits=self.hits,
            cache_misses=self.misses,
            hit_rate=self.hits / pairs if pairs else None,
        )


class MeterCollector(Collector):
    """Prometheus' view."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter

    def collect(self) -> Iterator[Metric]:
        """The metric families, read at this moment."""
        yield from self._requests()
        yield from self._cache()
        yield from self._engine()

    def _requests(self) -> Iterator[Metric]:
        meter = self._meter
        yield _counter(
            "ragservice_requests",
            "Rerank requests by how they ended",
            "outcome",
            {outcome.value: count for outcome, count in meter.requests.items()},
        )
        yield GaugeMetricFamily(
            "ragservice_requests_in_flight", "Rerank requests without an answer yet", value=meter.in_flight
        )
        below, buckets = 0, []
        for bound, count in zip([*map(str, BOUNDS), "+Inf"], meter.latency.counts, strict=True):
            below += count
            buckets.append((bound, float(below)))
        yield HistogramMetricFamily(
            "ragservice_request_duration_seconds",
            "Answered rerank requests, from arrival to the last byte",
            buckets=buckets,
            sum_value=meter.latency_sum,
        )

    def _cache(self) -> Iterator[Metric]:
        meter, cache = self._meter, self._meter.reranker.cache
        yield _counter(
            "ragservice_cache_pairs",
            "Pairs of answered requests by where their score came from",
            "result",
            {"hit": meter.hits, "miss": meter.misses},
        )
        yield GaugeMetricFamily(
            "ragservice_cache_available",
            "1 while the cache is asked; 0 while its breaker is open, or none is configured",
            value=cache.available,
        )
        yield _counter(
            "ragservice_cache_errors",
            "Trips to the cache that failed, and requests whose scores were not written",
            "operation",
            {
                "lookup": cache.trouble.lookups_failed,
                "store": cache.trouble.stores_failed,
                "drop": cache.trouble.stores_dropped,
            },
        )

    def _engine(self) -> Iterator[Metric]:
        engine = self._meter.reranker.engine
        yield GaugeMetricFamily("ragservice_engine_up", "1 while every engine thread works", value=not engine.trouble)
        yield GaugeMetricFamily(
            "ragservice_engine_queued_tokens", "Tokens that wait for an engine thread", value=engine.queued_tokens
        )
        yield _counter(
            "ragservice_engine_tokens",
            "Tokens of pairs without a cached score: offered on arrival, scored when done",
            "stage",
            {"offered": engine.work.offered, "scored": engine.work.scored},
        )
        yield CounterMetricFamily("ragservice_engine_batches", "Batches computed", value=engine.work.batches)
        yield _counter(
            "ragservice_engine_busy_seconds",
            "Time that an engine thread spent computing",
            "thread",
            {str(number): busy for number, busy in enumerate(engine.work.busy)},
        )
        models = InfoMetricFamily("ragservice_model", "The models, best first", labels=["rank"])
        for rank, (name, ranker) in enumerate(self._meter.reranker.rankers.items()):
            told = {"name": name, "kind": ranker.manifest.recipe.kind, "fingerprint": ranker.fingerprint}
            models.add_metric([str(rank)], told)
        yield models


def _counter(name: str, text: str, label: str, values: dict[str, int] | dict[str, float]) -> Metric:
    family = CounterMetricFamily(name, text, labels=[label])
    for value, count in values.items():
        family.add_metric([value], count)
    return family


def registry(meter: Meter) -> CollectorRegistry:
    """What `/metrics` exposes: the meter, and what the client library knows of the process."""
    made = CollectorRegistry()
    made.register(MeterCollector(meter))
    ProcessCollector(registry=made)
    PlatformCollector(registry=made)
    GCCollector(registry=made)
    return made
