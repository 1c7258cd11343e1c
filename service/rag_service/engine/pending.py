"""The inputs that wait for an engine thread, ready to be taken as batches of one length. Pure: no threads, no clock."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

STEP = 8

Job = TypeVar("Job")
Model = TypeVar("Model")


def padded(tokens: int) -> int:
    """The length that an input of so many tokens is padded to: by itself alone, whatever shares its batch.

    Padding to the longest of a batch would let a score depend on its batch mates, in the last bits at least, and
    waste work: inputs of mixed lengths run at a third of the speed.
    """
    return -(-tokens // STEP) * STEP


@dataclass(frozen=True)
class Batch(Generic[Job, Model]):
    """Inputs of one model that run together, each the `index`-th of its job."""

    model: Model
    length: int
    inputs: tuple[tuple[Job, int], ...]


@dataclass(frozen=True)
class _Input(Generic[Job]):
    arrival: int
    job: Job
    index: int
    tokens: int


class Pending(Generic[Job, Model]):
    """Waiting inputs by model and padded length, in order of arrival. `tokens`: their sum, without padding."""

    def __init__(self) -> None:
        self.tokens = 0
        self._queues: dict[tuple[Model, int], deque[_Input[Job]]] = {}
        self._arrivals = 0

    def add(self, job: Job, model: Model, sizes: Sequence[int]) -> None:
        """Queue a job's inputs, given by their numbers of tokens."""
        for index, size in enumerate(sizes):
            self._queues.setdefault((model, padded(size)), deque()).append(_Input(self._arrivals, job, index, size))
        self._arrivals += 1
        self.tokens += sum(sizes)

    def take(self, budget: int) -> Batch[Job, Model] | None:
        """The input that has waited longest, and others of its model and length, up to `budget` padded tokens."""
        if not self._queues:
            return None
        key = min(self._queues, key=lambda key: self._queues[key][0].arrival)
        model, length = key
        queue = self._queues[key]
        taken = tuple(queue.popleft() for _ in range(min(len(queue), max(1, budget // length))))
        if not queue:
            del self._queues[key]
        self.tokens -= sum(one.tokens for one in taken)
        return Batch(model, length, tuple((one.job, one.index) for one in taken))

    def drop(self, job: Job) -> None:
        """Forget what still waits of a job whose answer nobody wants any more."""
        for key, queue in list(self._queues.items()):
            kept = deque(one for one in queue if one.job is not job)
            self.tokens -= sum(one.tokens for one in queue if one.job is job)
            if kept:
                self._queues[key] = kept
            else:
                del self._queues[key]
