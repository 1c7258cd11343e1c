"""The bench's load generator against the service."""

import asyncio
import itertools
import json
import os
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.bench import load, servers
from tests.bench.texts import REFERENCE, Texts
from tests.service.running import InProcess


def port(service: InProcess) -> int:
    number = urlsplit(service.url).port
    assert number
    return number


def test_it_counts_what_is_answered_while_the_clock_runs(service: InProcess, tiny: dict[str, str]) -> None:
    texts = Texts(Path(tiny["best"].removeprefix("file://")) / "tokenizer.json")
    asked = texts.requests(REFERENCE._replace(tokens=10), "bench")
    bodies = ({"query": one.query, "texts": one.documents} for one in asked)
    sent = (load.request("/rerank", json.dumps(body).encode()) for body in bodies)
    before = service.load()
    cpu = servers.tree_cpu
    window = asyncio.run(load.drive(port(service), sent, 3, warm_up=0.1, seconds=0.4, cpu=lambda: cpu(os.getpid())))
    after = service.load()
    answered = after["requests"]["answered"] - before["requests"]["answered"]
    assert 0 < len(window.latencies) < answered
    assert after["inFlight"] == 0
    # Every query is new: each of ten documents was scored.
    assert after["pairs"]["misses"] - before["pairs"]["misses"] == 10 * answered
    assert after["pairs"]["hits"] == before["pairs"]["hits"]
    assert 0 < max(window.latencies) < window.seconds + 60
    assert window.rate == pytest.approx(len(window.latencies) / window.seconds)
    assert window.cpu > 0


def test_a_burst_is_answered_whole(service: InProcess) -> None:
    body = json.dumps({"query": "which", "texts": ["one", "two"]}).encode()
    before = service.load()["requests"]["answered"]
    assert asyncio.run(load.burst(port(service), [load.request("/rerank", body)] * 5)) > 0
    assert service.load()["requests"]["answered"] == before + 5


def test_an_error_ends_it(service: InProcess) -> None:
    bad = itertools.repeat(load.request("/rerank", b"{}"))
    with pytest.raises(ExceptionGroup) as caught:
        asyncio.run(load.drive(port(service), bad, 2, warm_up=0, seconds=5))
    assert "422" in str(caught.value.exceptions[0])


def test_a_request_may_have_the_connection_closed(service: InProcess) -> None:
    sent = load.request("/rerank", json.dumps({"query": "q", "texts": ["a"]}).encode())
    closing = sent.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1)

    async def twice() -> list[bytes]:
        connection = load.Connection(port(service))
        made = [await connection.ask(closing), await connection.ask(sent)]
        connection.close()
        return made

    first, second = asyncio.run(twice())
    assert first == second
