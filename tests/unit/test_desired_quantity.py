"""Quantities as Kubernetes reads them."""

from decimal import Decimal

import pytest

from rag_operator.desired.quantity import parse


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("500m", "0.5"),
        ("0.5", "0.5"),
        (2, "2"),
        ("1", "1"),
        ("1k", "1000"),
        ("1.5Gi", str(3 * 2**29)),
        ("256Mi", str(2**28)),
        ("1G", "1000000000"),
        ("1E", str(10**18)),
        ("1Ei", str(2**60)),
    ],
)
def test_parse(text: str | int, value: str) -> None:
    assert parse(text) == Decimal(value)


@pytest.mark.parametrize("text", ["", "one", "-1", "1 Gi", "1gi", "1e3", "Gi", "1..5"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a quantity"):
        parse(text)
