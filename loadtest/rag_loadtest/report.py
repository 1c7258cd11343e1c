"""What people and machines read of a load check: live lines, a table, JSON. Pure."""

from collections.abc import Sequence
from decimal import Decimal
from itertools import takewhile

from rag_loadtest.answers import Outcome, Sample
from rag_loadtest.target import Objective
from rag_loadtest.verdict import Measurement, Verdict, milliseconds, percent, percentile
from rag_service.contract.duration import Duration, text
from rag_service.contract.model import Shape

LIVE_WINDOW = 10.0


class Settings(Shape):
    """What was asked for."""

    service: str
    url: str
    users: int
    warm_up: Duration
    duration: Duration
    pace: Duration | None
    distinct_queries: int
    seed: int


class Report(Shape):
    """Everything about one load check; `--json` writes it."""

    settings: Settings
    objective: Objective
    measurement: Measurement
    verdict: Verdict


def table(report: Report) -> str:
    """The report for people."""
    settings, objective, measured = report.settings, report.objective, report.measurement
    latency = measured.latency_seconds
    p50, p95, p99 = (milliseconds(value) for value in (latency.p50, latency.p95, latency.p99)) if latency else "---"
    hit_rate = "-" if measured.hit_rate is None else f"{measured.hit_rate:.1%}".replace("%", " %")
    generator = measured.generator
    rows = [
        ("", "measured", "SLO"),
        ("p50", p50, ""),
        ("p95", p95, f"at most {milliseconds(objective.p95.total_seconds())}"),
        ("p99", p99, ""),
        ("availability", percent(measured.availability), f"at least {percent(objective.availability)}"),
        ("requests", str(measured.requests), f"{measured.rejected} rejected, {measured.failed} failed"),
        ("rate", f"{measured.answered_per_second:.1f}/s", "answered"),
        ("hit rate", hit_rate, "of (query, document) pairs"),
        ("generator", milliseconds(generator.lag_p95_seconds), f"late (p95), {generator.cpu_share:.0%} of a core"),
    ]
    load = f"{settings.users} users, each with one request in flight"
    if settings.pace:
        load = f"{settings.users} users, each asking every {text(settings.pace)}"
    return "\n".join(
        [
            f"Load check of {settings.service} at {settings.url}",
            f"{load}, for {text(settings.duration)} after {text(settings.warm_up)} of warm-up",
            f"{objective.request.documents} documents of about {objective.request.tokens} tokens a request, seed "
            f"{settings.seed}",
            "",
            *(f"  {name:<13}{value:>12}   {note}".rstrip() for name, value, note in rows),
            "",
            f"{report.verdict.result.upper()}: {report.verdict.reason}",
        ]
    )


def live_line(elapsed: float, samples: Sequence[Sample], settings: Settings, replicas: str) -> str:
    """How it went in the last seconds before `elapsed`; `samples` in the order in which they ended."""
    recent = list(takewhile(lambda sample: sample.start + sample.latency > elapsed - LIVE_WINDOW, reversed(samples)))
    answered = sorted(sample.latency for sample in recent if sample.outcome is Outcome.ANSWERED)
    pairs = sum(sample.hits + sample.misses for sample in recent)
    parts = [
        f"{elapsed:5.0f} s",
        "warm-up" if elapsed < settings.warm_up.total_seconds() else "measure",
        f"{settings.users} users",
        f"{len(answered) / min(LIVE_WINDOW, elapsed):.1f}/s" if elapsed else "-/s",
        f"p95 {milliseconds(percentile(answered, 95))}" if answered else "p95 -",
        f"hit rate {percent(Decimal(100 * sum(sample.hits for sample in recent) // pairs))}" if pairs else "hit rate -",
        *(
            f"{count} {outcome}"
            for outcome in (Outcome.REJECTED, Outcome.FAILED)
            if (count := sum(sample.outcome is outcome for sample in recent))
        ),
        replicas,
    ]
    return "  ".join(part for part in parts if part)
