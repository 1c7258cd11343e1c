"""The engine in trouble: dead threads, failing batches, clients that leave, too much work. Nobody waits for ever."""

import asyncio
import contextlib
import socket
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from rag_service.contract.wire import LongDocuments
from rag_service.engine import engine, rankers
from rag_service.engine.reader import Reader
from rag_service.engine.tokens import Tokens
from rag_service.models import prepare
from tests.service.running import Gate, InProcess, ServiceProcess, until
from tests.service.troubled import DIE, HANG


@pytest.fixture
def service(tiny: dict[str, str]) -> Iterator[InProcess]:
    with InProcess({"m": tiny["best"]}) as running:
        yield running


@pytest.fixture
def background() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(32) as pool:
        yield pool


def test_a_dead_thread_fails_the_probes_and_answers_everyone(
    service: InProcess, background: ThreadPoolExecutor
) -> None:
    assert service.client.get("/readyz").status_code == 200
    service.gate.shut()
    waiting = [background.submit(service.rerank, f"query {number}", ["a", "b" * 50]) for number in range(10)]
    until(lambda: service.meter.in_flight == 10 and service.gate.waiting == 1)
    service.gate.errors = [SystemExit("the thread dies")]
    service.gate.open()
    for answer in waiting:
        assert answer.result(30).status_code == 503
        assert answer.result().json()["error_type"] == "Unhealthy"
    for path in ("/readyz", "/healthz"):
        answer = service.client.get(path)
        assert (answer.status_code, answer.json()["error_type"]) == (503, "Unhealthy")
    assert service.rerank("later", ["a"]).status_code == 503
    assert "ragservice_engine_up 0.0" in service.client.get("/metrics").text
    assert service.client.get("/internal/load").json()["requests"]["failed"] == 11


def test_one_dead_thread_of_several_is_enough(tiny: dict[str, str]) -> None:
    with InProcess({"m": tiny["best"]}, threads=3) as service:
        service.gate.errors = [SystemExit("the thread dies")]
        assert service.rerank("q", ["a"]).status_code == 503
        until(lambda: service.client.get("/healthz").status_code == 503)


def test_a_thread_that_hangs_is_not_ready_and_is_forgiven_when_it_goes_on(
    service: InProcess, background: ThreadPoolExecutor
) -> None:
    assert service.rerank("measures", ["the speed"]).status_code == 200
    service.gate.shut()
    waiting = [background.submit(service.rerank, f"query {number}", ["a", "b" * 50]) for number in range(10)]
    for answer in waiting:
        assert answer.result(30).status_code == 503
        assert "is stuck in a batch of" in answer.result().json()["error"]
    assert service.client.get("/readyz").status_code == 503
    assert service.client.get("/healthz").status_code == 200  # it may still come round
    refused = service.rerank("later", ["a"])
    assert (refused.status_code, refused.json()["error_type"]) == (503, "Unhealthy")
    assert service.engine.queued_tokens == 0
    assert "ragservice_engine_up 0.0" in service.client.get("/metrics").text
    service.gate.open()
    until(lambda: service.client.get("/readyz").status_code == 200)
    assert service.rerank("later", ["a"]).status_code == 200


def test_a_thread_that_hangs_for_long_has_the_process_restarted(
    service: InProcess, background: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "HOPELESS", 0.5)
    assert service.rerank("measures", ["the speed"]).status_code == 200
    service.gate.shut()
    assert background.submit(service.rerank, "q", ["a"]).result(30).status_code == 503
    until(lambda: service.client.get("/healthz").status_code == 503)
    assert "is stuck" in service.client.get("/healthz").json()["error"]


def test_a_slow_first_batch_is_no_hanging_one(service: InProcess, background: ThreadPoolExecutor) -> None:
    service.gate.shut()
    waiting = background.submit(service.rerank, "q", ["a"])
    until(lambda: service.gate.waiting == 1)
    time.sleep(2)
    assert service.client.get("/readyz").status_code == 200
    service.gate.open()
    assert waiting.result().status_code == 200


@pytest.mark.process
@pytest.mark.parametrize(("order", "liveness"), [(HANG, 200), (DIE, 503)])
def test_a_process_whose_engine_is_in_trouble_answers_everyone_and_is_not_ready(
    tmp_path: Path, tiny: dict[str, str], background: ThreadPoolExecutor, order: str, liveness: int
) -> None:
    class Process(ServiceProcess):
        program = ("tests.service.troubled", str(tmp_path / "order"))

    with Process(tmp_path, tiny, threads=2) as service:
        assert service.rerank("measures", ["the speed"]).status_code == 200
        (tmp_path / "order").write_text(order)
        waiting = [background.submit(service.rerank, f"query {number}", ["a", "b" * 50]) for number in range(10)]
        assert {answer.result(30).status_code for answer in waiting} == {503}
        assert service.client.get("/readyz").status_code == 503
        assert service.client.get("/healthz").status_code == liveness
        (tmp_path / "order").unlink()
        if order == HANG:
            until(lambda: service.client.get("/readyz").status_code == 200)
            assert service.rerank("again", ["a"]).status_code == 200


def test_what_has_to_be_answered_sooner_is_computed_sooner(service: InProcess, background: ThreadPoolExecutor) -> None:
    def ask(query: str, seconds: str) -> float:
        body = {"query": query, "texts": ["a" * 40 + letter * 60 for letter in "bcdefghi"]}
        answer = service.client.post("/rerank", json=body, headers={"X-Request-Timeout": seconds})
        assert answer.status_code == 200
        return time.monotonic()

    service.gate.shut()
    first = background.submit(ask, "fills the thread", "20")
    until(lambda: service.gate.waiting == 1)
    patient = background.submit(ask, "patient", "19s")
    until(lambda: service.engine.queued_tokens > 0)
    before = service.engine.queued_tokens
    urgent = background.submit(ask, "urgent", "10s")
    until(lambda: service.engine.queued_tokens > before)
    service.gate.open()
    assert urgent.result(30) < min(patient.result(30), first.result(30))


def test_a_client_may_wait_for_less_than_the_service_would(service: InProcess) -> None:
    service.gate.shut()
    body = {"query": "q", "texts": ["a"]}
    for timeout in ("0.5", "500ms"):
        answer = service.client.post("/rerank", json=body, headers={"X-Request-Timeout": timeout})
        assert (answer.status_code, answer.json()["error_type"]) == (504, "Timeout")
    assert service.engine.queued_tokens == 0
    answer = service.client.post("/rerank", json=body, headers={"X-Request-Timeout": "soon"})
    assert answer.status_code == 400
    assert "X-Request-Timeout: 'soon' is not a duration" in answer.json()["error"]


def test_a_batch_that_fails_fails_its_requests_alone(service: InProcess) -> None:
    service.gate.errors = [RuntimeError("the runtime ran out of something")]
    failed = service.rerank("q", ["a"])
    assert (failed.status_code, failed.json()["error_type"]) == (503, "Backend")
    tokens = service.load()["tokens"]
    assert (tokens["offered"], tokens["scored"]) == (len("[q]a]"), 0)  # work that failed is no speed
    assert service.rerank("q", ["a"]).status_code == 200
    assert service.client.get("/readyz").status_code == 200


def test_one_request_cannot_make_a_replica_unhealthy(service: InProcess) -> None:
    service.gate.errors = [RuntimeError("this text breaks it") for _ in range(3)]
    failed = service.rerank("q", ["a" * 10, "b" * 30, "c" * 60])  # three lengths: three batches
    assert failed.status_code == 503
    service.gate.errors = []
    assert service.rerank("q", ["a"]).status_code == 200
    assert service.client.get("/readyz").status_code == 200


def test_a_score_that_is_no_number_is_an_error_and_no_answer(service: InProcess) -> None:
    service.gate.broken = True
    assert service.rerank("q", ["a"]).json()["error_type"] == "Backend"
    service.gate.broken = False
    assert service.rerank("q", ["a"]).status_code == 200


def test_a_model_on_which_every_batch_fails_is_not_healthy(service: InProcess) -> None:
    service.gate.errors = [RuntimeError("broken") for _ in range(3)]
    for _ in range(3):
        assert service.rerank("q", ["a"]).status_code == 503
    until(lambda: service.client.get("/healthz").status_code == 503)


def test_work_whose_client_left_is_not_done(service: InProcess) -> None:
    service.gate.shut()
    port = int(service.url.rpartition(":")[2])
    body = b'{"query": "q", "texts": ["abcdefgh"]}'
    request = b"POST /rerank HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
    connections = []
    for _ in range(20):
        connection = socket.create_connection(("127.0.0.1", port))
        connection.sendall(request % (len(body), body))
        connections.append(connection)
    meter = service.meter
    until(lambda: meter.in_flight == 20 and service.gate.waiting == 1 and service.engine.queued_tokens > 0)
    for connection in connections:
        connection.close()
    until(lambda: meter.in_flight == 0)
    assert service.engine.queued_tokens == 0
    service.gate.open()
    assert service.rerank("q", ["stays"]).status_code == 200
    # The batch that was at the gate was computed, what waited behind it was not.
    assert service.gate.inputs < 20
    assert meter.requests["abandoned"] == 20
    assert service.client.get("/internal/load").json()["requests"] == {"answered": 1, "rejected": 0, "failed": 0}


def test_a_client_that_leaves_while_it_sends_is_forgotten(service: InProcess) -> None:
    port = int(service.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(
            b"POST /rerank HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
        )
        until(lambda: service.meter.in_flight == 1)
    until(lambda: service.meter.in_flight == 0)
    assert service.meter.requests["abandoned"] == 1


def test_a_request_that_takes_too_long_gets_504_and_its_work_is_dropped(
    tiny: dict[str, str], background: ThreadPoolExecutor
) -> None:
    with InProcess({"m": tiny["best"]}, requestTimeout="300ms") as service:
        service.gate.shut()
        waiting = [background.submit(service.rerank, "q", ["a" * number]) for number in (1, 20, 40)]
        answers = [answer.result(60) for answer in waiting]
        assert {(answer.status_code, answer.json()["error_type"]) for answer in answers} == {(504, "Timeout")}
        assert service.engine.queued_tokens == 0
        service.gate.open()
        until(lambda: service.gate.waiting == 0)
        assert service.rerank("q", ["a"]).status_code == 200


def test_a_body_that_comes_too_slowly_gets_408(tiny: dict[str, str]) -> None:
    with InProcess({"m": tiny["best"]}, requestTimeout="300ms") as service:
        port = int(service.url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
            connection.sendall(
                b"POST /rerank HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
            )
            assert connection.recv(65536).startswith(b"HTTP/1.1 408 ")


def test_more_work_than_can_be_done_in_time_is_refused_with_a_time_to_come_back(
    tiny: dict[str, str], background: ThreadPoolExecutor
) -> None:
    with InProcess({"m": tiny["best"]}, requestTimeout="10s") as service:
        assert service.rerank("measures", ["the speed"]).status_code == 200
        service.engine.work.busy[0] = service.engine.work.scored / 20.0  # as if a slow machine read 20 tokens a second
        service.gate.shut()
        first = background.submit(service.rerank, "q", ["a" * 100])  # fills the thread
        until(lambda: service.gate.waiting == 1)
        second = background.submit(service.rerank, "q", ["b" * 100])  # waits: 5 s of work
        until(lambda: service.engine.queued_tokens > 0)
        refused = service.rerank("q", ["c" * 100, "d" * 100])
        assert (refused.status_code, refused.json()["error_type"]) == (429, "Overloaded")
        assert 1 <= int(refused.headers["Retry-After"]) <= 10
        service.gate.open()
        assert (first.result().status_code, second.result().status_code) == (200, 200)
        report = service.client.get("/internal/load").json()
        assert report["requests"] == {"answered": 3, "rejected": 1, "failed": 0}
        assert report["tokens"]["offered"] > report["tokens"]["scored"]


def test_clients_that_come_and_go_leave_nothing_behind(service: InProcess, background: ThreadPoolExecutor) -> None:
    def impatient(number: int) -> None:
        body = {"query": f"q{number}", "texts": ["a" * (number % 100 + 1)] * 3}
        with contextlib.suppress(httpx.TimeoutException):
            service.client.post("/rerank", json=body, timeout=httpx.Timeout(30, read=0.001 * (number % 8 + 1)))

    list(background.map(impatient, range(300)))
    meter = service.meter
    until(lambda: meter.in_flight == 0)
    assert service.engine.queued_tokens == 0
    assert not service.engine._jobs
    assert meter.requests["failed"] == 0
    assert sum(meter.requests.values()) <= 300
    assert service.rerank("q", ["a"]).status_code == 200


def test_a_huge_request_does_not_hold_up_the_tokenising_of_small_ones(
    service: InProcess, background: ThreadPoolExecutor
) -> None:
    service.gate.shut()
    huge = [f"{number} " + "abcde " * 600 for number in range(300)]  # a second's work
    waiting = background.submit(service.rerank, "huge", huge)
    until(lambda: service.meter.in_flight == 1)
    time.sleep(0.05)
    small = [background.submit(service.rerank, f"small {number}", ["a"]) for number in range(5)]
    until(lambda: service.engine.work.offered > 0)
    assert service.engine.work.offered < 100  # of the small ones; the huge one comes as a whole
    service.gate.open()
    assert {answer.result(60).status_code for answer in (*small, waiting)} == {200}


async def test_work_whose_time_is_over_is_never_computed(tiny: dict[str, str]) -> None:
    ranker = rankers.load(*prepare.find(tiny["best"]))
    gate = ranker.backend = Gate(ranker.backend)
    made = engine.Engine(1, timedelta(hours=1))
    await made.start()
    try:
        gate.shut()
        first = asyncio.create_task(made.score(ranker, "fills the thread", ["a"]))
        await asyncio.to_thread(until, lambda: gate.waiting)
        late = asyncio.create_task(made.score(ranker, "late", ["bb", "c" * 50], deadline=time.monotonic() + 0.2))
        await asyncio.to_thread(until, lambda: made.queued_tokens)
        await asyncio.sleep(0.3)
        gate.open()
        assert len((await first).scores) == 1
        with pytest.raises(TimeoutError):
            await late
        assert gate.inputs == 1
        assert made.queued_tokens == 0
    finally:
        await made.stop()


async def test_more_load_than_can_be_read_is_refused_and_the_rest_is_answered(
    tiny: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice what the engine can score, where tokenising is only half as fast again."""
    ranker = rankers.load(*prepare.find(tiny["best"]))
    read, run = ranker.reader, ranker.backend.run

    def slow_reader(query: str, long: LongDocuments) -> Reader:
        time.sleep(1 / 300)
        return read(query, long)

    def slow_run(batch: Sequence[Tokens], length: int) -> NDArray[np.float32]:
        time.sleep(len(batch) / 200)
        return run(batch, length)

    monkeypatch.setattr(ranker, "reader", slow_reader)
    monkeypatch.setattr(ranker.backend, "run", slow_run)
    made = engine.Engine(1, timedelta(seconds=1))
    await made.start()
    try:
        asked = []
        for number in range(800):
            deadline = time.monotonic() + 1
            asked.append(asyncio.create_task(made.score(ranker, f"query {number}", ["a document"], deadline=deadline)))
            await asyncio.sleep(1 / 400)
        outcomes = await asyncio.gather(*asked, return_exceptions=True)
    finally:
        await made.stop()
    answered = sum(isinstance(outcome, engine.Scored) for outcome in outcomes)
    refused = sum(isinstance(outcome, engine.BusyError) for outcome in outcomes)
    assert answered > 100
    assert refused > 0


async def test_one_who_is_in_a_hurry_does_not_wait_for_those_who_have_time(tiny: dict[str, str]) -> None:
    ranker = rankers.load(*prepare.find(tiny["best"]))
    gate = ranker.backend = Gate(ranker.backend)
    made = engine.Engine(1, timedelta(seconds=30))
    await made.start()
    try:
        for number in range(3):
            await made.score(ranker, "learns the speed", [f"document {number}"])
        gate.shut()
        first = asyncio.create_task(made.score(ranker, "fills the thread", ["a"]))
        await asyncio.to_thread(until, lambda: gate.waiting)
        made.work.busy[0] = made.work.scored / 1000  # a thousand tokens a second
        bulk = asyncio.create_task(made.score(ranker, "bulk", [f"{number} " + "a " * 30 for number in range(300)]))
        await asyncio.to_thread(until, lambda: made.queued_tokens > 5000)
        hurried = asyncio.create_task(made.score(ranker, "hurried", ["a"], deadline=time.monotonic() + 2))
        await asyncio.sleep(0.1)
        gate.open()
        assert len((await hurried).scores) == 1
        assert not bulk.done()
        assert len((await bulk).scores) == 300
        assert len((await first).scores) == 1
    finally:
        await made.stop()


def test_a_request_of_too_many_tokens_is_refused(service: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "MOST_TOKENS", 20_000)
    refused = service.rerank("query", [f"{number} " + "abcde " * 500 for number in range(900)])
    assert refused.status_code == 413
    assert "more than 20000 tokens: send fewer documents, or shorter ones" in refused.json()["error"]
    assert service.rerank("query", ["a document"]).status_code == 200
