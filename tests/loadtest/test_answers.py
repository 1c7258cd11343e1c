import pytest

from rag_loadtest.answers import Outcome, judge

RIGHT = b'[{"index": 1, "score": 0.9, "text": "x"}, {"index": 0, "score": 0.9}, {"index": 2, "score": -3}]'


def test_a_right_answer() -> None:
    assert judge(200, RIGHT, documents=3) == (Outcome.ANSWERED, "")


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (b"", "not a list of ranks"),
        (b"<html>", "not a list of ranks"),
        (b"{}", "not a list of ranks"),
        (b'[{"index": "first", "score": 1}]', "not a list of ranks"),
        (b'[{"index": 0, "score": 1}]', "not one rank for each document"),
        (b'[{"index": 0, "score": 3}, {"index": 1, "score": 2}, {"index": 1, "score": 1}]', "not one rank for each"),
        (b'[{"index": 3, "score": 3}, {"index": 2, "score": 2}, {"index": 1, "score": 1}]', "not one rank for each"),
        (b'[{"index": 0, "score": 1}, {"index": 2, "score": 2}, {"index": 1, "score": 0}]', "not sorted by score"),
        (b'[{"index": 0, "score": NaN}, {"index": 2, "score": 2}, {"index": 1, "score": 0}]', "score is not a number"),
    ],
)
def test_a_wrong_answer_is_a_failure(body: bytes, fault: str) -> None:
    outcome, problem = judge(200, body, documents=3)
    assert outcome is Outcome.FAILED
    assert fault in problem


def test_only_429_is_a_rejection_and_a_status_counts_more_than_the_body() -> None:
    assert judge(429, b"", documents=3) == (Outcome.REJECTED, "status 429")
    for status in (204, 302, 400, 500, 503):
        assert judge(status, RIGHT, documents=3) == (Outcome.FAILED, f"status {status}")
