"""The cache of pair scores: a score depends on a model, a query and one document, so that is what is kept.

Rankings, top_n and return flags are never cached; every combination of known pairs is served.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol


class Score(NamedTuple):
    """A document's raw score, and whether the model had to leave out part of the document or of the query."""

    value: float
    cut: bool


@dataclass
class Trouble:
    """Counters of what went wrong with the cache. Requests are answered all the same."""

    lookups_failed: int = 0
    stores_failed: int = 0
    stores_dropped: int = 0


class Cache(Protocol):
    """Keeps raw scores by model fingerprint, query and document. Nothing here ever fails."""

    trouble: Trouble

    @property
    def available(self) -> bool:
        """Whether scores can be looked up at present."""

    async def start(self) -> None:
        """Begin work on the event loop that runs now."""

    async def stop(self) -> None:
        """Write what is still to be written, within bounded time."""

    async def lookup(self, fingerprint: str, query: str, documents: Sequence[str]) -> list[Score | None]:
        """The score of each document, None where it is unknown. Adds a bounded delay when the cache is away."""

    def store(self, fingerprint: str, query: str, scores: Mapping[str, Score]) -> None:
        """Keep scores by document, later: the caller does not wait for it."""


class NoCache:
    """Knows nothing and keeps nothing."""

    def __init__(self) -> None:
        self.trouble = Trouble()
        self.available = False

    async def start(self) -> None:
        """See `Cache`."""

    async def stop(self) -> None:
        """See `Cache`."""

    async def lookup(self, fingerprint: str, query: str, documents: Sequence[str]) -> list[Score | None]:  # noqa: ARG002
        """See `Cache`."""
        return [None] * len(documents)

    def store(self, fingerprint: str, query: str, scores: Mapping[str, Score]) -> None:
        """See `Cache`."""
