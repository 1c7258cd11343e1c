"""The base of every shape that crosses a process border."""

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel

Location = tuple[int | str, ...]
MANY = 1000  # faults, beyond which listing them would take longer than finding them


class Shape(BaseModel):
    """An immutable value, camelCase on the wire as everywhere in Kubernetes, that refuses unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)


def faults(error: ValidationError) -> Sequence[tuple[Location, str]]:
    """What is wrong with a value: where, and in words."""
    if error.error_count() > MANY:
        return [((), f"{error.error_count()} things are wrong with it")]
    found = error.errors(include_url=False, include_input=False, include_context=False)
    # A list whose items are all wrong is reported as too short as well, since none of its items remains.
    below = {one["loc"][:length] for one in found for length in range(len(one["loc"]))}
    return [
        (one["loc"], one["msg"].removeprefix("Value error, "))
        for one in found
        if one["type"] != "too_short" or one["loc"] not in below
    ]
