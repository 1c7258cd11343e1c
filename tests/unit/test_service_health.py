"""When a thread counts as stuck."""

import pytest

from rag_service.engine.health import LEAST, PERIOD, SUSPICIOUS, UNMEASURED, Doing, Watchdog


def looks(watchdog: Watchdog, doing: list[Doing | None], seconds: float, share: float = 1.0) -> float | None:
    """Look for so many seconds; after how many of them a batch was stuck."""
    for number in range(1, round(seconds / PERIOD) + 1):
        watchdog.look(doing, PERIOD, share)
        if watchdog.stuck:
            return number * PERIOD
    return None


def test_a_thread_that_hangs_is_noticed_within_two_seconds() -> None:
    found = looks(Watchdog(2), [None, Doing("a batch", 0.02)], 60)
    assert found is not None
    assert LEAST < found < 2


def test_a_large_model_has_time_in_proportion() -> None:
    found = looks(Watchdog(1), [Doing("a batch", 3.0)], 60)
    assert found == pytest.approx(30, abs=2 * PERIOD + 0.01)


def test_what_was_never_measured_has_plenty_of_time() -> None:
    assert looks(Watchdog(1), [Doing("a batch", None)], UNMEASURED) is None
    assert looks(Watchdog(1), [Doing("a batch", None)], UNMEASURED + 1) is not None


def test_each_batch_has_its_own_time() -> None:
    watchdog = Watchdog(2)
    other = Doing("another", 0.02)
    for _ in range(1000):
        assert looks(watchdog, [Doing("short", 0.02), other], 0.5) is None
        other = Doing("another", 0.02)


def test_a_process_that_gets_a_tenth_of_a_cpu_has_ten_times_as_long() -> None:
    found = looks(Watchdog(1), [Doing("a batch", 0.02)], 60, share=0.1)
    assert found == pytest.approx(15, abs=0.5)


def test_a_process_that_gets_no_cpu_is_not_stuck() -> None:
    assert looks(Watchdog(1), [Doing("a batch", 0.02)], 600, share=0.0) is None


def test_a_machine_that_slept_is_not_stuck() -> None:
    watchdog, doing = Watchdog(1), [Doing("a batch", 0.02)]
    watchdog.look(doing, PERIOD)
    watchdog.look(doing, 3600)
    assert not watchdog.stuck
    assert not watchdog.suspicious


def test_a_batch_that_ends_after_all_is_forgiven() -> None:
    watchdog, doing = Watchdog(1), Doing("a batch of 3 inputs", 0.02)
    looks(watchdog, [doing], 5)
    for _ in range(20):
        watchdog.look([doing], PERIOD)
    assert watchdog.suspicious
    assert watchdog.stuck is not None
    assert watchdog.stuck[0] is doing
    assert watchdog.stuck[1] == pytest.approx(2, abs=0.15)
    watchdog.look([None], PERIOD)
    assert watchdog.stuck is None
    assert not watchdog.suspicious


def test_the_one_that_is_stuck_for_longest_is_named() -> None:
    first, second = Doing("first", 0.02), Doing("second", 0.4)
    watchdog = Watchdog(3)
    for _ in range(60):
        watchdog.look([None, second, first], PERIOD)
    assert watchdog.stuck is not None
    assert watchdog.stuck[0] is first


def test_measuring_begins_before_anything_is_decided() -> None:
    assert SUSPICIOUS < LEAST / 2
