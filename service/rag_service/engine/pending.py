"""The inputs that wait for an engine thread, ready to be taken as batches of one length. Pure: no threads, no clock."""

import sys
from bisect import insort
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Generic, TypeVar

Job = TypeVar("Job")
Model = TypeVar("Model")

# Lengths go up in steps of 8 to 64, of 16 to 128, of 32 to 256, and so on: padding is a tenth on average, and there
# are few lengths. Every shape of a batch may be compiled by itself, which takes time once and memory for ever.
_STEP, _STEPS = 8, 8


def padded(tokens: int, longest: int = sys.maxsize) -> int:
    """The length that an input of so many tokens is padded to: by itself alone, whatever shares its batch.

    Padding to the longest of a batch would let a score depend on its batch mates, in the last bits at least, and
    waste work: inputs of mixed lengths run at a third of the speed. `longest`: what the model can read.
    """
    tokens = max(1, tokens)
    step = max(_STEP, (1 << (tokens - 1).bit_length()) // _STEPS)
    return min(-(-tokens // step) * step, longest)


@dataclass(frozen=True)
class Batch(Generic[Job, Model]):
    """Inputs of one model that run together, each the `index`-th of its job."""

    model: Model
    length: int
    inputs: tuple[tuple[Job, int], ...]

    @property
    def tokens(self) -> int:
        """What the model has to read, padding included."""
        return self.length * len(self.inputs)


@dataclass(eq=False)
class _Share(Generic[Job]):
    """Those inputs of one job that have one length, the last one first. `urgency`: what is smaller goes first."""

    urgency: tuple[float, int]
    job: Job
    inputs: list[tuple[int, int]]  # index and number of tokens


class Pending(Generic[Job, Model]):
    """Waiting inputs by model and padded length, earliest deadline first. `tokens`: their sum, without padding."""

    def __init__(self) -> None:
        self.tokens = 0
        self._queues: dict[tuple[Model, int], list[_Share[Job]]] = {}
        self._arrivals = count()

    def add(self, job: Job, model: Model, sizes: Sequence[int], deadline: float, longest: int = sys.maxsize) -> None:
        """Queue a job's inputs, given by their numbers of tokens. Of equal deadlines, the one that came first leads."""
        urgency = (deadline, next(self._arrivals))
        shares: dict[int, _Share[Job]] = {}
        for index in range(len(sizes) - 1, -1, -1):
            share = shares.setdefault(padded(sizes[index], longest), _Share(urgency, job, []))
            share.inputs.append((index, sizes[index]))
        for length, share in shares.items():
            insort(self._queues.setdefault((model, length), []), share, key=lambda one: one.urgency)
        self.tokens += sum(sizes)

    def take(self, budget: Callable[[Model], int]) -> Batch[Job, Model] | None:
        """The most urgent input, and the next ones of its model and length, up to the model's padded tokens.

        Their number is a power of two, so that there are few shapes.
        """
        key = min(self._queues, key=lambda key: self._queues[key][0].urgency, default=None)
        if key is None:
            return None
        model, length = key
        queue = self._queues[key]
        taken: list[tuple[Job, int]] = []
        waiting = sum(len(share.inputs) for share in queue)
        most = _power_of_two(max(1, min(waiting, budget(model) // length)))
        done = 0
        for share in queue:
            while share.inputs and len(taken) < most:
                index, size = share.inputs.pop()
                taken.append((share.job, index))
                self.tokens -= size
            if share.inputs:
                break
            done += 1
        self._keep(key, queue[done:])
        return Batch(model, length, tuple(taken))

    def overdue(self, now: float) -> set[Job]:
        """The jobs whose deadline has come and of which something still waits; they stay until they are dropped."""
        late: set[Job] = set()
        for queue in self._queues.values():
            for share in queue:
                if share.urgency[0] > now:
                    break
                late.add(share.job)
        return late

    def ahead(self, deadline: float) -> int:
        """The tokens that wait and go before those of a job that comes now with this deadline."""
        return sum(
            size
            for queue in self._queues.values()
            for share in queue
            if share.urgency[0] <= deadline
            for _, size in share.inputs
        )

    def clear(self) -> None:
        """Forget everything that waits."""
        self._queues.clear()
        self.tokens = 0

    def drop(self, job: Job) -> None:
        """Forget what still waits of a job whose answer nobody wants any more."""
        for key, queue in list(self._queues.items()):
            kept = [share for share in queue if share.job is not job]
            if len(kept) < len(queue):
                self.tokens -= sum(size for share in queue if share.job is job for _, size in share.inputs)
                self._keep(key, kept)

    def _keep(self, key: tuple[Model, int], queue: list[_Share[Job]]) -> None:
        if queue:
            self._queues[key] = queue
        else:
            del self._queues[key]


def _power_of_two(most: int) -> int:
    return 1 << (most.bit_length() - 1)
