"""What a connection may bring besides bodies is bounded, and refused in words."""

import json
import socket
from collections.abc import Iterator

import pytest

from tests.service.running import ServiceProcess


@pytest.fixture(scope="module")
def process(tiny: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    with ServiceProcess(tmp_path_factory.mktemp("service"), tiny) as running:
        yield running


CHUNKED = b"POST /rerank HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("begin", "endless"),
    [
        (b"GET /", b"a" * 1000),
        (b"GET / HTTP/1.1\r\nX: ", b"a" * 1000),
        (b"GET / HTTP/1.1\r\n", b"X: a\r\n" * 100),
        (CHUNKED + b"0\r\n", b"X: a\r\n" * 100),
    ],
    ids=["line", "header", "headers", "trailers"],
)
def test_what_goes_on_without_end_is_refused(process: ServiceProcess, begin: bytes, endless: bytes) -> None:
    port = int(process.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(begin)
        with pytest.raises(ConnectionError):
            connection.sendall(endless * (100_000_000 // len(endless)))
    assert process.client.get("/healthz").status_code == 200


def test_long_headers_are_refused_in_words(process: ServiceProcess) -> None:
    port = int(process.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nX: " + b"a" * 65_536)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"headers are larger than 65536 bytes" in answer


def test_many_requests_over_one_connection_have_a_bound_each(process: ServiceProcess) -> None:
    for _ in range(100):
        assert process.client.get("/healthz", headers={"X": "a" * 2000}).status_code == 200
    body = json.dumps({"query": "q", "texts": ["a" * 90_000] * 20}).encode()
    assert process.client.post("/rerank", content=body, headers={"Content-Type": "application/json"}).is_success
    chunks = (body[start : start + 4096] for start in range(0, len(body), 4096))
    assert process.client.post("/rerank", content=chunks, headers={"Content-Type": "application/json"}).is_success
