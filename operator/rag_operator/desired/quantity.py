"""Kubernetes' resource quantities as numbers: `500m` of a CPU is 0.5, `1Gi` of memory is 2**30."""

import re
from decimal import Decimal

_SUFFIXES = {
    "m": Decimal("0.001"),
    **{suffix: Decimal(1000) ** power for power, suffix in enumerate(["", "k", "M", "G", "T", "P", "E"])},
    **{suffix: Decimal(1024) ** power for power, suffix in enumerate(["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"], start=1)},
}
_FORM = re.compile(r"(?P<number>[0-9]+(\.[0-9]+)?)(?P<suffix>[A-Za-z]*)")


def parse(quantity: str | int) -> Decimal:
    """The quantity in its base unit: CPUs, bytes. Raises ValueError on anything else."""
    match = _FORM.fullmatch(str(quantity))
    if match is None or match["suffix"] not in _SUFFIXES:
        raise ValueError(f"{quantity!r} is not a quantity: write a number with a unit such as 500m, 2 or 1Gi")
    return Decimal(match["number"]) * _SUFFIXES[match["suffix"]]
