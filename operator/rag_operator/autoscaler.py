"""Observe, estimate, plan: for every RAGService, every few seconds. Acting on a decision is the reconciler's."""

import asyncio
import logging
import time
import zlib
from collections.abc import Callable

from rag_operator import status
from rag_operator.reconcile import STATUS_PERIOD
from rag_operator.record import Key, Record, Records
from rag_operator.scaling import estimate, plan
from rag_operator.scaling.observe import Scraper

log = logging.getLogger(__name__)


class Autoscaler:
    """Keeps the decisions in the records fresh."""

    def __init__(
        self,
        records: Records,
        scraper: Scraper,
        reconcile: Callable[[Key], None],
        *,
        period: float,
    ) -> None:
        """`reconcile` queues a RAGService whose decision is to be acted upon; `period` is in seconds."""
        self._records = records
        self._scraper = scraper
        self._reconcile = reconcile
        self._period = period
        self.last_round: float | None = None
        """When the last round began, on the monotonic clock."""

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            began = self.last_round = time.monotonic()
            async with asyncio.TaskGroup() as group:
                for key, record in self._records.items():
                    group.create_task(self._spread(key, record))
            await asyncio.sleep(max(0.0, began + self._period - time.monotonic()))

    async def _spread(self, key: Key, record: Record) -> None:
        """One step, at the RAGService's own moment in the first half of the period: not all are asked at once."""
        await asyncio.sleep(zlib.crc32(str(key).encode()) / 2**32 * self._period / 2)
        try:
            await self.step(key, record)
        except Exception:
            # A fault in one RAGService must not stop the others.
            log.exception("%s: scaling failed; its replicas stay", key)

    async def step(self, key: Key, record: Record) -> None:
        """Read the load of one RAGService and decide."""
        scaling = record.scaling
        if scaling is None:
            return
        targets = scaling.targets
        scraped = await self._scraper.scrape(targets)
        known = bool(scaling.memory.samples)
        ready = [target.pod for target in targets if target.ready]
        scaling.memory = estimate.remember(scaling.memory, scraped, ready)
        if scaling.decision is None and not known and targets:
            # Loads are differences: after a start, the first reading says nothing yet.
            return
        required, told = scaling.required, status.told_at_once(scaling)
        scaling.estimate = estimate.estimate(scaling.memory, scraped)
        now = time.monotonic()
        scaling.decision, scaling.state = plan.plan(scaling.state, scaling.estimate, scaling.goal, now)
        if scaling.required != required:
            log.info("%s: from %d to %d replicas: %s", key, required, scaling.required, scaling.decision.reason)
        outdated = now - record.status_checked >= STATUS_PERIOD and status.numbers(scaling) != record.told
        if status.told_at_once(scaling) != told or outdated:
            self._reconcile(key)
