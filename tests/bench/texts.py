"""What is asked: unique queries, and documents of a known number of tokens. Reproducible from a seed."""

import itertools
import json
import math
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

QUERY = 8  # tokens
SHORTEST, LONGEST = 30, 480  # tokens of a document, where lengths are mixed


class Shape(NamedTuple):
    """Documents in a request, and tokens of each; None: mixed lengths."""

    documents: int = 10
    tokens: int | None = 60


REFERENCE = Shape()
MIXED = Shape(tokens=None)
HEADLINE = Shape(documents=3, tokens=12)  # one sentence each


class Asked(NamedTuple):
    """One request's texts."""

    query: str
    documents: Sequence[str]


class Texts:
    """Texts of words that are one token each in a model's vocabulary."""

    def __init__(self, tokenizer: Path) -> None:
        """`tokenizer`: a `tokenizer.json` of the kind WordPiece."""
        vocabulary = json.loads(tokenizer.read_text(encoding="utf-8"))["model"]["vocab"]
        # BERT's vocabulary begins with reserved names and single letters; its common words follow.
        words = [word for word in vocabulary if word.isascii() and word.isalpha() and word.islower()]
        self._words = [word for word in words if len(word) > 2][:5000] or words

    def requests(self, shape: Shape, seed: str) -> Iterator[Asked]:
        """Requests without end, no query twice; other seeds give other queries."""
        draw = random.Random(seed)
        for number in itertools.count():
            query = " ".join([*self._some(draw, QUERY), *self._numeral(f"{seed}/{number}")])
            documents = [
                " ".join(self._some(draw, _mixed(draw) if shape.tokens is None else shape.tokens))
                for _ in range(shape.documents)
            ]
            yield Asked(query, documents)

    def _some(self, draw: random.Random, number: int) -> list[str]:
        return draw.choices(self._words, k=number)

    def _numeral(self, name: str) -> list[str]:
        """Three words that no other name has, but for chance."""
        return self._some(random.Random(name), 3)


def _mixed(draw: random.Random) -> int:
    """Short documents are more frequent than long ones: each doubling of the length is as likely as the next."""
    return round(math.exp(draw.uniform(math.log(SHORTEST), math.log(LONGEST))))
