"""What the operator keeps in memory of each RAGService. All of it can be lost: what must last is in the status."""

from dataclasses import dataclass, field
from typing import NamedTuple

from rag_operator.api.v1alpha1 import ScalingStatus
from rag_operator.scaling.estimate import Estimate, Memory
from rag_operator.scaling.plan import Decision, Goal, State
from rag_operator.scaling.target import Target


class Key(NamedTuple):
    """Which RAGService."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass
class Scaling:
    """The scaling of one RAGService: from reconciliation its pods and its goal, from the autoscaler the rest."""

    goal: Goal
    state: State
    targets: tuple[Target, ...] = ()
    memory: Memory = field(default_factory=Memory)
    estimate: Estimate | None = None
    decision: Decision | None = None

    @property
    def required(self) -> int:
        """Replicas that are needed, as far as is known, within the bounds as they are now."""
        return self.goal.clamp(self.state.required)


@dataclass
class Record:
    """One RAGService."""

    uid: str
    scaling: Scaling | None = None
    """None while the autoscaler leaves it alone: before the first reconciliation, and while paused."""
    password: str | None = None
    """Redis' password, so that a deleted Secret comes back as it was."""
    applied: dict[tuple[str, str], tuple[str, str]] = field(default_factory=dict)
    """(kind, name) -> digests of the manifest and of the object after it was applied."""
    status_checked: float = float("-inf")
    """When the status was last known to be up to date with every number, on the monotonic clock."""
    told: ScalingStatus | None = None
    """The numbers that the status then held."""
    failures: int = 0
    """Reconciliations in a row that could not apply everything."""


Records = dict[Key, Record]
