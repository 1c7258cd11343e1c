"""Pure: what the pods' load reports say about demand, capacity and latency.

A report holds counters, so a rate is the difference of two reports of the same process over the difference of
their `uptime`. Everything that is not such a difference is set aside: a pod's first report, a restarted process,
counters that run backwards. A pod set aside counts as not observed, and the plan never shrinks on partial knowledge.

When pods join, the load spreads anew, and what was measured before says nothing about now: an old pod's overload plus
the new pods' share would count the same work twice. So all windows begin again then. A pod that missed a probe and
comes back is not new: busy pods do that, and an overload must not hide behind it.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from rag_service.contract.histogram import Histogram
from rag_service.contract.load import LoadReport

# Seconds over which demand is averaged: two scrapes of five seconds, with room for jitter.
RATE_WINDOW = 12.0
# Seconds over which latencies are merged.
LATENCY_WINDOW = 30.0
# Two reports that are further apart than this say too little about now.
MAX_GAP = 60.0

# A pod's `uptime` must advance as the operator's clock does; scrapes are late by a few seconds at the most.
CLOCK_TOLERANCE = 0.25
CLOCK_SLACK = 3.0
# A thread cannot be busy for longer than there was time; batches are counted when they end.
BUSY_TOLERANCE = 1.25
BUSY_SLACK = 5.0

# Windows begin again when more than this share of the ready pods is new.
SPREAD = 0.1

# Busy seconds of evidence after which 1/e of the old speed is left.
EVIDENCE = 20.0
# Power of utilisation by which evidence weighs: a pod at 35 % takes hours to outweigh one that was saturated.
WEIGHT = 6


@dataclass(frozen=True)
class Sample:
    """One load report, and when it was read (seconds on the operator's monotonic clock)."""

    at: float
    report: LoadReport


@dataclass(frozen=True)
class Speed:
    """Tokens that one engine thread reads in a busy second: a mean that forgets by evidence, not by time.

    A pod limited to a fraction of a core is throttled only when it is busy, so a half-idle one looks faster than it
    can be for long. Evidence therefore weighs by a high power of utilisation: what was learned under load outlives
    idle hours, and the little that an idle pod shows counts only until there is better.
    """

    tokens: float = 0.0
    busy: float = 0.0

    @property
    def value(self) -> float | None:
        """Tokens per busy second and thread; None when nothing was ever scored."""
        return self.tokens / self.busy if self.tokens > 0 and self.busy > 0 else None

    def learn(self, tokens: float, busy: float) -> "Speed":
        """The mean with weighted evidence added to it."""
        if busy <= 0 or tokens <= 0:
            return self
        kept = math.exp(-busy / EVIDENCE)
        return Speed(self.tokens * kept + tokens, self.busy * kept + busy)


@dataclass(frozen=True)
class Memory:
    """What is kept between estimates: the recent samples of each pod, oldest first, and the learned speed."""

    samples: Mapping[str, tuple[Sample, ...]] = field(default_factory=dict)
    speed: Speed = Speed()
    ready: frozenset[str] = frozenset()
    served: frozenset[str] = frozenset()
    """The pods that run and are ready now, or were: what comes back is not new."""


@dataclass(frozen=True)
class Estimate:
    """The load of a service, over all its pods.

    A pod that does not answer is taken for as busy as the others; a new one adds nothing until its second report.
    """

    pods: int
    """Ready pods."""
    reporting: int
    """Ready pods that told their load."""
    observed: int
    """Ready pods whose load is known: those of which there are two reports that go together."""
    offered: float = 0.0
    """Tokens a second that arrived and were not in the cache."""
    backlog: float = 0.0
    """Tokens that wait."""
    capacity: float | None = None
    """Tokens a second that a pod can score; None until it has scored some."""
    utilization: float | None = None
    """Busy share of all engine threads."""
    p95: float | None = None
    """Seconds; over answered requests."""
    answers: int = 0
    """Number of answers that p95 rests on."""
    hit_rate: float | None = None
    """Share of (query, document) pairs whose score was in the cache."""
    requests_per_second: float = 0.0
    """Answered requests."""


@dataclass(frozen=True)
class _Change:
    """Two reports of the same process."""

    old: LoadReport
    new: LoadReport

    @property
    def seconds(self) -> float:
        return self.new.uptime - self.old.uptime

    @property
    def busy(self) -> float:
        return self.new.busy - self.old.busy

    @property
    def utilization(self) -> float:
        return min(1.0, self.busy / (self.seconds * self.new.threads))

    @property
    def offered(self) -> int:
        return self.new.tokens.offered - self.old.tokens.offered

    @property
    def scored(self) -> int:
        return self.new.tokens.scored - self.old.tokens.scored

    @property
    def answered(self) -> int:
        return self.new.requests.answered - self.old.requests.answered

    @property
    def hits(self) -> int:
        return self.new.pairs.hits - self.old.pairs.hits

    @property
    def misses(self) -> int:
        return self.new.pairs.misses - self.old.pairs.misses

    @property
    def latency(self) -> Histogram:
        return Histogram([new - old for old, new in zip(self.old.latency, self.new.latency, strict=True)])

    def plausible(self, elapsed: float) -> bool:
        """Whether this can be what happened in `elapsed` seconds of the operator's clock."""
        counters = (
            self.offered,
            self.scored,
            self.answered,
            self.new.requests.rejected - self.old.requests.rejected,
            self.new.requests.failed - self.old.requests.failed,
            self.hits,
            self.misses,
            *(new - old for old, new in zip(self.old.latency, self.new.latency, strict=True)),
        )
        return (
            math.isfinite(self.busy)
            and self.seconds > 0
            and abs(self.seconds - elapsed) <= CLOCK_SLACK + CLOCK_TOLERANCE * elapsed
            and 0 <= self.busy <= (self.seconds * BUSY_TOLERANCE + BUSY_SLACK) * self.new.threads
            and min(counters) >= 0
        )


def remember(memory: Memory, scraped: Mapping[str, Sample | None], ready: Collection[str]) -> Memory:
    """The memory after a round of scraping.

    `scraped` names every pod that runs, with None where there was no answer; others are forgotten. `ready` names those
    that clients reach.
    """
    samples = {pod: _track(memory.samples.get(pod, ()), sample) for pod, sample in scraped.items()}
    fresh = [_change(samples[pod][-2:]) for pod, sample in scraped.items() if _observed(samples[pod], sample)]
    weights = [change.utilization**WEIGHT for change in fresh]
    speed = memory.speed.learn(
        tokens=sum(weight * change.scored for weight, change in zip(weights, fresh, strict=True)),
        busy=sum(weight * change.busy for weight, change in zip(weights, fresh, strict=True)),
    )
    if len(set(ready) - memory.served) > SPREAD * len(ready):
        samples = {pod: track[-1:] for pod, track in samples.items()}
    return Memory(samples, speed, frozenset(ready), memory.served.intersection(scraped).union(ready))


def estimate(memory: Memory, scraped: Mapping[str, Sample | None]) -> Estimate:
    """The load as it is after `memory` took in `scraped`."""
    ready = memory.ready
    silent = sum(scraped.get(pod) is None for pod in ready)
    seen = {pod for pod, sample in scraped.items() if _observed(memory.samples.get(pod, ()), sample)}
    observed = len(ready & seen)
    if not observed:
        return Estimate(len(ready), len(ready) - silent, 0, capacity=memory.speed.value)
    changes = [_change(_recent(memory.samples[pod], RATE_WINDOW)) for pod in sorted(seen)]
    latency = Histogram.merged(_change(_recent(memory.samples[pod], LATENCY_WINDOW)).latency for pod in seen)
    threads = sum(change.new.threads for change in changes) / len(changes)
    hits, misses = sum(change.hits for change in changes), sum(change.misses for change in changes)
    unseen = (observed + silent) / observed
    return Estimate(
        pods=len(ready),
        reporting=len(ready) - silent,
        observed=observed,
        offered=unseen * sum(change.offered / change.seconds for change in changes),
        backlog=unseen * sum(change.new.queued_tokens for change in changes),
        capacity=memory.speed.value and memory.speed.value * threads,
        utilization=sum(change.utilization for change in changes) / len(changes),
        p95=latency.quantile(0.95),
        answers=latency.total,
        hit_rate=hits / (hits + misses) if hits + misses else None,
        requests_per_second=unseen * sum(change.answered / change.seconds for change in changes),
    )


def _track(samples: tuple[Sample, ...], new: Sample | None) -> tuple[Sample, ...]:
    """The samples of one pod with a new one, if it continues them. What cannot be true is not built upon either."""
    if new is None:
        return samples
    if not samples or samples[-1].report.incarnation != new.report.incarnation:
        return (new,)
    elapsed = new.at - samples[-1].at
    if elapsed > MAX_GAP:
        return (new,)
    if not _Change(samples[-1].report, new.report).plausible(elapsed):
        return ()
    return _recent((*samples, new), LATENCY_WINDOW)


def _observed(samples: tuple[Sample, ...], scraped: Sample | None) -> bool:
    """Whether this round's sample continues an earlier one."""
    return scraped is not None and len(samples) > 1 and samples[-1] is scraped


def _recent(samples: tuple[Sample, ...], window: float) -> tuple[Sample, ...]:
    """The samples that are not older than `window`, and always the last two."""
    since = samples[-1].at - window
    return (*(sample for sample in samples[:-2] if sample.at >= since), *samples[-2:])


def _change(samples: tuple[Sample, ...]) -> _Change:
    return _Change(samples[0].report, samples[-1].report)
