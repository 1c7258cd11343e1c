"""Latency histograms that add up: over workers, pods and time, which percentiles themselves never do."""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import pairwise

# Seconds; ten buckets a decade from 1 ms to 100 s. Between those, a percentile read from them is off by less than
# the width of a bucket, a factor of 10 ** 0.1.
BOUNDS: tuple[float, ...] = tuple(round(10 ** (exponent / 10), 6) for exponent in range(-30, 21))


class Histogram:
    """Counts of observations by bucket. `counts[i]` holds those in (BOUNDS[i-1], BOUNDS[i]]; the last, the rest."""

    def __init__(self, counts: Sequence[int] | None = None) -> None:
        self.counts = list(counts) if counts is not None else [0] * (len(BOUNDS) + 1)
        if len(self.counts) != len(BOUNDS) + 1:
            raise ValueError(f"a histogram has {len(BOUNDS) + 1} buckets, not {len(self.counts)}")

    def observe(self, seconds: float) -> None:
        """Count one observation."""
        self.counts[bisect_left(BOUNDS, seconds)] += 1

    @property
    def total(self) -> int:
        """Number of observations."""
        return sum(self.counts)

    def quantile(self, q: float) -> float | None:
        """The q-quantile in seconds (0 < q <= 1), linear within its bucket; None when nothing was observed.

        The estimate of Prometheus' `histogram_quantile`: beyond the last bound, the last bound is returned.
        """
        if not self.total:
            return None
        rank, seen = q * self.total, 0
        for (lower, upper), count in zip(pairwise((0.0, *BOUNDS)), self.counts, strict=False):
            if count and seen + count >= rank:
                return lower + (upper - lower) * (rank - seen) / count
            seen += count
        return BOUNDS[-1]

    @staticmethod
    def merged(histograms: Iterable["Histogram"]) -> "Histogram":
        """One histogram of all the observations."""
        rows = [histogram.counts for histogram in histograms]
        return Histogram([sum(column) for column in zip(*rows, strict=True)] if rows else None)
