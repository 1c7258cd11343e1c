"""What models are tried on, and how near one set of scores comes to another."""

from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_service.models import calibration, fidelity


def test_what_is_learned_from_and_what_is_judged_by_have_nothing_in_common() -> None:
    learn, judge = calibration.questions("learn"), calibration.questions("judge")
    assert len(learn) == len(judge) == 385
    assert set(learn).isdisjoint(judge)
    assert all(text == " ".join(text.split()) for text in learn + judge)


def test_requests_are_the_same_every_time_and_of_mixed_lengths() -> None:
    requests = calibration.requests("judge", 200, 20)
    assert requests == calibration.requests("judge", 200, 20)
    assert requests != calibration.requests("judge", 200, 20, seed=1)
    assert {len(request.documents) for request in requests} == {20}
    lengths = sorted(len(document.split()) for request in requests for document in request.documents)
    assert lengths[0] < 10
    assert lengths[-1] > 50
    assert not any(request.query in document for request in requests for document in request.documents)


def test_the_documents_of_a_request_share_words_with_its_query() -> None:
    def shared(query: str, documents: list[str]) -> float:
        return float(np.mean([len(set(query.lower().split()) & set(text.lower().split())) for text in documents]))

    requests = calibration.requests("judge", 100, 20)
    own = np.mean([shared(one.query, list(one.documents)) for one in requests])
    others = np.mean([shared(one.query, list(other.documents)) for one, other in pairwise(requests)])
    assert own > others


def test_more_queries_than_there_are_questions_are_refused() -> None:
    with pytest.raises(ValueError, match="378 queries are too many: there are 385 questions"):
        calibration.requests("judge", 378, 20)


scorings = st.lists(st.integers(0, 6), min_size=5, max_size=5)


@given(a=scorings, b=scorings)
def test_tau_counts_pairs_in_the_same_and_in_the_other_order(a: list[int], b: list[int]) -> None:
    signs = [(np.sign(a[i] - a[j]), np.sign(b[i] - b[j])) for i, j in combinations(range(5), 2)]
    ordered = (sum(x != 0 for x, _ in signs) * sum(y != 0 for _, y in signs)) ** 0.5
    wanted = sum(x * y for x, y in signs) / ordered if ordered else 0
    assert fidelity.tau(np.array([a], float), np.array([b], float)) == pytest.approx(wanted)


def test_tau_is_one_for_the_same_order_and_minus_one_for_the_opposite() -> None:
    scores = np.array([[3.0, 1.0, 2.0], [0.1, 0.3, 0.2]])
    assert fidelity.tau(scores, scores * 100 - 7) == pytest.approx(1)
    assert fidelity.tau(scores, -scores) == pytest.approx(-1)


def test_top10_counts_those_of_the_ten_best_that_are_found() -> None:
    scores = np.arange(20.0)[None, :]
    moved = scores.copy()
    moved[0, [10, 9]] = moved[0, [9, 10]]  # the tenth best and the eleventh change places
    assert fidelity.top10(scores, moved) == pytest.approx(0.9)
    assert fidelity.top10(scores[:, :5], -scores[:, :5]) == 1


def test_delta_is_in_standard_deviations() -> None:
    scores = np.array([[0.0, 2.0], [0.0, 2.0]])
    assert fidelity.delta(scores, scores + np.array([[0.0, 0.0], [0.0, 0.5]])) == pytest.approx(0.5)
