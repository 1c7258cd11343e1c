"""Everything that is counted, in one place; `/metrics`, `/internal/load` and `/stats` are three views of it."""

import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import StrEnum

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from pydantic import BaseModel, ConfigDict

from rag_service.contract.histogram import BOUNDS, Histogram
from rag_service.contract.load import LoadReport, Pairs, Requests, Tokens, merged
from rag_service.engine.cost import Cost
from rag_service.engine.rankers import Ranker
from rag_service.rerank import Reranker


class Outcome(StrEnum):
    """How a request ended."""

    ANSWERED = "answered"
    REJECTED = "rejected"  # 429: too much work waits
    FAILED = "failed"  # 5xx: the service's fault
    INVALID = "invalid"  # 4xx: the client's fault
    ABANDONED = "abandoned"  # the client left


class Snapshot(BaseModel):
    """What one process counted so far, as it is handed to the others of its pod."""

    model_config = ConfigDict(frozen=True)

    pid: int
    load: LoadReport
    outcomes: Mapping[Outcome, int]
    latency_sum: float
    batches: int
    busy: tuple[float, ...]  # seconds by engine thread
    trouble: str | None  # why its engine scores nothing at present
    alive: bool  # whether it may get over that
    cache_available: bool
    cache_errors: Mapping[str, int]


class ModelStats(BaseModel):
    """A model, and what a batch of it costs: `fixed_ms + tokens * token_us / 1000` milliseconds, padding included."""

    name: str
    backend: str
    precision: str
    fingerprint: str
    fixed_ms: float | None
    token_us: float | None
    batch_tokens: int  # padded tokens from which on a larger batch is not worth while


class Stats(BaseModel):
    """`GET /stats`: totals since the process started, for people. Percentiles in seconds; null: nothing known.

    The costs of the models are those that the answering process has measured.
    """

    samples: int
    p50: float | None
    p95: float | None
    p99: float | None
    cache_hits: int
    cache_misses: int
    hit_rate: float | None
    models: Sequence[ModelStats]


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

    def snapshot(self) -> Snapshot:
        """Everything, read at this moment."""
        engine, cache = self.reranker.engine, self.reranker.cache
        return Snapshot(
            pid=os.getpid(),
            load=self._load(),
            outcomes=dict(self.requests),
            latency_sum=self.latency_sum,
            batches=engine.work.batches,
            busy=tuple(engine.work.busy),
            trouble=engine.trouble,
            alive=engine.alive,
            cache_available=cache.available,
            cache_errors={
                "lookup": cache.trouble.lookups_failed,
                "store": cache.trouble.stores_failed,
                "drop": cache.trouble.stores_dropped,
            },
        )

    def models(self) -> Sequence[ModelStats]:
        """The models, best first."""
        return [
            _model(name, ranker, self.reranker.engine.costs[ranker]) for name, ranker in self.reranker.rankers.items()
        ]

    def _load(self) -> LoadReport:
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


def _model(name: str, ranker: Ranker, cost: Cost) -> ModelStats:
    return ModelStats(
        name=name,
        backend=ranker.variant.backend,
        precision=ranker.variant.precision,
        fingerprint=ranker.fingerprint,
        fixed_ms=None if cost.fixed is None else cost.fixed * 1e3,
        token_us=None if cost.per_token is None else cost.per_token * 1e6,
        batch_tokens=cost.budget,
    )


def stats(snapshots: Sequence[Snapshot], models: Sequence[ModelStats]) -> Stats:
    """The view for people."""
    load = merged([snapshot.load for snapshot in snapshots])
    latency = Histogram(load.latency)
    pairs = load.pairs.hits + load.pairs.misses
    return Stats(
        samples=latency.total,
        p50=latency.quantile(0.5),
        p95=latency.quantile(0.95),
        p99=latency.quantile(0.99),
        cache_hits=load.pairs.hits,
        cache_misses=load.pairs.misses,
        hit_rate=load.pairs.hits / pairs if pairs else None,
        models=models,
    )


class Exposition(Collector):
    """Prometheus' view of the processes of a pod, by their numbers.

    Where there are several, each series is one process' own and says so in the label `worker`: when that process
    restarts, its counters begin again at zero, which Prometheus understands; a sum of counters would only shrink, and
    seem to have grown from zero.
    """

    def __init__(self, snapshots: Mapping[int, Snapshot], several: bool, reranker: Reranker) -> None:
        """`several`: whether there are more, now and then."""
        self._snapshots = snapshots
        self._several = several
        self._reranker = reranker

    def collect(self) -> Iterator[Metric]:
        """The metric families."""
        if self._several:
            yield from _by_worker({number: _families(one) for number, one in self._snapshots.items()})
        else:
            (snapshot,) = self._snapshots.values()
            yield from _families(snapshot)
            own = CollectorRegistry()
            GCCollector(own)
            yield from own.collect()
        yield self._models()
        yield from PlatformCollector(None).collect()

    def _models(self) -> Metric:
        models = InfoMetricFamily("ragservice_model", "The models, best first", labels=["rank"])
        for rank, (name, ranker) in enumerate(self._reranker.rankers.items()):
            told = {
                "name": name,
                "kind": ranker.manifest.recipe.kind,
                "backend": ranker.variant.backend,
                "precision": ranker.variant.precision,
                "fingerprint": ranker.fingerprint,
            }
            models.add_metric([str(rank)], told)
        return models


def _by_worker(families: Mapping[int, Iterable[Metric]]) -> Iterable[Metric]:
    """The same families of several processes as one each."""
    found: dict[str, Metric] = {}
    for number, own in families.items():
        for family in own:
            whole = found.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            for sample in family.samples:
                whole.samples.append(sample._replace(labels={**sample.labels, "worker": str(number)}))
    return found.values()


def _families(snapshot: Snapshot) -> Iterator[Metric]:
    yield from _requests(snapshot)
    yield from _cache(snapshot)
    yield from _engine(snapshot)
    yield from ProcessCollector(pid=lambda: snapshot.pid, registry=None).collect()


def _requests(snapshot: Snapshot) -> Iterator[Metric]:
    yield _counter("ragservice_requests", "Rerank requests by how they ended", "outcome", snapshot.outcomes)
    yield GaugeMetricFamily(
        "ragservice_requests_in_flight", "Rerank requests without an answer yet", value=snapshot.load.in_flight
    )
    below, buckets = 0, []
    for bound, count in zip([*map(str, BOUNDS), "+Inf"], snapshot.load.latency, strict=True):
        below += count
        buckets.append((bound, float(below)))
    yield HistogramMetricFamily(
        "ragservice_request_duration_seconds",
        "Answered rerank requests, from arrival to the last byte",
        buckets=buckets,
        sum_value=snapshot.latency_sum,
    )


def _cache(snapshot: Snapshot) -> Iterator[Metric]:
    yield _counter(
        "ragservice_cache_pairs",
        "Pairs of answered requests by where their score came from",
        "result",
        {"hit": snapshot.load.pairs.hits, "miss": snapshot.load.pairs.misses},
    )
    yield GaugeMetricFamily(
        "ragservice_cache_available",
        "1 while the cache is asked; 0 while its breaker is open, or none is configured",
        value=snapshot.cache_available,
    )
    yield _counter(
        "ragservice_cache_errors",
        "Trips to the cache that failed, and requests whose scores were not written",
        "operation",
        snapshot.cache_errors,
    )


def _engine(snapshot: Snapshot) -> Iterator[Metric]:
    load = snapshot.load
    yield GaugeMetricFamily("ragservice_engine_up", "1 while every engine thread works", value=snapshot.trouble is None)
    yield GaugeMetricFamily(
        "ragservice_engine_queued_tokens", "Tokens that wait for an engine thread", value=load.queued_tokens
    )
    yield _counter(
        "ragservice_engine_tokens",
        "Tokens of pairs without a cached score: offered on arrival, scored when done",
        "stage",
        {"offered": load.tokens.offered, "scored": load.tokens.scored},
    )
    yield CounterMetricFamily("ragservice_engine_batches", "Batches computed", value=snapshot.batches)
    yield _counter(
        "ragservice_engine_busy_seconds",
        "Time that an engine thread spent computing",
        "thread",
        {str(number): busy for number, busy in enumerate(snapshot.busy)},
    )


def _counter(name: str, text: str, label: str, values: Mapping[str, float] | Mapping[Outcome, int]) -> Metric:
    family = CounterMetricFamily(name, text, labels=[label])
    for value, count in values.items():
        family.add_metric([str(value)], count)
    return family
