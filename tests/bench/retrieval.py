"""What a reranker is judged with: candidates by BM25, and nDCG. Pure."""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

_WORD = re.compile(r"[a-z0-9]+")

K1, B = 0.9, 0.4  # as Anserini's, so that figures can be compared


class Bm25:
    """An index of documents: Okapi BM25 with Lucene's idf, words as they stand in lower case, no stop words."""

    def __init__(self, documents: Sequence[str], k1: float = K1, b: float = B) -> None:
        counts = [Counter(_WORD.findall(document.lower())) for document in documents]
        mean = sum(count.total() for count in counts) / len(counts)
        self._weights: dict[str, dict[int, float]] = defaultdict(dict)
        for number, count in enumerate(counts):
            long = k1 * (1 - b + b * count.total() / mean)
            for word, times in count.items():
                self._weights[word][number] = times / (times + long)
        for found in self._weights.values():
            rarity = math.log(1 + (len(counts) - len(found) + 0.5) / (len(found) + 0.5))
            for number in found:
                found[number] *= rarity

    def search(self, query: str, best: int) -> list[int]:
        """Numbers of the best documents, best first; of equal ones the first. Documents without a word are left out."""
        scores: dict[int, float] = defaultdict(float)
        for word in _WORD.findall(query.lower()):
            for number, weight in self._weights.get(word, {}).items():
                scores[number] += weight
        return sorted(scores, key=lambda number: (-scores[number], number))[:best]


def ndcg(ranked: Sequence[int], gains: Mapping[int, float], depth: int = 10) -> float:
    """Normalised discounted cumulative gain (Järvelin and Kekäläinen 2002, discount log2 of rank + 1), linear gains.

    `gains`: of every document that is relevant to the query, found or not. 0 where none is.
    """
    best = _dcg(sorted(gains.values(), reverse=True)[:depth])
    return _dcg([gains.get(number, 0.0) for number in ranked[:depth]]) / best if best else 0.0


def _dcg(gains: Sequence[float]) -> float:
    return sum(gain / math.log2(place + 2) for place, gain in enumerate(gains))
