"""When a decision is worth a reconciliation, and with it a word in the status."""

import time
from collections.abc import Collection, Mapping

from rag_operator.autoscaler import Autoscaler
from rag_operator.record import Key, Record, Scaling
from rag_operator.scaling.estimate import Sample
from rag_operator.scaling.observe import Scraper
from rag_operator.scaling.plan import State
from rag_operator.scaling.target import Target
from tests.scaling_world import GOAL, Pod

KEY = Key("team", "faq")


class Simulated(Scraper):
    """Reads the load of one pod that `work` moves on."""

    def __init__(self) -> None:
        super().__init__()
        self.pod = Pod(1000.0, 0.0)
        self.now = time.monotonic()
        self.pod.started = self.now
        self.silent = False

    def work(self, tokens: float) -> None:
        self.now += 5
        self.pod.work(5, tokens, 0.0)

    async def scrape(self, targets: Collection[Target]) -> Mapping[str, Sample | None]:
        sample = None if self.silent else Sample(self.now, self.pod.report(self.now))
        return {target.pod: sample for target in targets}


async def test_what_a_condition_says_is_told_when_it_changes_and_not_a_minute_later() -> None:
    told: list[Key] = []
    scraper = Simulated()
    now = time.monotonic()
    scaling = Scaling(GOAL, State.start(GOAL.max_replicas, now), (Target("pod", "127.0.0.1", True),))
    record = Record(uid="1", scaling=scaling, status_checked=now)
    autoscaler = Autoscaler({KEY: record}, scraper, told.append, period=5.0)

    async def steps(tokens: float) -> int:
        before = len(told)
        for _ in range(3):
            scraper.work(tokens)
            await autoscaler.step(KEY, record)
        return len(told) - before

    assert await steps(1000) == 1, "the first decision"
    assert await steps(1000) == 0, "nothing new"
    # The replicas are the same in all that follows: they are at the maximum.
    scraper.silent = True
    assert await steps(0) == 1, "ScalingActive is False"
    scraper.silent = False
    assert await steps(1000) == 1, "ScalingActive is True"
    assert await steps(1_000_000) == 1, "AtMaximum is True"
    assert scaling.required == GOAL.max_replicas
