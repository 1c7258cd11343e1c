"""The time of arrival that a gateway stamps."""

import pytest

from rag_service.arrival import patience, waited

NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    "stamp",
    [
        "t=1799999999.500",
        "1799999999.5",
        "1799999999500",
        "t=1799999999500000",
        "1799999999500000000",
        " t=1799999999.5 ",
    ],
)
def test_a_stamp_is_read_in_any_usual_unit(stamp: str) -> None:
    assert waited(stamp, NOW, longest=10) == pytest.approx(0.5, abs=1e-6)


@pytest.mark.parametrize(
    "stamp",
    [
        None,
        "",
        "soon",
        "t=",
        "-1",
        "t=1799999000.0",  # longer ago than any request is kept
        "t=1800000002.0",  # in the future
        "17999999995",  # no unit has so many digits
        "t=nan",
        "t=1e9",
        "٣٣٣٣٣٣٣٣٣٣",
        "9" * 400,
    ],
)
def test_a_stamp_that_cannot_be_true_counts_for_nothing(stamp: str | None) -> None:
    assert waited(stamp, NOW, longest=10) == 0


def test_a_gateway_whose_clock_is_slightly_ahead_makes_no_negative_latency() -> None:
    assert waited("t=1800000000.4", NOW, longest=10) == 0


@pytest.mark.parametrize(
    ("header", "seconds"),
    [(None, 10), ("2", 2), (" 0.5 ", 0.5), ("1500ms", 1.5), ("1s500ms", 1.5), ("60", 10), ("1h", 10), ("0", 0)],
)
def test_a_client_that_waits_for_less_says_so(header: str | None, seconds: float) -> None:
    assert patience(header, longest=10) == seconds


@pytest.mark.parametrize("header", ["", "soon", "-1", "1e3", "nan", "2 s", "5d", "٣", "1" * 5000])
def test_a_timeout_that_is_none_is_refused(header: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        patience(header, longest=10)
