"""The parts of the operator, put together and kept running."""

import asyncio
import logging
import signal
import time
from typing import cast

from rag_operator import probes
from rag_operator.autoscaler import Autoscaler
from rag_operator.cluster import RAG_SERVICE, Cluster, ClusterError
from rag_operator.desired.names import MANAGER
from rag_operator.events import Recorder
from rag_operator.handlers import Handlers
from rag_operator.lease import Lease, LeaseLostError
from rag_operator.metrics import Metrics
from rag_operator.reconcile import Reconciler
from rag_operator.record import Key, Records
from rag_operator.resource_metrics import ResourceMetrics
from rag_operator.scaling.observe import Scraper
from rag_operator.settings import Settings
from rag_operator.workqueue import WorkQueue

log = logging.getLogger(__name__)

# Seconds after which a round of the autoscaler that has not ended is stuck.
STUCK = 60.0
# Seconds between attempts to list the RAGServices.
RETRY = 5.0


class Operator:
    """One operator process."""

    def __init__(self, cluster: Cluster, settings: Settings) -> None:
        self._cluster = cluster
        self._settings = settings
        self._records: Records = {}
        self._metrics = Metrics(self._records)
        self._queue: WorkQueue[Key] = WorkQueue(self._reconcile)
        self._resource_metrics = ResourceMetrics(cluster, self._queue.add)
        self._reconciler = Reconciler(
            cluster, self._records, settings.images, Recorder(cluster), self._resource_metrics
        )
        self._scraper = Scraper(timeout=settings.scrape_timeout)
        self._autoscaler = Autoscaler(self._records, self._scraper, self._queue.add, period=settings.scrape_period)
        self._handlers = Handlers(cluster, self._queue.add)
        self._lease: Lease | None = None
        if settings.lease_namespace:
            self._lease = Lease(cluster, settings.lease_namespace, MANAGER, settings.identity)
        self._stands_by = self._lease is not None
        self._swept = False

    async def run(self, port: int) -> None:
        """Run until SIGTERM or SIGINT, with probes and metrics on `port`. Raises when a part of it fails."""
        this = cast("asyncio.Task[None]", asyncio.current_task())
        for number in (signal.SIGTERM, signal.SIGINT):
            # Until Kopf puts its own, which ends the watches first.
            asyncio.get_running_loop().add_signal_handler(number, this.cancel)
        server = await probes.serve(port, self._ill, self._not_ready, self._metrics.registry)
        try:
            if self._lease:
                await self._lease.acquire()
                self._stands_by = False
            await self._work()
        except* LeaseLostError as lost:
            raise lost.exceptions[0] from None
        finally:
            if self._lease:
                await self._lease.release()
            await self._scraper.close()
            await server.cleanup()

    async def _work(self) -> None:
        """Watch, reconcile and scale until told to stop, or until the Lease is lost."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._lease.hold())] if self._lease else []
            await self._wait_for_the_crd()
            await self._resource_metrics.look()
            parts = (
                self._queue.run(self._settings.workers),
                self._autoscaler.run(),
                self._resource_metrics.run(),
                self._sweep(),
            )
            tasks += [group.create_task(part) for part in parts]
            group.create_task(self._handlers.run())
            await self._handlers.stopping.wait()
            for task in tasks:
                task.cancel()

    async def _reconcile(self, key: Key) -> float | None:
        with self._metrics.seconds.time():
            result = "error"
            try:
                again = await self._reconciler.reconcile(key)
                result = "success"
                return again
            finally:
                self._metrics.reconciles.labels(result).inc()

    async def _wait_for_the_crd(self) -> None:
        told = False
        while True:
            try:
                await self._cluster.list(RAG_SERVICE)
                return
            except ClusterError as error:
                if not told:
                    log.warning("waiting for the API server to know RAGServices: %s", error)
                told = True
                await asyncio.sleep(RETRY)

    async def _sweep(self) -> None:
        """Look at everything now and then: the net under the watches."""
        told = False
        while True:
            try:
                items = await self._cluster.list(RAG_SERVICE)
            except ClusterError as error:
                if not told:
                    log.warning("the sweep waits for the API server: %s", error)
                told = True
                await asyncio.sleep(RETRY)
                continue
            told = False
            self._handlers.freshness.listed(items, time.monotonic())
            there = {Key(item["metadata"]["namespace"], item["metadata"]["name"]) for item in items}
            for key in there | set(self._records):
                self._queue.add(key)
            self._swept = True
            await asyncio.sleep(self._settings.sweep_period)

    def _ill(self) -> str | None:
        """What only a restart mends."""
        now = time.monotonic()
        if self._handlers.freshness.stale(now):
            return "the watch of RAGServices does not tell what a list shows"
        if self._autoscaler.last_round and now - self._autoscaler.last_round > STUCK + self._settings.scrape_period:
            return "the autoscaler's round does not end"
        return None

    def _not_ready(self) -> str | None:
        if self._stands_by:
            # As ready as it can be: a rollout that waits for its turn would wait for the other to end, for ever.
            return None
        if not self._handlers.ready.is_set():
            return "the watches have not begun"
        return None if self._swept else "nothing was listed yet"
