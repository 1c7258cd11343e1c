"""Bad requests get a 4xx that helps, and hurt nobody."""

import json
import socket
from collections.abc import Iterator

import pytest

from tests.service.running import InProcess

JSON = {"Content-Type": "application/json"}


def ask(**parts: object) -> bytes:
    return json.dumps({"query": "q", "texts": ["a"]} | parts).encode()


BODIES: dict[str, tuple[bytes, int, str]] = {
    "nothing": (b"", 400, "no JSON"),
    "no JSON": (b"query=q", 400, "no JSON"),
    "broken JSON": (b'{"query": "q", "texts": ["a"', 400, "no JSON"),
    "two documents": (b"{}{}", 400, "no JSON"),
    "raw null bytes": (b'{"query": "\x00", "texts": ["a"]}', 400, "no JSON"),
    "only null bytes": (b"\x00" * 100, 400, "no JSON"),
    "UTF-16": ('{"query": "q", "texts": ["a"]}'.encode("utf-16"), 400, "no JSON"),
    "no UTF-8": (b'{"query": "q", "texts": ["\xff"]}', 400, "no JSON"),
    "a lone surrogate": (b'{"query": "q", "texts": ["\\ud800"]}', 400, "no JSON"),
    "a lone low surrogate": (b'{"query": "\\udc00 x", "texts": ["a"]}', 400, "no JSON"),
    "a surrogate in UTF-8": (b'{"query": "q", "texts": ["\xed\xa0\x80"]}', 400, "no JSON"),
    "a deep nesting": (b"[" * 100_000, 400, "recursion limit"),
    "deep metadata": (
        b'{"query": "q", "texts": [{"text": "a", "metadata": ' + b'{"a":' * 5_000 + b"1" + b"}" * 5_000 + b"}]}",
        400,
        "recursion limit",
    ),
    "null": (b"null", 422, "object"),
    "a list": (b"[]", 422, "object"),
    "no query": (b'{"texts": ["a"]}', 422, "query: Field required"),
    "no texts": (b'{"query": "q"}', 422, "texts: Field required"),
    "an empty query": (ask(query=""), 422, "query: String should have at least 1 character"),
    "a query of another type": (ask(query=["q"]), 422, "query: Input should be a valid string"),
    "no documents": (ask(texts=[]), 422, "texts: "),
    "a document alone": (ask(texts="a"), 422, "texts: Input should be a valid array"),
    "an empty document": (ask(texts=["a", ""]), 422, "texts[1]: String should have at least 1 character"),
    "an empty text": (ask(texts=[{"text": ""}]), 422, "texts[0].text: String should have at least 1 character"),
    "a document without text": (ask(texts=[{"id": "x"}]), 422, "texts[0].text: Field required"),
    "documents of another type": (ask(texts=["a", 1]), 422, "texts[1]: Input should be a valid string"),
    "a null document": (ask(texts=[None]), 422, "texts[0]: Input should be a valid string"),
    "a nested list": (ask(texts=[["a"]]), 422, "texts[0]: Input should be a valid string"),
    "an id of another type": (ask(texts=[{"text": "a", "id": 7}]), 422, "texts[0].id: Input should be a valid string"),
    "metadata of another type": (ask(texts=[{"text": "a", "metadata": 7}]), 422, "texts[0].metadata"),
    "an unknown field": (ask(topn=1), 422, "topn: Extra inputs are not permitted"),
    "an unknown field of a document": (ask(texts=[{"text": "a", "title": "b"}]), 422, "texts[0].title"),
    "top_n zero": (ask(top_n=0), 422, "top_n"),
    "top_n negative": (ask(top_n=-1), 422, "top_n"),
    "top_n as text": (ask(top_n="1"), 422, "top_n: Input should be a valid integer"),
    "top_n beyond all bounds": (b'{"query": "q", "texts": ["a"], "top_n": ' + b"9" * 5_000 + b"}", 400, "out of range"),
    "NaN for a number": (b'{"query": "q", "texts": ["a"], "top_n": NaN}', 422, "top_n"),
    "NaN in metadata": (b'{"query": "q", "texts": [{"text": "a", "metadata": {"x": [NaN]}}]}', 422, "nan is no JSON"),
    "Infinity in metadata": (b'{"query": "q", "texts": [{"text": "a", "metadata": {"x": -Infinity}}]}', 422, "-inf"),
    "a number too large": (
        b'{"query": "q", "texts": [{"text": "a", "metadata": {"x": 1e999}}]}',
        422,
        "inf is no JSON",
    ),
    "a flag as text": (ask(truncate="yes"), 422, "truncate: Input should be a valid boolean"),
    "an unknown model": (ask(model="gpt"), 404, "only best, light, cosine"),
    "a model of a long name": (ask(model="m" * 100_000), 404, "there is no model 'mmm"),
    "an unknown field of a long name": (ask(**{"f" * 100_000: 1}), 422, "fff"),
    "an empty model": (ask(model=""), 404, "only best, light, cosine"),
    "too many documents": (ask(texts=["a"] * 51), 422, "51 documents, at most 50"),
    "a long document": (ask(texts=["a", "b" * 20_001]), 422, "texts[1]: 20001 characters, at most 20000"),
    "a long query": (ask(query="b" * 20_001), 422, "query: 20001 characters, at most 20000"),
    "10 MB": (ask(texts=["b" * 10_000_000]), 413, "larger than 300000 bytes"),
}


@pytest.mark.parametrize("case", BODIES)
def test_a_bad_body_is_refused_in_words_that_help(service: InProcess, case: str) -> None:
    body, status, words = BODIES[case]
    answer = service.client.post("/rerank", content=body, headers=JSON)
    assert (answer.status_code, words in answer.json()["error"]) == (status, True), answer.text
    assert set(answer.json()) == {"error", "error_type"}
    assert len(answer.text) < 1000  # it tells what is wrong, and does not send the request back
    assert service.rerank("q", ["a"]).status_code == 200


def test_errors_of_many_fields_are_not_listed_without_end(service: InProcess) -> None:
    answer = service.client.post("/rerank", content=ask(**{f"field{number}": 1 for number in range(100)}), headers=JSON)
    assert answer.json()["error"].endswith("and 97 more")
    answer = service.client.post("/rerank", content=ask(**{f"f{number}": 1 for number in range(20_000)}), headers=JSON)
    assert answer.json()["error"] == "the body: 20000 things are wrong with it"


def test_null_characters_in_a_text_are_only_characters(service: InProcess) -> None:
    assert service.rerank("a\x00b", ["c\x00d", "\x00"]).status_code == 200


def test_a_body_without_a_length_is_bounded_while_it_is_read(service: InProcess) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        yield b'{"query": "q", "texts": ["'
        for _ in range(200):
            sent += 1
            yield b"b" * 50_000

    answer = service.client.post("/rerank", content=endless(), headers=JSON)
    assert answer.status_code == 413
    assert service.rerank("q", ["a"]).status_code == 200


@pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded", "application/jsonx", "é"])
def test_another_content_type_is_refused_with_the_right_one(service: InProcess, kind: str | None) -> None:
    headers = {} if kind is None else {"Content-Type": kind.encode()}
    answer = service.client.post("/rerank", content=ask(), headers=headers)
    assert answer.status_code == 415
    assert "application/json" in answer.json()["error"]


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "Application/JSON"])
def test_the_right_content_type_may_be_spelled_as_http_allows(service: InProcess, kind: str) -> None:
    assert service.client.post("/rerank", content=ask(), headers={"Content-Type": kind}).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/rerank", 405),
        ("PUT", "/rerank", 405),
        ("POST", "/", 404),
        ("GET", "/rerank/", 404),
        ("GET", "/../etc/passwd", 404),
        ("POST", "/healthz", 405),
        ("PATCH", "/rerank", 405),
    ],
)
def test_another_method_or_path_is_refused(service: InProcess, method: str, path: str, status: int) -> None:
    answer = service.client.request(method, path, follow_redirects=False)
    assert answer.status_code == status
    assert set(answer.json()) == {"error", "error_type"}


@pytest.mark.parametrize(
    "sent",
    [
        b"nonsense\r\n\r\n",
        b"POST /rerank HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        b"POST /rerank HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\nContent-Length: 20\r\n\r\n{}",
        b"POST /rerank HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS
    ],
)
def test_what_is_no_http_closes_the_connection_and_hurts_nobody(service: InProcess, sent: bytes) -> None:
    port = int(service.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert not answer or answer.startswith(b"HTTP/1.1 4")
    assert service.rerank("q", ["a"]).status_code == 200


def test_no_bad_request_counts_as_the_services_failure(service: InProcess) -> None:
    before = service.load()["requests"]
    for body, _, _ in BODIES.values():
        service.client.post("/rerank", content=body, headers=JSON)
    assert service.load()["requests"] == before
