"""The operator's own metrics, for Prometheus. What there is per RAGService is read from the records when scraped."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from rag_operator.record import Records, Scaling
from rag_operator.scaling.estimate import Estimate

_LABELS = ("namespace", "name")


class _Gauge(NamedTuple):
    name: str
    help: str
    value: Callable[[Scaling, Estimate], float | None]


_GAUGES = (
    _Gauge("ragservice_required_replicas", "Replicas that the SLO needs, within the bounds", lambda s, _: s.required),
    _Gauge("ragservice_p95_seconds", "p95 latency of answered requests", lambda _, e: e.p95),
    _Gauge("ragservice_slo_p95_seconds", "The objective for p95 latency", lambda s, _: s.goal.slo_p95),
    _Gauge("ragservice_hit_ratio", "Share of (query, document) pairs from the cache", lambda _, e: e.hit_rate),
    _Gauge("ragservice_utilization_ratio", "Busy share of all engine threads", lambda _, e: e.utilization),
    _Gauge("ragservice_requests_per_second", "Answered requests", lambda _, e: e.requests_per_second),
    _Gauge("ragservice_offered_tokens_per_second", "Work that arrives, after the cache", lambda _, e: e.offered),
    _Gauge("ragservice_capacity_tokens_per_second", "Work that one pod can do", lambda _, e: e.capacity),
    _Gauge("ragservice_backlog_tokens", "Work that waits", lambda _, e: e.backlog),
    _Gauge("ragservice_pods", "Reranker pods that are ready", lambda _, e: e.pods),
    _Gauge("ragservice_observed_pods", "Ready reranker pods that told their load", lambda _, e: e.reporting),
)


class _Services(Collector):
    def __init__(self, records: Records) -> None:
        self._records = records

    def collect(self) -> Iterable[GaugeMetricFamily]:
        for gauge in _GAUGES:
            family = GaugeMetricFamily(gauge.name, gauge.help, labels=_LABELS)
            for key, record in self._records.items():
                scaling = record.scaling
                if scaling and scaling.estimate:
                    value = gauge.value(scaling, scaling.estimate)
                    family.add_metric(key, float("nan") if value is None else value)
            yield family


class Metrics:
    """The operator's metrics in a registry of their own."""

    def __init__(self, records: Records) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_Services(records))
        self.reconciles = Counter(
            "ragservice_operator_reconciles", "Reconciliations by result", ["result"], registry=self.registry
        )
        self.seconds = Histogram(
            "ragservice_operator_reconcile_seconds", "Duration of a reconciliation", registry=self.registry
        )
        for result in ("success", "error"):
            self.reconciles.labels(result)
