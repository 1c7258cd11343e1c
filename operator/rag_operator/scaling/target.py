"""Pure: whose load is read."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """A pod that runs and has an address."""

    pod: str
    address: str
    ready: bool
    """Whether clients reach it."""
