"""The pure parts of the bench: retrieval, figures, texts, tables."""

import itertools
import json
import math
from pathlib import Path

import pytest

from tests import models
from tests.bench import corpora, docs, figures, machine, samples
from tests.bench.retrieval import Bm25, ndcg
from tests.bench.samples import EQUAL, INFINITY, MIXED, NAIVE, OURS, Sample
from tests.bench.texts import LONGEST, REFERENCE, SHORTEST, Texts
from tests.bench.texts import MIXED as MIXED_SHAPE


def test_bm25_weighs_as_by_hand() -> None:
    index = Bm25(["red fox", "red red fox jumps", "dog"], k1=1.0, b=0.5)
    # Lengths 2, 4 and 1, on average 7/3. `red` is in two of three documents.
    rare = math.log(1 + (3 - 2 + 0.5) / (2 + 0.5))
    first = rare * 1 / (1 + 0.5 + 0.5 * 2 / (7 / 3))
    second = rare * 2 / (2 + 0.5 + 0.5 * 4 / (7 / 3))
    assert second > first
    assert index.search("RED!", 9) == [1, 0]
    assert index._weights["red"] == pytest.approx({0: first, 1: second})


def test_bm25_adds_up_over_words_and_breaks_ties_by_position() -> None:
    index = Bm25(["cat", "cat", "cat mouse mouse"])
    assert index.search("cat", 2) == [0, 1]
    assert index.search("mouse cat", 1) == [2]
    assert index.search("horse", 5) == []


def test_ndcg_is_as_by_hand() -> None:
    gains = {7: 3.0, 8: 2.0, 9: 1.0}
    ideal = 3 + 2 / math.log2(3) + 1 / 2
    assert ndcg([8, 1, 7], gains) == pytest.approx((2 + 3 / 2) / ideal)
    assert ndcg([7, 8, 9], gains) == 1
    assert ndcg([1, 2, 3, 7], gains, depth=3) == 0
    assert ndcg([1], {}) == 0


def test_percentiles_are_values_that_were_measured() -> None:
    assert figures.percentile([3, 1, 2], 0.5) == 2
    assert figures.percentile(range(1, 101), 0.95) == 95
    assert figures.percentile([5.0], 0.95) == 5
    with pytest.raises(ValueError, match="nothing"):
        figures.percentile([], 0.5)


def test_a_ratio_is_taken_round_by_round() -> None:
    # The machine was twice as slow in the second round, for both.
    assert figures.ratio([10, 5, 9], [5, 2.5, 3]) == (2, 2, 3)


def test_figures_are_flat_and_rounded(tmp_path: Path) -> None:
    figures.write(tmp_path / "some" / "file.json", {"a": 1.23456, "b": 2}, {"cpu": "one"})
    content = json.loads((tmp_path / "some" / "file.json").read_text())
    assert content == {"figures": {"a": 1.235, "b": 2}, "machine": {"cpu": "one"}}


def test_the_machine_is_described_without_its_name() -> None:
    facts = machine.facts()
    assert facts["cores"] >= 1
    assert facts["memory_gib"] > 0
    assert facts["versions"]["tokenizers"]
    assert set(facts) == {"cpu", "flags", "cores", "memory_gib", "kernel", "versions"}


def test_queries_are_unique_and_documents_as_long_as_asked(tmp_path: Path) -> None:
    tokenizer = models.cross_encoder(tmp_path / "model") / "tokenizer.json"
    texts = Texts(tokenizer)
    asked = list(itertools.islice(texts.requests(REFERENCE, "a"), 50))
    assert {len(one.documents) for one in asked} == {10}
    assert {len(document.split()) for one in asked for document in one.documents} == {60}
    assert len({one.query for one in asked}) == 50
    assert asked == list(itertools.islice(texts.requests(REFERENCE, "a"), 50))
    assert asked[0].query != next(texts.requests(REFERENCE, "b")).query
    lengths = [
        len(document.split())
        for one in itertools.islice(texts.requests(MIXED_SHAPE, "a"), 50)
        for document in one.documents
    ]
    assert SHORTEST <= min(lengths) < 40
    assert 400 < max(lengths) <= LONGEST


def sample(rate: float, cpu_ms: float = 10, p95: float = 1) -> Sample:
    return Sample(rate, cpu_ms, p95, generator=0, others=0)


def measured() -> dict[tuple[str, str], list[Sample]]:
    """Ours is 4 times as fast as naive, twice as fast as Infinity, and as fast as its int8 but at c1."""
    rates = {OURS: 40, EQUAL: 20, NAIVE: 10, INFINITY: 20, f"{INFINITY}, int8": 40}
    made = {
        (server, load): [sample(rate), sample(rate / 2)]
        for server, rate in rates.items()
        for load in ("c1", "c8", "c32")
    }
    made[f"{INFINITY}, int8", "c1"] = [sample(10), sample(5)]
    made[INFINITY, "c32"] = [sample(20, cpu_ms=30, p95=4), sample(10, cpu_ms=30, p95=4)]
    made[f"{INFINITY}, int8", "c32"] = [sample(40, cpu_ms=25, p95=2), sample(20, cpu_ms=25, p95=2)]
    made[NAIVE, "c32"] = [sample(10, cpu_ms=99, p95=5), sample(5, cpu_ms=99, p95=5)]
    return made | {(OURS, MIXED): [sample(30), sample(30)], (NAIVE, MIXED): [sample(5), sample(6)]}


def test_ratios_compare_with_the_best_of_each_load() -> None:
    found = samples.figures(measured())
    assert found["req_ratio_naive_c1"] == 4
    assert found["req_ratio_infinity_c8"] == 2
    assert found["fp32_req_ratio_naive_c8"] == 2
    assert found["req_ratio_infinity_best_c1"] == 2  # its int8 is slow there
    assert found["req_ratio_infinity_best_c8"] == 1
    assert found["cpu_ratio_infinity_best"] == 2.5
    assert found["p95_ratio_best_peer_c32"] == 0.5
    assert found["mixed_ratio_naive"] == 5.5


def test_what_did_not_run_has_no_figures() -> None:
    alone = {key: some for key, some in measured().items() if key[0] in (OURS, EQUAL)}
    assert samples.figures(alone) == {}
    assert "naive" not in samples.report(alone)


def test_the_report_is_a_table() -> None:
    head, rule, *rows = samples.report(measured()).splitlines()
    assert len({line.count("|") for line in (head, rule, *rows)}) == 1
    assert [row.split("|")[1].strip() for row in rows] == [OURS, EQUAL, NAIVE, INFINITY, f"{INFINITY}, int8"]
    assert "30.0 (20.0–40.0)" in rows[0]


def test_collections_are_read_with_their_traps(tmp_path: Path) -> None:
    """Numbers of queries are not those of the judgements, codes are upside down, the files end in an empty record."""
    (tmp_path / "cran.all.1400").write_text(".I 1\n.T\nno\n.W\nwings\nof a plane\n.I 2\n.W\n.I 3\n.W\nheat\n.I 4\n")
    (tmp_path / "cran.qry").write_text(".I 001\n.W\nwhat flies\n.I 004\n.W\nwhat\nburns\n.I 365\n")
    (tmp_path / "cranqrel").write_text("1 1 1\n2 3 4\n2 1 -1 \n")
    found = corpora.cranfield(tmp_path)
    assert found.documents == ["wings of a plane", "", "heat"]
    assert found.queries == ["what flies", "what burns"]
    assert found.gains == [{0: 4.0}, {2: 1.0, 0: 4.0}]


def test_without_data_a_lookalike_is_used(tmp_path: Path) -> None:
    [found] = corpora.found(tmp_path)
    assert found.name == "lookalike"
    assert len(found.documents) == 10 * len(found.queries) == 770
    assert all(len(gains) == 10 for gains in found.gains)


def test_a_section_of_the_docs_is_replaced(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- rerank: begin -->\nold\n<!-- rerank: end -->\nafter\n")
    text = docs.section({"ready_s": 1.23456}, machine.facts() | {"served": {"cross": "openvino bf16"}}, "report")
    docs.put(page, "rerank", text)
    docs.put(page, "rerank", text)
    found = page.read_text()
    assert found.startswith("before\n<!-- rerank: begin -->\n")
    assert found.count("openvino bf16") == 1
    assert "old" not in found
    assert "1.235" in found
    with pytest.raises(ValueError, match="no marks"):
        docs.put(page, "quality", text)


def test_the_page_has_a_place_for_each_part(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text((Path(__file__).parents[2] / "docs" / "benchmarks.md").read_text())
    for part in ("rerank", "quality"):
        docs.put(page, part, "anything")
