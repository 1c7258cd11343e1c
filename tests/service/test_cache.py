"""The pair cache: what is known is not computed again, and nothing else is ever served."""

import struct
import time
from pathlib import Path

import pytest

from tests import models
from tests.redis_server import RedisServer
from tests.service.running import InProcess, until


def stored(server: RedisServer, pairs: int) -> None:
    """Wait until so many pairs lie in Redis: they are written after the answer."""
    until(lambda: sum(server.client.hlen(key) for key in server.client.scan_iter()) >= pairs)


def test_the_second_time_is_a_hit_with_the_same_scores_to_the_bit(
    tmp_path: Path, tiny: dict[str, str], redis: RedisServer
) -> None:
    with InProcess(tiny, redis.url) as service:
        for number, model in enumerate(tiny, start=1):
            scores, hits, misses = service.known("reset", ["a", "bb", "ccc"], model=model)
            assert (hits, misses) == (0, 3)
            stored(redis, 3 * number)
            assert service.known("reset", ["ccc", "a", "bb"], model=model) == ([scores[2], *scores[:2]], 3, 0)


def test_of_a_request_that_is_known_in_part_only_the_rest_is_computed(
    tmp_path: Path, tiny: dict[str, str], redis: RedisServer
) -> None:
    with InProcess(tiny, redis.url) as service:
        known = service.known("reset", ["a", "bb", "ccc"])[0]
        stored(redis, 3)
        before = service.load()["tokens"]["scored"]
        scores, hits, misses = service.known("reset", ["dddd", "a", "bb", "ccc"])
        assert (scores[1:], hits, misses) == (known, 3, 1)
        assert service.load()["tokens"]["scored"] - before == len("reset") + len("dddd") + 3
        stored(redis, 4)
        assert service.known("reset", ["dddd"], top_n=1, return_text=True)[1:] == (1, 0)


def test_models_queries_and_services_share_no_scores(tmp_path: Path, tiny: dict[str, str], redis: RedisServer) -> None:
    with (
        InProcess(tiny, redis.url, service="ns/one") as one,
        InProcess(tiny, redis.url, service="ns/two") as two,
    ):
        first = one.known("reset", ["a", "b"])
        stored(redis, 2)
        assert one.known("reset", ["a", "b"], model="light")[1:] == (0, 2)
        assert one.known("reset", ["a", "b"], model="cosine")[1:] == (0, 2)
        assert one.known("Reset ", ["a", "b"])[1:] == (0, 2)
        assert two.known("reset", ["a", "b"])[1:] == (0, 2)
        assert one.known("reset", ["a", "b"]) == (first[0], 2, 0)
        stored(redis, 10)
        owners = {key.split(b":")[2] for key in redis.client.scan_iter()}
        assert owners == {b"ns/one", b"ns/two"}


def test_a_model_that_changed_under_its_name_starts_without_scores(tmp_path: Path, redis: RedisServer) -> None:
    answers = []
    for seed in (1, 2, 1):
        uri = f"file://{models.cross_encoder(tmp_path / 'model', seed=seed)}"
        with InProcess({"m": uri}, redis.url) as service:
            answers.append(service.known("reset", ["a"]))
            stored(redis, min(len(answers), 2))
    assert [answer[1] for answer in answers] == [0, 0, 1]
    assert answers[0][0] == answers[2][0] != answers[1][0]


def test_a_hit_prolongs_nothing_and_neither_does_a_new_neighbour(
    tmp_path: Path, tiny: dict[str, str], redis: RedisServer
) -> None:
    with InProcess(tiny, redis.url, cache={"ttl": "2s"}) as service:
        began = time.time()
        service.known("reset", ["old"])
        stored(redis, 1)
        (key,) = redis.client.scan_iter()
        created = 1_577_836_800 + (struct.unpack("<fI", redis.client.hvals(key)[0])[1] >> 1)
        assert int(began) <= created <= time.time()
        hits = 0
        while time.time() < created + 1.5:
            hits += service.known("reset", ["old"])[1]
            service.known("reset", [f"new {hits}"])
            time.sleep(0.1)
        assert hits > 3
        assert redis.client.pttl(key) > 1000  # the hash lives on for its newest field
        until(lambda: time.time() > created + 2)
        assert service.known("reset", ["old"])[1:] == (0, 1)
        until(lambda: not redis.client.exists(key))


def test_what_lies_in_redis_shows_no_text_and_is_small(
    tmp_path: Path, tiny: dict[str, str], redis: RedisServer
) -> None:
    with InProcess(tiny, redis.url) as service:
        service.known("a very secret question", [f"a very secret answer {number}" for number in range(10)])
        stored(redis, 10)
    (key,) = redis.client.scan_iter()
    fields = redis.client.hgetall(key)
    assert b"secret" not in key
    assert {(len(field), len(value)) for field, value in fields.items()} == {(16, 8)}


def test_a_broken_value_is_a_miss(tmp_path: Path, tiny: dict[str, str], redis: RedisServer) -> None:
    with InProcess(tiny, redis.url) as service:
        scores = service.known("reset", ["a", "b"])[0]
        stored(redis, 2)
        (key,) = redis.client.scan_iter()
        for field in redis.client.hkeys(key):
            redis.client.hset(key, field, b"garbage")
        assert service.known("reset", ["a", "b"]) == (scores, 0, 2)


def test_a_request_of_a_thousand_documents_is_cached_whole(
    tmp_path: Path, tiny: dict[str, str], redis: RedisServer
) -> None:
    texts = [f"{'abcdefghij'[number % 10]} {number}" for number in range(1000)]
    with InProcess(tiny, redis.url) as service:
        scores = service.known("reset", texts)[0]
        stored(redis, 1000)
        assert service.known("reset", texts) == (scores, 1000, 0)


def test_a_password_opens_redis(tmp_path: Path, tiny: dict[str, str]) -> None:
    (tmp_path / "password").write_text("correct horse\n")
    with RedisServer(tmp_path, password="correct horse") as server:
        settings = {"redis": {"url": server.url, "passwordFile": str(tmp_path / "password")}}
        with InProcess(tiny, cache=settings) as service:
            service.known("reset", ["a"])
            stored(server, 1)
            assert service.known("reset", ["a"])[1:] == (1, 0)


@pytest.mark.parametrize("cached", [True, False])
def test_what_was_stored_right_before_the_end_reaches_redis_where_there_is_one(
    tiny: dict[str, str], redis: RedisServer, cached: bool
) -> None:
    with InProcess(tiny, redis.url if cached else "") as service:
        service.known("reset", [f"text {number}" for number in range(200)])
    assert sum(redis.client.hlen(key) for key in redis.client.scan_iter()) == (200 if cached else 0)
