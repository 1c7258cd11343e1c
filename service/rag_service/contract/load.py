"""`GET /internal/load`: what one pod has done so far, for the operator's scaling decision.

Everything but the gauges is a counter that grows until the process restarts; then `incarnation` changes.
Rates come from two reports of the same incarnation over the difference of their `uptime`, so no clock of
another machine takes part.
"""

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt

from rag_service.contract.histogram import BOUNDS
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
