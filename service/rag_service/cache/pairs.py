"""The cache in Redis (6.2 or newer), and how requests get by without it."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from random import random

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from rag_service.cache import Score, Trouble, layout
from rag_service.cache.breaker import Breaker
from rag_service.contract.settings import CacheSettings, RedisSettings, read_password

# The longest that a request waits for Redis, in seconds: a healthy one answers in a few hundred microseconds, and
# this much is also lost when the process itself is kept from its CPU for two periods of its limit.
PATIENCE = 0.25
CONNECTIONS = 32
FIELDS = 512  # fields in one command: Redis serves nobody else meanwhile
BACKLOG = 1000  # requests whose scores wait to be written
TOGETHER = 50  # of which so many are written in one round trip

_GONE = (RedisConnectionError, RedisTimeoutError, TimeoutError, OSError)

log = logging.getLogger(__name__)


class PairCache:
    """See `Cache`. After some failures in a row Redis is asked nothing until a probe in the background succeeds."""

    def __init__(self, client: Redis, service: str, ttl: timedelta, clock: Callable[[], float] = time.time) -> None:
        """`service` is part of every key. `clock`: seconds since 1970."""
        self.trouble = Trouble()
        self._client = client
        self._service = service
        self._ttl = ttl
        self._clock = clock
        self._breaker = Breaker()
        self._backlog: asyncio.Queue[tuple[str, Mapping[bytes, bytes]]] = asyncio.Queue(BACKLOG)
        self._writer: asyncio.Task[None] | None = None
        self._probe: asyncio.Task[None] | None = None

    @property
    def available(self) -> bool:
        """See `Cache`."""
        return not self._breaker.open

    async def start(self) -> None:
        """See `Cache`."""
        self._writer = asyncio.create_task(self._write())

    async def stop(self) -> None:
        """See `Cache`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE * 4 if self.available else 0):
                await self._backlog.join()
        tasks = [task for task in (self._writer, self._probe) if task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        with contextlib.suppress(*_GONE, RedisError):
            await self._client.aclose()

    async def lookup(self, fingerprint: str, query: str, documents: Sequence[str]) -> list[Score | None]:
        """See `Cache`. One round trip."""
        unknown: list[Score | None] = [None] * len(documents)
        if self._breaker.open:
            return unknown
        key = layout.key(self._service, fingerprint, query)
        fields = [layout.digest(document) for document in documents]
        pipeline = self._client.pipeline(transaction=False)
        for start in range(0, len(fields), FIELDS):
            pipeline.hmget(key, fields[start : start + FIELDS])
        try:
            async with asyncio.timeout(PATIENCE):
                parts: list[list[bytes | None]] = await pipeline.execute()
        except (*_GONE, RedisError) as error:
            self.trouble.lookups_failed += 1
            self._note(error)
            return unknown
        self._breaker.succeeded()
        now = self._clock()
        return [layout.unpack(value, now, self._ttl) for part in parts for value in part]

    def store(self, fingerprint: str, query: str, scores: Mapping[str, Score]) -> None:
        """See `Cache`. What cannot be written soon is dropped: it costs a computation, never an answer."""
        now = self._clock()
        values = {layout.digest(document): layout.pack(score, now) for document, score in scores.items()}
        if self._breaker.open or self._backlog.full():
            self.trouble.stores_dropped += 1
            return
        self._backlog.put_nowait((layout.key(self._service, fingerprint, query), values))

    async def _write(self) -> None:
        """Write what was stored, one round trip after the other."""
        while True:
            entries = [await self._backlog.get()]
            while len(entries) < TOGETHER and not self._backlog.empty():
                entries.append(self._backlog.get_nowait())
            try:
                await self._write_together(entries)
            except (*_GONE, RedisError) as error:
                self.trouble.stores_failed += len(entries)
                self._note(error)
            finally:
                for _ in entries:
                    self._backlog.task_done()

    async def _write_together(self, entries: Sequence[tuple[str, Mapping[bytes, bytes]]]) -> None:
        pipeline = self._client.pipeline(transaction=False)
        for key, values in entries:
            fields = list(values.items())
            for start in range(0, len(fields), FIELDS):
                pipeline.hset(key, mapping=dict(fields[start : start + FIELDS]))
            pipeline.pexpire(key, layout.expiry(self._ttl))
        async with asyncio.timeout(PATIENCE * 4):
            await pipeline.execute()

    def _note(self, error: Exception) -> None:
        """Redis failed. One that answers with an error (full, read-only) is there; one that does not answer is not."""
        if not isinstance(error, _GONE):
            log.warning("Redis refused a command: %s", error)
            return
        self._breaker.failed()
        if self._breaker.open and self._probe is None:
            log.warning("Redis is away, requests go on without the cache: %s", error or type(error).__name__)
            self._probe = asyncio.create_task(self._ask_again())

    async def _ask_again(self) -> None:
        """Until Redis answers: wait, ask. No request pays for a probe."""
        while self._breaker.open:
            await asyncio.sleep(self._breaker.pause(random()))  # noqa: S311 (spreads load, keeps no secret)
            try:
                async with asyncio.timeout(PATIENCE):
                    await self._client.ping()
            except (*_GONE, RedisError):
                self._breaker.failed()
            else:
                self._breaker.succeeded()
        log.warning("Redis is back")
        self._probe = None


def connect(service: str, settings: CacheSettings, redis: RedisSettings) -> PairCache:
    """The cache that the settings describe; no connection is made yet.

    Raises ValueError when the URL is none of Redis, OSError when the password's file cannot be read.
    """
    password = read_password(redis)
    pool = BlockingConnectionPool.from_url(
        redis.url,
        max_connections=CONNECTIONS,
        timeout=PATIENCE,
        password=password.get_secret_value() if password else None,
        socket_timeout=PATIENCE * 4,
        socket_connect_timeout=PATIENCE,
        socket_keepalive=True,
        retry=Retry(NoBackoff(), 0),
        # No greetings that old servers refuse: a new connection is ready after AUTH.
        protocol=2,
        driver_info=None,
    )
    return PairCache(Redis(connection_pool=pool), service, settings.ttl)
