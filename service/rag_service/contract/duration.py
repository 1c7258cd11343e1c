"""Durations as Kubernetes' Gateway API writes them (GEP-2257): `300ms`, `1h30m`, never a bare number."""

import re
from datetime import timedelta
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

PATTERN = r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"

_MILLISECONDS = {"h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}
_PART = re.compile(r"([0-9]{1,5})(ms|h|m|s)")


def parse(text: str) -> timedelta:
    """Read a duration such as `1h30m`. Raises ValueError on anything that GEP-2257 does not allow."""
    if not re.fullmatch(PATTERN, text):
        raise ValueError(f"{text!r} is not a duration: write it as numbers with units, such as 300ms, 10s or 1h30m")
    return timedelta(milliseconds=sum(int(number) * _MILLISECONDS[unit] for number, unit in _PART.findall(text)))


def text(duration: timedelta) -> str:
    """Write a duration in its shortest form: `90m` becomes `1h30m`. Below one millisecond is lost; zero is `0s`."""
    rest = round(duration / timedelta(milliseconds=1))
    parts = []
    for unit, size in _MILLISECONDS.items():
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def _coerce(value: Any) -> Any:
    return parse(value) if isinstance(value, str) else value


Duration = Annotated[
    timedelta,
    BeforeValidator(_coerce),
    PlainSerializer(text, return_type=str),
    WithJsonSchema({"type": "string", "pattern": PATTERN}),
]
