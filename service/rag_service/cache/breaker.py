"""When to stop asking a server that does not answer, and when to ask again. Pure: chance comes in as an argument."""

FAILURES = 3
FIRST_PAUSE, LONGEST_PAUSE = 0.25, 2.0  # seconds


class Breaker:
    """Closed: the server is asked. Open: nobody asks it but a probe, after longer and longer pauses."""

    def __init__(self) -> None:
        self._failures = 0

    @property
    def open(self) -> bool:
        """Whether the server has failed too often in a row."""
        return self._failures >= FAILURES

    def succeeded(self) -> None:
        """The server answered."""
        self._failures = 0

    def failed(self) -> None:
        """The server did not answer, or not in time."""
        self._failures += 1

    def pause(self, chance: float) -> float:
        """Seconds until the next probe; `chance` in [0, 1) spreads the probes of many processes over half of it."""
        doublings = min(max(0, self._failures - FAILURES), 10)
        return min(FIRST_PAUSE * 2.0**doublings, LONGEST_PAUSE) * (0.5 + chance / 2)
