"""Whether an engine thread is stuck in its batch. Pure: time and the share of a CPU come in as arguments."""

from collections.abc import Sequence
from dataclasses import dataclass

# A batch is stuck that takes so many times longer than expected, but never before it took `LEAST` seconds: a readiness
# probe has to fail within two. What was never measured may be compiled first, or read from a slow disk.
TIMES = 10.0
LEAST = 1.5
UNMEASURED = 60.0
# Seconds for which a thread may be stuck before the process is given up.
HOPELESS = 10.0
# Seconds between two looks, and how much time one look can tell of at most: a process that was stopped as a whole, with
# its machine for example, sees one long pause, in which nothing could have been computed.
PERIOD = 0.1
LONGEST = 2.5 * PERIOD
# Seconds after which it is worth measuring whether the process gets a CPU at all.
SUSPICIOUS = 0.5


@dataclass(frozen=True, eq=False)
class Doing:
    """A batch in hand: in words, and how many seconds it should take where that is known."""

    words: str
    expected: float | None

    @property
    def limit(self) -> float:
        """Seconds after which it is stuck."""
        return UNMEASURED if self.expected is None else max(LEAST, TIMES * self.expected)


class Watchdog:
    """Adds up, for each thread, the time in which its batch could have been computed.

    That is not the time that passes. In a pod limited to a part of a CPU all threads rest for most of it, on a crowded
    node too, and what is only slow must neither leave the Service nor be restarted: the others would get its load as
    well. So time counts by the share of a CPU that a thread of this process would get. One that hangs without
    computing leaves its CPU to others, and shows at once.
    """

    def __init__(self, threads: int) -> None:
        self._doing: list[Doing | None] = [None] * threads
        self._seconds = [0.0] * threads

    def look(self, doing: Sequence[Doing | None], elapsed: float, share: float = 1.0) -> None:
        """`elapsed` seconds have passed since the last look; `share` of a CPU, from 0 to 1, was there for a thread."""
        passed = min(elapsed, LONGEST) * share
        for thread, (before, now) in enumerate(zip(self._doing, doing, strict=True)):
            self._seconds[thread] = self._seconds[thread] + passed if now is not None and now is before else 0.0
        self._doing = list(doing)

    @property
    def suspicious(self) -> bool:
        """Whether a batch takes so long that it matters how much of a CPU there is."""
        return max(self._seconds) >= SUSPICIOUS

    @property
    def stuck(self) -> tuple[Doing, float] | None:
        """The batch that is stuck for the longest time, and for how many seconds."""
        over = [
            (seconds - doing.limit, doing)
            for doing, seconds in zip(self._doing, self._seconds, strict=True)
            if doing and seconds > doing.limit
        ]
        seconds, doing = max(over, key=lambda one: one[0], default=(0.0, None))
        return (doing, seconds) if doing else None
