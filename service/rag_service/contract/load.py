"""`GET /internal/load`: what one pod has done so far, for the operator's scaling decision.

Everything but the gauges is a counter that grows until the process restarts; then `incarnation` changes.
Rates come from two reports of the same incarnation over the difference of their `uptime`, so no clock of
another machine takes part.
"""

import hashlib
from collections.abc import Sequence

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt

from rag_service.contract.histogram import BOUNDS, Histogram
from rag_service.contract.model import Shape

PATH = "/internal/load"


class Requests(Shape):
    """Requests by how they ended. Requests that were the client's fault (4xx but 429) count nowhere."""

    answered: NonNegativeInt = 0
    rejected: NonNegativeInt = 0
    failed: NonNegativeInt = 0


class Pairs(Shape):
    """(query, document) pairs by where their score came from."""

    hits: NonNegativeInt = 0
    misses: NonNegativeInt = 0


class Tokens(Shape):
    """Work, in tokens that a model has to read. `offered` counts on arrival, after the cache; `scored` when done."""

    offered: NonNegativeInt = 0
    scored: NonNegativeInt = 0


class LoadReport(Shape):
    """One pod's counters and gauges."""

    incarnation: str = Field(min_length=1, description="changes when the process restarts and its counters with it")
    uptime: NonNegativeFloat = Field(description="seconds since the process started, from a monotonic clock")
    threads: PositiveInt = Field(description="engine threads that compute at the same time")
    busy: NonNegativeFloat = Field(description="seconds that engine threads spent computing, summed over threads")
    requests: Requests = Requests()
    pairs: Pairs = Pairs()
    tokens: Tokens = Tokens()
    queued_tokens: NonNegativeInt = Field(default=0, description="gauge: tokens that wait for an engine thread")
    in_flight: NonNegativeInt = Field(default=0, description="gauge: requests that have no answer yet")
    latency: tuple[NonNegativeInt, ...] = Field(
        min_length=len(BOUNDS) + 1,
        max_length=len(BOUNDS) + 1,
        description="answered requests by latency, arrival to last byte; bucket bounds as in `histogram.BOUNDS`",
    )


def merged(reports: Sequence[LoadReport]) -> LoadReport:
    """One report of several processes of a pod.

    Where one of them restarts, its counters run backwards; the incarnation, that of all together, then changes.
    `uptime` is that of the oldest, so that it advances whichever process is asked.
    """
    if len(reports) == 1:
        return reports[0]
    incarnations = " ".join(sorted(report.incarnation for report in reports))
    return LoadReport(
        incarnation=hashlib.blake2b(incarnations.encode(), digest_size=8).hexdigest(),
        uptime=max(report.uptime for report in reports),
        threads=sum(report.threads for report in reports),
        busy=sum(report.busy for report in reports),
        requests=Requests(
            answered=sum(report.requests.answered for report in reports),
            rejected=sum(report.requests.rejected for report in reports),
            failed=sum(report.requests.failed for report in reports),
        ),
        pairs=Pairs(hits=sum(one.pairs.hits for one in reports), misses=sum(one.pairs.misses for one in reports)),
        tokens=Tokens(
            offered=sum(report.tokens.offered for report in reports),
            scored=sum(report.tokens.scored for report in reports),
        ),
        queued_tokens=sum(report.queued_tokens for report in reports),
        in_flight=sum(report.in_flight for report in reports),
        latency=tuple(Histogram.merged(Histogram(report.latency) for report in reports).counts),
    )
