"""Figures: how measurements of several rounds become one number, and the file that holds them."""

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple


class Figure(NamedTuple):
    """A number over rounds."""

    median: float
    least: float
    most: float


def over_rounds(values: Sequence[float]) -> Figure:
    """Median and range. Raises ValueError when there are none."""
    if not values:
        raise ValueError("nothing was measured")
    return Figure(statistics.median(values), min(values), max(values))


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Figure:
    """Ours divided by theirs, round by round: what disturbs a whole round disturbs both."""
    return over_rounds([a / b for a, b in zip(ours, theirs, strict=True)])


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of the values does not exceed (nearest rank).

    Raises ValueError when there are none.
    """
    if not values:
        raise ValueError("nothing was measured")
    ordered = sorted(values)
    rank = max(1, -int(-(share * len(ordered)) // 1))
    return ordered[rank - 1]


def write(path: Path, figures: Mapping[str, float], machine: Mapping[str, Any]) -> None:
    """Write `{"figures": …, "machine": …}`, the figures with four digits that count."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rounded = {name: float(f"{value:.4g}") for name, value in figures.items()}
    path.write_text(json.dumps({"figures": rounded, "machine": machine}, indent=2, ensure_ascii=False) + "\n")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown, its columns aligned: the first to the left, the others to the right."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]

    def line(row: Sequence[str]) -> str:
        first, *others = (
            cell.rjust(width) if at else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        return f"| {' | '.join((first, *others))} |"

    rule = f"|{'|'.join('-' * (width + 2) if not at else '-' * (width + 1) + ':' for at, width in enumerate(widths))}|"
    return "\n".join([line(head), rule, *map(line, rows)])
