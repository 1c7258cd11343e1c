"""How well each variant of a model ranks, and how near it comes to float32: `make bench ONLY=quality`."""

import random
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rag_service.contract.settings import FidelityGate
from rag_service.cpus import available, engine_threads
from rag_service.engine import choice, host, rankers
from rag_service.engine.backends import REFERENCE, Variant
from rag_service.engine.pending import padded
from rag_service.engine.rankers import Ranker
from rag_service.engine.tokens import Tokens
from rag_service.models import fidelity, manifest
from tests.bench import corpora, figures, machine, models
from tests.bench.corpora import Collection
from tests.bench.prepared import Prepared, prepare
from tests.bench.retrieval import Bm25, ndcg

DEPTH = 20  # candidates of a query
ORDERED = 25  # queries whose pairs are scored in several compositions of batches
BATCHES = (1, 512, 2048)  # padded tokens in a batch

Scores = NDArray[np.float64]
"""Shape: [queries, candidates]."""


class Candidates(NamedTuple):
    """What BM25 found: for each query `DEPTH` documents, by number, best first."""

    collection: Collection
    documents: Sequence[Sequence[int]]


class Scored(NamedTuple):
    """One variant's results on one collection."""

    ndcg: float
    tau: float
    top10: float
    batch_delta: float
    batch_tau: float


def run(out: Path, data: Path | None) -> tuple[dict[str, float], dict[str, Any], str]:
    """Measure; the figures, the machine, and a report in Markdown. Files go to the folder `out`."""
    made = models.make(out / "models")
    wanted = {
        "bi": prepare("all-minilm-l6-v2", models.PACKAGED, out / "prepared", int8=True),
        "cross": prepare("minilm-l6", f"file://{made['minilm-l6']}", out / "prepared", int8=True),
    }
    found = [candidates(collection) for collection in corpora.found(data)]
    values: dict[str, float] = {}
    for one in found:
        first = [ndcg(numbers, gains) for numbers, gains in zip(one.documents, one.collection.gains, strict=True)]
        values[f"ndcg10_{one.collection.name}_bm25"] = fmean(first)
    rows: list[list[str]] = []
    served: dict[str, Sequence[Scored]] = {}
    for kind, model in wanted.items():
        chosen = model.served()
        for variant, results in _variants(model, found):
            for one, result in zip(found, results, strict=True):
                values[f"ndcg10_{one.collection.name}_{kind}_{_name(variant)}"] = result.ndcg
            values |= {f"{name}_{kind}_{_name(variant)}": value for name, value in _worst(results).items()}
            rows.append(_row(kind, variant, results, variant == chosen))
            if variant == chosen:
                served[kind] = results
    values |= _worst([result for results in served.values() for result in results])
    if found[0].collection.name == "lookalike":
        values = {name if "lookalike" in name else f"lookalike_{name}": value for name, value in values.items()}
    facts = machine.facts() | {"served": {kind: str(model.served()) for kind, model in wanted.items()}}
    figures.write(out / "quality.json", values, facts)
    names = [one.collection.name for one in found]
    first_stage = [f"{values[f'ndcg10_{name}_bm25']:.3f}" for name in names]
    head = ["model and variant", *(f"nDCG@10 {name}" for name in names), "tau", "top-10", "batch delta", "batch tau"]
    table = figures.table(head, [["BM25 alone", *first_stage, "", "", "", ""], *rows])
    return values, facts, "\n\n".join([table, *_refused(wanted)])


def candidates(collection: Collection) -> Candidates:
    """The best documents of each query; queries that find too few are left out."""
    index = Bm25(collection.documents)
    found = [index.search(query, DEPTH) for query in collection.queries]
    kept = [number for number, documents in enumerate(found) if len(documents) == DEPTH]
    queries, gains = [collection.queries[number] for number in kept], [collection.gains[number] for number in kept]
    kept_only = Collection(collection.name, collection.documents, queries, gains)
    return Candidates(kept_only, [found[number] for number in kept])


def _variants(model: Prepared, found: Sequence[Candidates]) -> Iterator[tuple[Variant, list[Scored]]]:
    """Every variant that runs here, with its results on each collection; the reference first."""
    described = manifest.read(model.directory)
    assert described
    known = choice.variants(described, (model.directory / manifest.SOURCE).is_dir(), host.read(), FidelityGate())
    threads = engine_threads(available(), 1)
    references: list[Scores] = []
    for variant in sorted((one for one, fault in known.items() if fault is None), key=lambda one: one != REFERENCE):
        print(f"{model.name}: {variant}", flush=True)
        ranker = rankers.load(model.directory, described, variant, threads)
        scores = [_scores(ranker, one, threads) for one in found]
        references = references or scores
        results = []
        for one, reference, ours in zip(found, references, scores, strict=True):
            delta, tau = _composition(ranker, one, threads)
            results.append(
                Scored(
                    ndcg=_ndcg(one, ours),
                    tau=fidelity.tau(reference, ours),
                    top10=fidelity.top10(reference, ours),
                    batch_delta=delta,
                    batch_tau=tau,
                )
            )
        yield variant, results


def _scores(ranker: Ranker, found: Candidates, threads: int) -> Scores:
    """Every query's candidates. A bi-encoder embeds each document once, however many queries found it."""
    collection, wanted = found
    if ranker.manifest.recipe.kind == "cross-encoder":
        inputs = [
            ranker.encode(query, [collection.documents[number] or " " for number in numbers])
            for query, numbers in zip(collection.queries, wanted, strict=True)
        ]
        rows = iter(_rows(ranker, [tokens for some in inputs for tokens in some], BATCHES[1], threads))
        return np.array([ranker.scores(np.stack([next(rows) for _ in some])) for some in inputs])
    used = sorted({number for numbers in wanted for number in numbers})
    texts = [*collection.queries, *(collection.documents[number] for number in used)]
    embedded = _rows(ranker, [ranker.encode(text, [])[0] for text in texts], BATCHES[1], threads)
    place = {number: len(collection.queries) + order for order, number in enumerate(used)}
    return np.array(
        [
            ranker.scores(np.stack([embedded[query], *(embedded[place[number]] for number in numbers)]))
            for query, numbers in enumerate(wanted)
        ]
    )


def _composition(ranker: Ranker, found: Candidates, threads: int) -> tuple[float, float]:
    """Between compositions of batches: the largest difference in standard deviations, and the least tau."""
    collection, wanted = found
    draw = random.Random(0)
    chosen = sorted(draw.sample(range(len(wanted)), min(ORDERED, len(wanted))))
    inputs = [
        ranker.encode(collection.queries[query], [collection.documents[number] for number in wanted[query]])
        for query in chosen
    ]
    every = [tokens for some in inputs for tokens in some]
    made: list[Scores] = []
    for budget in BATCHES:
        order = draw.sample(range(len(every)), len(every))
        shuffled = _rows(ranker, [every[place] for place in order], budget, threads)
        rows = dict(zip(order, shuffled, strict=True))
        flat = iter(range(len(every)))
        made.append(np.array([ranker.scores(np.stack([rows[next(flat)] for _ in some])) for some in inputs]))
    alone, *batched = made
    return max(fidelity.delta(alone, one) for one in batched), min(fidelity.tau(alone, one) for one in batched)


def _rows(ranker: Ranker, inputs: Sequence[Tokens], budget: int, threads: int) -> list[NDArray[np.float32]]:
    """One row an input, in batches of one length and up to `budget` padded tokens, as the engine makes them."""
    lengths: dict[int, list[int]] = {}
    for number, tokens in enumerate(inputs):
        lengths.setdefault(padded(len(tokens.ids)), []).append(number)
    batches = [
        (length, numbers[start : start + max(1, budget // length)])
        for length, numbers in lengths.items()
        for start in range(0, len(numbers), max(1, budget // length))
    ]

    def compute(batch: tuple[int, list[int]]) -> NDArray[np.float32]:
        length, numbers = batch
        return ranker.backend.run([inputs[number] for number in numbers], length)

    found: dict[int, NDArray[np.float32]] = {}
    with ThreadPoolExecutor(threads) as pool:
        for (_, numbers), rows in zip(batches, pool.map(compute, batches), strict=True):
            found |= zip(numbers, rows, strict=True)
    return [found[number] for number in range(len(inputs))]


def _ndcg(found: Candidates, scores: Scores) -> float:
    ranked = (
        [numbers[place] for place in np.argsort(-row, kind="stable")]
        for numbers, row in zip(found.documents, scores, strict=True)
    )
    return fmean(ndcg(numbers, gains) for numbers, gains in zip(ranked, found.collection.gains, strict=True))


def _worst(results: Iterable[Scored]) -> dict[str, float]:
    some = list(results)
    return {
        "tau_fp32": min(one.tau for one in some),
        "top10_fp32": min(one.top10 for one in some),
        "batch_delta": max(one.batch_delta for one in some),
        "batch_tau": min(one.batch_tau for one in some),
    }


def _row(kind: str, variant: Variant, results: Sequence[Scored], served: bool) -> list[str]:
    worst = _worst(results)
    name = f"{kind}, {variant}" + (" (served)" if served else "")
    means = [f"{result.ndcg:.3f}" for result in results]
    return [
        name, *means, f"{worst['tau_fp32']:.3f}", f"{worst['top10_fp32']:.3f}", f"{worst['batch_delta']:.4f}",
        f"{worst['batch_tau']:.4f}",
    ]  # fmt: skip


def _refused(wanted: dict[str, Prepared]) -> Iterator[str]:
    for kind, model in wanted.items():
        described = manifest.read(model.directory)
        for precision, graph in (described.refused if described else {}).items():
            if graph.fidelity:
                yield (
                    f"{kind}, {precision}: made and refused, tau {graph.fidelity.tau:.3f} and top-10 "
                    f"{graph.fidelity.top10:.3f} on {graph.fidelity.queries} queries."
                )


def _name(variant: Variant) -> str:
    return f"{variant.backend}_{variant.precision}".replace("-", "_")
