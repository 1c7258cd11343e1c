"""Redis killed, frozen, full, locked, restarted, under load: requests go on, and hits come back when Redis does."""

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from rag_service.cache.pairs import PATIENCE
from rag_service.contract.wire import parse_cache_header
from tests.redis_server import RedisServer
from tests.service.running import InProcess, until

pytestmark = pytest.mark.process

TEXTS = ["a", "bb", "ccc"]


class Traffic:
    """Clients that ask, one request after the other, until they are stopped. Every second query is a repeated one."""

    def __init__(self, url: str, clients: int = 4) -> None:
        self.answers: list[tuple[int, float, int]] = []  # status, seconds, hits
        self.errors: list[Exception] = []
        self._url = url
        self._stop = threading.Event()
        self._numbers = itertools.count()
        self._threads = [threading.Thread(target=self._ask) for _ in range(clients)]

    def _ask(self) -> None:
        with httpx.Client(base_url=self._url, timeout=30) as client:
            while not self._stop.is_set():
                number = next(self._numbers)
                query = "repeated" if number % 2 else f"query {number}"
                began = time.monotonic()
                try:
                    answer = client.post("/rerank", json={"query": query, "texts": TEXTS})
                except httpx.HTTPError as error:
                    self.errors.append(error)
                    return
                known = parse_cache_header(answer.headers.get("X-Cache", ""))
                self.answers.append((answer.status_code, time.monotonic() - began, known[0] if known else 0))

    def more(self, count: int) -> list[tuple[int, float, int]]:
        """Wait for so many further answers; those."""
        before = len(self.answers)
        until(lambda: self.errors or len(self.answers) >= before + count, seconds=60)
        return self.answers[before:]

    def hits_again(self) -> None:
        """Wait until answers come from the cache."""
        until(lambda: self.errors or any(hits for _, _, hits in self.answers[-4:]), seconds=60)

    @contextmanager
    def running(self) -> Iterator["Traffic"]:
        for thread in self._threads:
            thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            for thread in self._threads:
                thread.join(60)
        assert not self.errors
        assert {status for status, _, _ in self.answers} == {200}


def available(service: InProcess) -> bool:
    return "ragservice_cache_available 1.0" in service.client.get("/metrics").text


@pytest.mark.parametrize(
    ("harm", "heal"),
    [(RedisServer.kill, RedisServer.start), (RedisServer.freeze, RedisServer.thaw)],
    ids=["killed", "frozen"],
)
def test_requests_go_on_without_redis_and_hits_come_back_with_it(
    tmp_path: Path,
    tiny: dict[str, str],
    redis: RedisServer,
    harm: Callable[[RedisServer], None],
    heal: Callable[[RedisServer], None],
) -> None:
    with InProcess(tiny, redis.url) as service, Traffic(service.url).running() as traffic:
        traffic.more(20)
        traffic.hits_again()
        for _ in range(2):
            harm(redis)
            traffic.more(20)
            until(lambda: not available(service))
            during = traffic.more(100)
            assert sum(hits for _, _, hits in during) == 0
            assert service.client.get("/readyz").status_code == 200
            heal(redis)
            traffic.hits_again()
            until(lambda: available(service))
        assert service.load()["requests"]["failed"] == 0


def test_a_frozen_redis_delays_few_requests_and_each_by_a_bounded_time(
    tmp_path: Path, tiny: dict[str, str], redis: RedisServer
) -> None:
    with InProcess(tiny, redis.url) as service:
        service.rerank("warm", TEXTS)
        redis.freeze()
        waits = []
        for number in range(30):
            answer = service.rerank(f"query {number}", TEXTS)
            assert answer.status_code == 200
            steps = dict(part.strip().split(";dur=") for part in answer.headers["Server-Timing"].split(","))
            waits.append(float(steps["cache"]) / 1000)
        # Later ones wait for nothing: the breaker is open, and its probes run beside the requests.
        assert sum(wait > PATIENCE / 2 for wait in waits) <= 4
        assert waits[-1] < PATIENCE / 2
        redis.thaw()
        until(lambda: available(service))


def test_without_redis_from_the_start_the_service_starts_and_finds_it_later(
    tmp_path: Path, tiny: dict[str, str], redis: RedisServer
) -> None:
    redis.kill()
    with InProcess(tiny, redis.url) as service, Traffic(service.url).running() as traffic:
        traffic.more(20)
        redis.start()
        traffic.hits_again()


def test_a_full_redis_takes_no_scores_but_gives_those_it_has(
    tmp_path: Path, tiny: dict[str, str], redis: RedisServer
) -> None:
    with InProcess(tiny, redis.url) as service:
        service.rerank("known", TEXTS)
        until(lambda: redis.client.dbsize() == 1)
        redis.client.config_set("maxmemory-policy", "noeviction")
        redis.client.config_set("maxmemory", 1)
        for number in range(10):
            assert service.rerank(f"query {number}", TEXTS).status_code == 200
        until(lambda: 'ragservice_cache_errors_total{operation="store"} 0.0' not in service.client.get("/metrics").text)
        assert service.rerank("known", TEXTS).headers["X-Cache"].startswith("hit")
        assert available(service)
        redis.client.config_set("maxmemory", 0)
        service.rerank("again", TEXTS)
        until(lambda: redis.client.dbsize() >= 2)


def test_a_password_that_redis_does_not_take_costs_no_request(
    tmp_path: Path, tiny: dict[str, str], redis: RedisServer
) -> None:
    with InProcess(tiny, redis.url) as service:
        redis.client.config_set("requirepass", "changed")
        redis.client.execute_command("AUTH", "changed")
        redis.client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        for number in range(10):
            assert service.rerank(f"query {number}", TEXTS).status_code == 200
        until(lambda: not available(service))
        redis.client.config_set("requirepass", "")
        until(lambda: available(service))


def test_a_lookup_that_was_broken_off_never_gives_its_answer_to_another(
    tiny: dict[str, str], redis: RedisServer
) -> None:
    """Clients leave in the middle of lookups, so that answers are on their way that nobody waits for."""
    with InProcess(tiny) as plain, InProcess(tiny, redis.url) as service, ThreadPoolExecutor(16) as pool:
        queries = [f"query {'abcdefghij'[number % 10]} {'abcdefghij'[number // 10]}" for number in range(100)]
        expected = [plain.scores(query, TEXTS) for query in queries]

        def impatient(number: int) -> None:
            with contextlib.suppress(httpx.TimeoutException):
                body = {"query": queries[number % 100], "texts": TEXTS}
                service.client.post("/rerank", json=body, timeout=httpx.Timeout(30, read=0.002 + number % 10 / 1000))

        for _ in range(3):
            redis.client.client_pause(100)
            list(pool.map(impatient, range(200)))
            assert list(pool.map(lambda query: service.scores(query, TEXTS), queries)) == expected
        until(lambda: available(service))
        known = [service.known(query, TEXTS) for query in queries]
        assert [scores for scores, _, _ in known] == expected
        assert sum(hits for _, hits, _ in known) > 0


def test_only_commands_that_the_oldest_supported_redis_knows_are_sent(tiny: dict[str, str], redis: RedisServer) -> None:
    refused = redis.client.info("stats")["total_error_replies"]
    with InProcess(tiny, redis.url) as service:
        service.rerank("q", TEXTS)
        until(lambda: redis.client.dbsize() == 1)
        service.rerank("q", TEXTS)
    sent = {name.removeprefix("cmdstat_") for name in redis.client.info("commandstats")}
    assert sent - {"info", "dbsize", "ping", "client", "hello"} == {"hmget", "hset", "pexpire"}
    assert redis.client.info("stats")["total_error_replies"] == refused


def test_a_key_of_another_type_costs_no_request(tmp_path: Path, tiny: dict[str, str], redis: RedisServer) -> None:
    with InProcess(tiny, redis.url) as service:
        service.rerank("known", TEXTS)
        until(lambda: redis.client.dbsize() == 1)
        (key,) = redis.client.scan_iter()
        redis.client.set(key, "not a hash")
        for _ in range(5):
            assert service.rerank("known", TEXTS).status_code == 200
        assert available(service)
