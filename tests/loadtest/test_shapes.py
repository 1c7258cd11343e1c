from collections import Counter
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from rag_loadtest.shapes import WORDS_PER_TOKEN, Corpus, Workload, intended_starts, sized

CORPUS = Corpus(documents=tuple(f"text {n} one two three" for n in range(20)), queries=("a?", "b?", "c?"))


def workload(seed: int = 0, distinct: int = 100) -> Workload:
    return Workload(CORPUS, documents=4, tokens=10, distinct=distinct, seed=seed)


def asked(seed: int, user: int, count: int = 50) -> list[str]:
    return [request.model_dump_json() for request in islice(workload(seed).requests(user), count)]


def test_the_same_seed_asks_the_same_and_another_seed_or_user_something_else() -> None:
    assert asked(seed=1, user=0) == asked(seed=1, user=0)
    assert asked(seed=1, user=0) != asked(seed=2, user=0)
    assert asked(seed=1, user=0) != asked(seed=1, user=1)


def test_a_seed_asks_the_same_in_every_process_and_version() -> None:
    first = next(workload(seed=7).requests(3))
    assert first.query == "Case 60: a?"
    assert [str(text).split()[1] for text in first.texts] == ["19", "12", "3", "1"]


def test_a_query_has_always_the_same_different_candidates() -> None:
    candidates: dict[str, tuple[object, ...]] = {}
    for request in islice(workload().requests(0), 500):
        assert len(set(request.texts)) == 4
        assert candidates.setdefault(request.query, request.texts) == request.texts


def test_queries_follow_zipfs_law() -> None:
    counts = Counter(request.query for request in islice(workload().requests(0), 20_000))
    # H(100) = 5.187: the first is asked in 19.3 % of all requests, the second half as often, the third a third.
    assert counts["a?"] / 20_000 == pytest.approx(1 / 5.187, rel=0.05)
    assert counts["a?"] / counts["b?"] == pytest.approx(2, rel=0.1)
    assert counts["a?"] / counts["c?"] == pytest.approx(3, rel=0.1)


def test_no_more_queries_than_asked_for_and_each_is_another() -> None:
    assert len({workload(distinct=100).request(rank).query for rank in range(100)}) == 100
    assert {request.query for request in islice(workload(distinct=2).requests(0), 100)} == {"a?", "b?"}


@given(st.lists(st.text().filter(lambda text: text.split()), min_size=1), st.integers(1, 300))
def test_every_document_gets_the_reference_size_and_keeps_its_own_beginning(texts: list[str], tokens: int) -> None:
    words = max(1, round(tokens * WORDS_PER_TOKEN))
    for text, made in zip(texts, sized(texts, tokens), strict=True):
        assert len(made.split()) == words
        assert made.split()[: len(text.split())] == text.split()[:words]


def test_more_documents_than_the_corpus_has_are_refused() -> None:
    with pytest.raises(ValueError, match="needs 21 different documents, the corpus has 20"):
        Workload(CORPUS, documents=21, tokens=10, distinct=10, seed=0)


@pytest.mark.parametrize(
    "content",
    [
        {"documents": [], "queries": ["a"]},
        {"documents": ["a"], "queries": []},
        {"documents": ["a"], "queries": [" "]},
        {"documents": [{"text": "\n"}], "queries": ["a"]},
        {"documents": [1], "queries": ["a"]},
    ],
)
def test_a_corpus_without_words_is_refused(content: object) -> None:
    with pytest.raises(ValidationError):
        Corpus.model_validate(content)


def test_paced_users_take_turns() -> None:
    assert list(islice(intended_starts(user=0, users=4, pace=2.0), 3)) == [0.0, 2.0, 4.0]
    assert list(islice(intended_starts(user=3, users=4, pace=2.0), 3)) == [1.5, 3.5, 5.5]
