"""Requests to try a model on: questions of bank customers, and documents of mixed lengths made of them. Pure.

Quantising learns its scales from one half of the questions; what comes out is judged on the other.
"""

import random
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

TEXTS = Path(__file__).with_name("calibration.txt")  # see CALIBRATION.md
# Questions in one document: to learn from up to 280 tokens, to rank up to 110, with a mean of 40.
_LEARNED = (1, 1, 2, 4, 8, 14, 20)
_RANKED = (1, 1, 2, 4, 8)

Half = Literal["learn", "judge"]


class Request(NamedTuple):
    """A query and the documents to rank by it."""

    query: str
    documents: Sequence[str]


@cache
def questions(half: Half) -> tuple[str, ...]:
    """Half of the questions; the halves have none in common."""
    return tuple(TEXTS.read_text(encoding="utf-8").splitlines()[half == "judge" :: 2])


def requests(half: Half, queries: int, documents: int, seed: int = 0) -> list[Request]:
    """Requests with so many documents each, the same for the same arguments; no query is part of a document.

    The documents of a request are those of all that share most with its query, as a search would find them: to tell
    them apart is harder than to tell any from any, and closer to what a reranker is asked.
    Raises ValueError when there are not so many queries.
    """
    draw = random.Random(seed)  # noqa: S311 (texts to measure with, no secret)
    found = draw.sample(questions(half), len(questions(half)))
    asked, rest = found[:queries], found[queries:]
    if len(asked) < queries or len(rest) < max(_RANKED):
        raise ValueError(f"{queries} queries are too many: there are {len(found)} questions")
    pool = [_document(rest, _RANKED, draw) for _ in range(4 * documents)]
    words = [_words(text) for text in pool]
    made = []
    for query in asked:
        wanted = _words(query)
        # Words in common by the size of the document, or the longest would be found for every query.
        near = sorted(range(len(pool)), key=lambda number: -len(wanted & words[number]) / len(words[number]) ** 0.5)
        made.append(Request(query, [pool[number] for number in near[:documents]]))
    return made


def pairs(half: Half, number: int, seed: int = 0) -> list[tuple[str, str]]:
    """Queries with a document each, the same for the same arguments."""
    draw = random.Random(seed)  # noqa: S311
    found = questions(half)
    return [(draw.choice(found), _document(found, _LEARNED, draw)) for _ in range(number)]


def _document(found: Sequence[str], lengths: Sequence[int], draw: random.Random) -> str:
    return " ".join(draw.sample(found, draw.choice(lengths)))


def _words(text: str) -> frozenset[str]:
    return frozenset("".join(letter if letter.isalnum() else " " for letter in text.lower()).split())
