"""How scores lie in Redis, and when it is asked."""

from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_service.cache import Score, layout
from rag_service.cache.breaker import FAILURES, LONGEST_PAUSE, Breaker

HOUR = timedelta(hours=1)
NOW = 1_800_000_000.0


@given(st.floats(width=32, allow_nan=False, allow_infinity=False), st.booleans())
def test_a_score_comes_back_to_the_bit(score: float, cut: bool) -> None:
    found = layout.unpack(layout.pack(Score(score, cut), NOW), NOW, HOUR)
    assert found is not None
    assert np.float32(found.value).tobytes() == np.float32(score).tobytes()
    assert found.cut is cut


@pytest.mark.parametrize(("age", "valid"), [(0, True), (3599, True), (3600, False), (10**6, False), (-30, True)])
def test_a_score_is_valid_for_its_time_and_no_longer(age: int, valid: bool) -> None:
    assert (layout.unpack(layout.pack(Score(0.5, True), NOW - age), NOW, HOUR) is not None) is valid


def test_a_score_from_a_clock_gone_wrong_does_not_live_for_ever() -> None:
    assert layout.unpack(layout.pack(Score(0.5, False), NOW + 86_400), NOW, HOUR) is None


@pytest.mark.parametrize("now", [0.0, 1e9, 3.7e9])
def test_a_clock_gone_wrong_breaks_nothing(now: float) -> None:
    layout.unpack(layout.pack(Score(0.5, True), now), NOW, HOUR)


@pytest.mark.parametrize("value", [None, b"", b"1234567", b"123456789"])
def test_what_is_no_score_is_none(value: bytes | None) -> None:
    assert layout.unpack(value, NOW, HOUR) is None


def test_redis_forgets_a_hash_only_when_its_newest_score_is_too_old() -> None:
    assert layout.expiry(HOUR) > HOUR.total_seconds() * 1000


@given(
    st.tuples(*[st.sampled_from(["a", "b", "a:b", ""])] * 3), st.tuples(*[st.sampled_from(["a", "b", "a:b", ""])] * 3)
)
def test_services_models_and_queries_do_not_share_keys(left: tuple[str, str, str], right: tuple[str, str, str]) -> None:
    # A service's name holds no colon: Kubernetes allows none.
    names = [(service.replace(":", ""), model.replace(":", ""), query) for service, model, query in (left, right)]
    assert (names[0] == names[1]) is (layout.key(*names[0]) == layout.key(*names[1]))


def test_a_key_holds_no_text() -> None:
    assert "secret" not in layout.key("ns/name", "f", "a secret question")


def test_the_breaker_opens_after_failures_in_a_row_and_closes_at_the_first_answer() -> None:
    breaker = Breaker()
    for _ in range(FAILURES - 1):
        breaker.failed()
    breaker.succeeded()
    for _ in range(FAILURES - 1):
        breaker.failed()
    assert not breaker.open
    breaker.failed()
    assert breaker.open
    breaker.succeeded()
    assert not breaker.open


def test_probes_come_after_longer_and_longer_pauses_within_bounds() -> None:
    breaker = Breaker()
    pauses = []
    for _ in range(FAILURES + 10):
        breaker.failed()
        pauses.append(breaker.pause(0.5))
    assert pauses == sorted(pauses)
    assert pauses[-1] <= LONGEST_PAUSE
    assert breaker.pause(0.0) < breaker.pause(0.99) <= LONGEST_PAUSE


def test_a_breaker_that_failed_for_days_still_counts() -> None:
    breaker = Breaker()
    for _ in range(100_000):
        breaker.failed()
    assert breaker.pause(0.999) <= LONGEST_PAUSE
