"""Which variant of a model serves on a host: what can be tried, and what follows from what was measured. Pure."""

from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from rag_service.contract.model import Shape
from rag_service.contract.settings import BackendName, FidelityGate, Precision
from rag_service.engine.backends import REFERENCE, Variant
from rag_service.models import ModelError, fidelity
from rag_service.models.manifest import Fidelity, Manifest

# The scores that others are compared with: of the first of these that runs.
REFERENCES = (REFERENCE, Variant("openvino", "fp32"), Variant("sentence-transformers", "fp32"))
LEVEL = 1.1  # speeds that differ by less are one speed to a trial: of those, the nearest to the reference serves
ERRORS = 2  # standard errors below a threshold that chance may explain: a trial sees a few queries only

Scores = tuple[tuple[float, ...], ...]
"""Of each query, one score a document."""


class Host(Shape):
    """What there is to run models."""

    installed: frozenset[BackendName]
    bf16: bool = Field(description="whether the CPU has instructions for it")
    gpu: bool
    cpu: str = Field(description="names CPUs on which the same code runs at the same speed")
    versions: Mapping[str, str] = Field(description="of the libraries that run models")


class Measurement(Shape):
    """What a trial found out about one variant."""

    scores: Scores
    again: Scores = Field(description="of the first queries, every pair in a batch of its own")
    speed: float = Field(gt=0, description="inputs a second on one thread")


class Row(Shape):
    """What is known of one variant."""

    variant: Variant
    speed: float | None = None
    tau: float | None = None
    top10: float | None = None
    ndcg_loss: float | None = None
    batch_delta: float | None = None
    fault: str | None = Field(default=None, description="why it may not serve; null: it may")


class Verdict(Shape):
    """What is known of every variant that was tried."""

    rows: Annotated[tuple[Row, ...], Field(min_length=1)]

    def best(self, allowed: Collection[Variant]) -> Variant | None:
        """The fastest of the allowed ones that may serve; None where none may."""
        passed = [row for row in self.rows if row.variant in allowed and row.fault is None]
        fastest = max((row.speed or 0 for row in passed), default=0)
        level = [row for row in passed if (row.speed or 0) >= fastest / LEVEL]
        return max(level, key=lambda row: (row.tau or 0, row.speed or 0)).variant if level else None


def table(verdict: Verdict, serves: Variant | None, refused: Sequence[Row] = ()) -> str:
    """For people: one line a variant, the fastest first, then those that were not tried."""
    lines = [f"{'variant':28} inputs/s    tau top-10    batch"]
    for row in sorted((*verdict.rows, *refused), key=lambda row: -(row.speed or 0)):
        figures = " ".join(
            f"{'-' if value is None else format(value, form):>{width}}"
            for value, form, width in (
                (row.speed, ".0f", 8),
                (row.tau, ".3f", 6),
                (row.top10, ".3f", 6),
                (row.batch_delta, ".6f", 8),
            )
        )
        lines.append(f"{row.variant!s:28} {figures}  {'serves' if row.variant == serves else row.fault or ''}")
    return "\n".join(line.rstrip() for line in lines)


def variants(manifest: Manifest, source: bool, host: Host, gate: FidelityGate) -> dict[Variant, str | None]:
    """Every variant that the libraries know for this model; None where it can be tried, else why not.

    `source`: whether the published files are there, which sentence-transformers reads.
    """
    known: dict[Variant, str | None] = {}
    for backend, precisions in _PRECISIONS.items():
        for precision in precisions:
            known[Variant(backend, precision)] = _obstacle(Variant(backend, precision), manifest, source, host, gate)
    return known


_PRECISIONS: Mapping[BackendName, Sequence[Precision]] = {
    "onnxruntime": ("fp32", "int8"),
    "openvino": ("fp32", "bf16", "int8"),
    "sentence-transformers": ("fp32", "bf16"),
}


def _obstacle(variant: Variant, manifest: Manifest, source: bool, host: Host, gate: FidelityGate) -> str | None:
    backend, precision = variant
    torch = backend == "sentence-transformers"
    if backend not in host.installed:
        return "is not installed"
    if torch and not source:
        return "the published files were not kept"
    if torch and manifest.graphs and not host.gpu:
        return "has no GPU here"
    graph = None if torch else manifest.graph(precision)
    if not torch and graph is None:
        return f"there is no {precision} graph"
    if precision == "bf16" and not (host.bf16 or (torch and host.gpu)):
        return "the CPU has no instructions for it"
    return _too_far(graph.fidelity, gate) if graph and graph.fidelity else None


def _too_far(found: Fidelity, gate: FidelityGate) -> str | None:
    """Why a graph that was judged when it was made may not serve."""
    if found.tau < gate.tau:
        return f"tau {found.tau:.3f} on {found.queries} queries when it was made"
    if found.top10 < gate.top10:
        return f"top-10 {found.top10:.3f} on {found.queries} queries when it was made"
    if found.batch_delta > gate.batch_delta:
        return "scores depended on the batch when it was made"
    return None


def wanted(
    known: Mapping[Variant, str | None], backend: BackendName | Literal["auto"], precision: Precision | Literal["auto"]
) -> list[Variant]:
    """Those that settings allow and that can be tried. Raises ModelError, with the reasons, where there are none."""
    asked = [
        variant
        for variant in known
        if backend in ("auto", variant.backend) and precision in ("auto", variant.precision)
    ]
    possible = [variant for variant in asked if known[variant] is None]
    if not possible:
        why = "; ".join(f"{variant}: {known[variant]}" for variant in asked) or f"{backend} has no {precision}"
        raise ModelError(f"nothing can run it: {why}")
    return possible


def judge(
    measured: Mapping[Variant, Measurement | str], gate: FidelityGate, gains: Sequence[Sequence[float]] | None = None
) -> Verdict | None:
    """Hold every variant to the gate; None where there is nothing to compare with.

    `measured`: of each variant that was tried, what was found, or why nothing was. The reference passes whatever the
    gate. `gains`: how relevant each document is, where that is known.
    """
    reference = next((variant for variant in REFERENCES if isinstance(measured.get(variant), Measurement)), None)
    if reference is None:
        return None
    exact = measured[reference]
    assert isinstance(exact, Measurement)  # noqa: S101 (tells the type checker)
    rows = [
        Row(variant=variant, fault=found) if isinstance(found, str) else _row(variant, found, exact, gate, gains)
        for variant, found in measured.items()
    ]
    return Verdict(
        rows=tuple(row.model_copy(update={"fault": None}) if row.variant == reference else row for row in rows)
    )


def _row(
    variant: Variant,
    found: Measurement,
    exact: Measurement,
    gate: FidelityGate,
    gains: Sequence[Sequence[float]] | None,
) -> Row:
    wanted, scores = np.array(exact.scores), np.array(found.scores)
    if scores.shape != wanted.shape or not np.isfinite(scores).all():
        return Row(variant=variant, speed=found.speed, fault="gave something that is no score")
    taus = np.array([fidelity.tau(a[None], b[None]) for a, b in zip(wanted, scores, strict=True)])
    tops = np.array([fidelity.top10(a[None], b[None]) for a, b in zip(wanted, scores, strict=True)])
    delta = float(np.abs(scores[: len(found.again)] - found.again).max() / max(scores.std(), 1e-12))
    loss = None if gains is None else _ndcg(wanted, np.array(gains)) - _ndcg(scores, np.array(gains))
    fault = None
    if _surely_below(taus, gate.tau):
        fault = f"tau below {gate.tau}"
    elif _surely_below(tops, gate.top10):
        fault = f"top-10 below {gate.top10}"
    elif delta > gate.batch_delta:
        fault = "scores depend on the batch"
    elif loss is not None and loss > gate.ndcg_loss:
        fault = f"nDCG@10 falls by {loss:.3f}"
    return Row(
        variant=variant,
        speed=found.speed,
        tau=float(taus.mean()),
        top10=float(tops.mean()),
        ndcg_loss=loss,
        batch_delta=delta,
        fault=fault,
    )


def _surely_below(values: NDArray[np.float64], threshold: float) -> bool:
    """Whether the mean over all queries there could be is below, judged by these few."""
    error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else 0.0
    return bool(values.mean() + ERRORS * error < threshold)


def _ndcg(scores: NDArray[np.float64], gains: NDArray[np.float64]) -> float:
    """Normalised discounted cumulative gain of the ten best, mean over queries (Järvelin and Kekäläinen, 2002)."""
    best = np.take_along_axis(gains, np.argsort(-scores, axis=1, kind="stable"), axis=1)[:, :10]
    ideal = -np.sort(-gains, axis=1)[:, :10]
    discount = 1 / np.log2(np.arange(2, 2 + best.shape[1]))
    most = (ideal * discount).sum(1)
    return float(((best * discount).sum(1) / np.where(most, most, 1)).mean())
