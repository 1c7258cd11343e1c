"""Who is let in."""

from datetime import timedelta

import pytest

from rag_service.contract.admission import retry_after

PATIENCE = timedelta(seconds=10)


@pytest.mark.parametrize(
    ("queued", "offered", "speed", "expected"),
    [
        (0, 10**9, 1.0, None),  # an idle engine refuses nothing
        (10**9, 1, None, None),  # nothing is measured yet
        (900, 100, 100.0, None),  # done in exactly the time there is
        (900, 101, 100.0, 1),
        (4_900, 100, 100.0, 40),
    ],
)
def test_refused_is_what_could_not_be_answered_in_time(
    queued: int, offered: int, speed: float | None, expected: int | None
) -> None:
    wait = retry_after(queued, offered, speed, PATIENCE)
    assert wait == (None if expected is None else timedelta(seconds=expected))
