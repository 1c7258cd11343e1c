"""Whether an answer is one: a fast wrong answer is no answer."""

import math
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

from pydantic import TypeAdapter, ValidationError

from rag_service.contract.wire import Rank

_RANKS = TypeAdapter(list[Rank])


class Outcome(StrEnum):
    """How a request ended. A rejected one was refused on purpose, by status 429."""

    ANSWERED = "answered"
    REJECTED = "rejected"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Sample:
    """One request. Times in seconds; pairs are (query, document) pairs, where the answer told about the cache."""

    start: float
    """When it was meant to start, after the load began. Latency counts from here, so that a request that had to wait
    for a slow one before it shows that wait (no coordinated omission)."""
    latency: float
    """Until the last byte of the answer."""
    outcome: Outcome
    problem: str = ""
    hits: int = 0
    misses: int = 0


def judge(status: int, body: bytes, documents: int) -> tuple[Outcome, str]:
    """The outcome of an answer to a request with so many documents, and what is wrong with it, if anything is."""
    if status == 429:
        return Outcome.REJECTED, "status 429"
    problem = f"status {status}" if status != 200 else _fault(body, documents)
    return (Outcome.FAILED, problem) if problem else (Outcome.ANSWERED, "")


def _fault(body: bytes, documents: int) -> str:
    try:
        ranks = _RANKS.validate_json(body)
    except ValidationError:
        return "wrong answer: not a list of ranks"
    if sorted(rank.index for rank in ranks) != list(range(documents)):
        return "wrong answer: not one rank for each document"
    if not all(math.isfinite(rank.score) for rank in ranks):
        return "wrong answer: a score is not a number"
    if any(first.score < second.score for first, second in pairwise(ranks)):
        return "wrong answer: not sorted by score"
    return ""
