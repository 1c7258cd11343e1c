"""What a batch costs, learned from those that ran, and how large a batch is worth while. Pure: no clock."""

from dataclasses import dataclass, field

# Padded tokens in one batch. The bounds hold whatever was measured: below, a batch is no batch; above, the others wait
# too long for it, and what a CPU keeps close to its cores is too small for it.
FEWEST, MOST = 128, 2048
# Share of a batch's time that its fixed part may take.
WORN_OFF = 1 / 12
# Before the first measurement, and as long as all batches have one size: the fixed part takes as long as so many
# tokens.
FIXED = 32.0

# Batches after which 1/e of the old knowledge is left.
MEMORY = 100
# A batch counts as at most so many times longer than expected. One that waited for its CPU for ten times as long as it
# computed then moves the estimate by little; a speed that really fell to a tenth is known after some 250. There is no
# bound below: nothing makes a batch seem shorter than it is.
SURPRISE = 2.0
# The prior: one imagined batch of each of these sizes.
_IMAGINED = (64, 1024)
_TICK = 1e-6  # seconds; what takes less was not measured


@dataclass
class Cost:
    """`seconds = fixed + per_token · tokens`, where `tokens` count padding.

    Fitted by least squares over all batches so far, each

    - relative to its size, since what disturbs a long batch disturbs it for longer (weight 1/(tokens + FIXED)²),
    - by its age: after `MEMORY` more batches, 1/e of its weight is left (exponential forgetting),
    - and after its surprise was bounded, so that no outlier decides.

    Where all batches have one size, only `fixed + per_token · size` is known: a weak prior, two imagined batches that
    lie on a line with `fixed = FIXED · per_token` through what was measured, decides the rest.
    """

    fixed: float | None = None
    per_token: float | None = None
    _moments: list[float] = field(default_factory=lambda: [0.0] * 5)
    """Weighted sums of 1, tokens, tokens², seconds and tokens · seconds."""

    def seconds(self, tokens: float) -> float | None:
        """How long a batch of so many tokens should take; None before the first measurement."""
        if self.fixed is None or self.per_token is None:
            return None
        return self.fixed + self.per_token * tokens

    @property
    def budget(self) -> int:
        """The tokens of a batch whose fixed part is worn off.

        The fixed part takes the share `WORN_OFF` of a batch of `fixed / per_token · (1 / WORN_OFF - 1)` tokens. A
        larger one would save less than that share, and each of its requests would wait for the others for longer.
        """
        ratio = FIXED if self.fixed is None or not self.per_token else self.fixed / self.per_token
        return round(min(max(ratio * (1 / WORN_OFF - 1), FEWEST), MOST))

    def learn(self, tokens: int, seconds: float) -> None:
        """A batch of so many tokens took so long."""
        measured = max(seconds, _TICK)
        bounded = min(measured, SURPRISE * (self.seconds(tokens) or measured))
        weight = (tokens + FIXED) ** -2
        new = (1.0, tokens, tokens * tokens, bounded, tokens * bounded)
        kept = 1 - 1 / MEMORY
        self._moments = [kept * old + weight * one for old, one in zip(self._moments, new, strict=True)]
        self._fit()

    def _fit(self) -> None:
        one, n, nn, t, nt = self._moments
        # The scale of the prior: the best line whose fixed part is `FIXED` tokens.
        scale = (nt + FIXED * t) / (nn + 2 * FIXED * n + FIXED * FIXED * one)
        for tokens in _IMAGINED:
            imagined = scale * (tokens + FIXED)
            weight = (tokens + FIXED) ** -2
            one += weight
            n += weight * tokens
            nn += weight * tokens * tokens
            t += weight * imagined
            nt += weight * tokens * imagined
        slope = (one * nt - n * t) / (one * nn - n * n)
        # A token always costs something, and the fixed part is never negative.
        slope = max(slope, scale / 100)
        fixed = (t - slope * n) / one
        self.fixed, self.per_token = (fixed, slope) if fixed > 0 else (0.0, nt / nn)
