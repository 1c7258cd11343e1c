"""The Lease that says which of several operators works.

As client-go's leader election: a Lease whose record has not changed for its duration is free, by the clock of whoever
waits, so that clocks of different machines need not agree. The holder renews it often, and stops well before anybody
else may take it: it must be certain that it does not work beside another, even where no request gets an answer.
"""

import asyncio
import contextlib
import logging
import time
from datetime import UTC, datetime

from rag_operator.cluster import LEASE, Cluster, ClusterError, Object

log = logging.getLogger(__name__)

# Seconds after which a Lease that is not renewed is free.
DURATION = 15
# Seconds without a successful renewal after which the holder stops.
RENEW_DEADLINE = 10.0
# Seconds between attempts; a request may take as long.
RETRY = 2.0
# Seconds for the way out.
RELEASE_TIMEOUT = 5.0


class LeaseLostError(Exception):
    """The Lease could not be renewed in time, or somebody else has it."""


class Lease:
    """One Lease, and one who wants it."""

    def __init__(self, cluster: Cluster, namespace: str, name: str, identity: str) -> None:
        """`identity`: what tells this process from all others, also from those on the same node before it."""
        self._cluster = cluster
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._held = False
        # The record as it was last seen, and when it was first seen so.
        self._seen: tuple[object, float] = (None, 0.0)

    async def acquire(self) -> None:
        """Wait until the Lease is ours."""
        told = ""
        while not await self._try():
            holder = self._holder
            if holder != told:
                log.info("waiting: %s works", holder or "another operator")
                told = holder
            await asyncio.sleep(RETRY)
        log.info("%s works", self._identity)

    async def hold(self) -> None:
        """Renew the Lease until cancelled. Raises LeaseLostError when that fails for too long."""
        renewed = time.monotonic()
        while True:
            await asyncio.sleep(RETRY)
            began = time.monotonic()
            with contextlib.suppress(TimeoutError):
                # Not a moment longer than the deadline, whatever the request does.
                async with asyncio.timeout(renewed + RENEW_DEADLINE - began):
                    if await self._try():
                        renewed = began
                        continue
            if not self._held:
                raise LeaseLostError(f"the Lease is lost: {self._holder} has it")
            if time.monotonic() >= renewed + RENEW_DEADLINE:
                self._held = False
                raise LeaseLostError(f"the Lease is lost: it was not renewed within {RENEW_DEADLINE:.0f}s")

    async def release(self) -> None:
        """Let another one have it at once. Failing does no harm: it is free when its duration is over."""
        if not self._held:
            return
        self._held = False
        try:
            async with asyncio.timeout(RELEASE_TIMEOUT):
                lease = await self._cluster.get(LEASE, self._namespace, self._name)
                if lease and lease["spec"].get("holderIdentity") == self._identity:
                    await self._cluster.replace(LEASE, lease | {"spec": self._spec(lease, holder="")})
        except (ClusterError, TimeoutError) as error:
            log.warning("the Lease was not released: %s", str(error) or "no answer")

    @property
    def _holder(self) -> str:
        record = self._seen[0]
        return str(record[0]) if isinstance(record, tuple) else ""

    async def _try(self) -> bool:
        """Take or renew the Lease, if it is free or ours. False where it is not, or no request went through."""
        try:
            async with asyncio.timeout(RETRY):
                lease = await self._cluster.get(LEASE, self._namespace, self._name)
                if lease is None:
                    await self._cluster.create(LEASE, self._new())
                elif self._free(lease):
                    await self._cluster.replace(LEASE, lease | {"spec": self._spec(lease, holder=self._identity)})
                else:
                    self._held = False
                    return False
        except TimeoutError:
            return False
        except ClusterError as error:
            log.log(logging.DEBUG if error.retryable else logging.WARNING, "no Lease: %s", error)
            return False
        self._held = True
        return True

    def _free(self, lease: Object) -> bool:
        """Whether the Lease is ours, nobody's, or has not been renewed for its duration since we know it."""
        spec = lease.get("spec", {})
        record = (spec.get("holderIdentity"), spec.get("renewTime"), spec.get("leaseTransitions"))
        if record != self._seen[0]:
            self._seen = (record, time.monotonic())
        holder = spec.get("holderIdentity")
        expired = time.monotonic() - self._seen[1] > spec.get("leaseDurationSeconds", DURATION)
        return not holder or holder == self._identity or expired

    def _new(self) -> Object:
        metadata = {"name": self._name, "namespace": self._namespace}
        return {
            "apiVersion": LEASE.api_version,
            "kind": LEASE.kind,
            "metadata": metadata,
            "spec": self._spec({}, holder=self._identity),
        }

    def _spec(self, lease: Object, holder: str) -> Object:
        old, now = lease.get("spec", {}), datetime.now(UTC).isoformat(timespec="microseconds")
        changes = holder != old.get("holderIdentity")
        return {
            "holderIdentity": holder,
            "leaseDurationSeconds": DURATION,
            "acquireTime": now if changes else old.get("acquireTime", now),
            "renewTime": now,
            "leaseTransitions": old.get("leaseTransitions", 0) + (1 if changes and holder else 0),
        }
