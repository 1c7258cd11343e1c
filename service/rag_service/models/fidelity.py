"""How near one set of scores comes to another. Pure."""

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]

TOP = 10


def tau(reference: Scores, scores: Scores) -> float:
    """Kendall's tau-b between two scorings, mean over queries. Shapes: [queries, documents].

    A query whose documents all have one score in either scoring orders nothing, and counts as 0.
    """
    a, b = (np.sign(one[:, :, None] - one[:, None, :]) for one in (reference, scores))
    ordered = np.sqrt((a * a).sum((1, 2)) * (b * b).sum((1, 2)))
    return float(((a * b).sum((1, 2)) / np.where(ordered, ordered, 1)).mean())


def top10(reference: Scores, scores: Scores) -> float:
    """Share of the reference's ten best documents that are among the other's, mean over queries."""
    best = [np.argsort(-one, axis=1, kind="stable")[:, :TOP] for one in (reference, scores)]
    return float(np.mean([len(set(a) & set(b)) / len(a) for a, b in zip(*best, strict=True)]))


def delta(scores: Scores, again: Scores) -> float:
    """Largest difference between two scorings of the same pairs, in standard deviations of the first."""
    return float(np.abs(scores - again).max() / max(scores.std(), 1e-12))
