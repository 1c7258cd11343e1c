"""Several processes on one port: they look like one, and the loss of one costs no more than what it had in hand."""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from rag_service.contract.load import LoadReport, merged
from tests.service.running import ServiceProcess, drain, until
from tests.service.troubled import DIE, HANG

pytestmark = pytest.mark.process


class Troubled(ServiceProcess):
    def __init__(self, directory: Path, models: dict[str, str], **changes: object) -> None:
        super().__init__(directory, models, workers=2, **changes)
        self.order = directory / "order"
        self.program = ("tests.service.troubled", str(self.order))


@pytest.fixture
def service(tmp_path: Path, tiny: dict[str, str]) -> Iterator[Troubled]:
    with Troubled(tmp_path, tiny) as running:
        until(lambda: fresh(running).get("/readyz").status_code == 200)
        yield running


def fresh(service: ServiceProcess) -> httpx.Client:
    """A client that meets whichever worker accepts its connection."""
    return httpx.Client(base_url=service.url, timeout=60, headers={"Connection": "close"})


def ask(service: ServiceProcess, query: str = "q") -> httpx.Response:
    with fresh(service) as client:
        return client.post("/rerank", json={"query": query, "texts": ["a", "bb"]})


def report(service: ServiceProcess) -> LoadReport:
    with fresh(service) as client:
        return LoadReport.model_validate(client.get("/internal/load").json())


def pids(service: ServiceProcess) -> dict[str, int]:
    """Process ids of the workers, by number."""
    listed = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(service.process.pid)], capture_output=True, text=True, check=True
    )
    found = {}
    for pid in map(int, listed.stdout.split()):
        try:
            environment = Path(f"/proc/{pid}/environ").read_text()
        except OSError:  # it just ended
            continue
        if '"number": ' in environment:
            found[environment.partition('"number": ')[2][0]] = pid
    return found


def samples(service: ServiceProcess, name: str) -> dict[str, float]:
    """A metric by worker."""
    with fresh(service) as client:
        text = client.get("/metrics").text
    families = text_string_to_metric_families(text)
    return {
        sample.labels["worker"]: sample.value
        for family in families
        for sample in family.samples
        if sample.name == name and sample.labels.get("outcome", "answered") == "answered"
    }


def test_whoever_is_asked_tells_of_all(service: Troubled) -> None:
    first = report(service)
    assert first.threads == 2
    for number in range(20):
        assert ask(service, f"query {number}").status_code == 200
    for _ in range(10):
        now = report(service)
        assert (now.requests.answered, sum(now.latency), now.pairs.misses) == (20, 20, 40)
        assert now.incarnation == first.incarnation
        assert now.uptime > first.uptime
        by_worker = samples(service, "ragservice_requests_total")
        assert set(by_worker) == {"0", "1"}
        assert sum(by_worker.values()) == 20
        with fresh(service) as client:
            stats = client.get("/stats").json()
        assert (stats["samples"], stats["cache_misses"]) == (20, 40)
    assert set(samples(service, "process_resident_memory_bytes")) == {"0", "1"}


def test_a_worker_that_is_killed_is_replaced_and_the_other_answers_meanwhile(service: Troubled) -> None:
    before, workers = report(service), pids(service)
    os.kill(workers["1"], signal.SIGKILL)
    answers = [ask(service, f"meanwhile {number}").status_code for number in range(20)]
    assert set(answers) == {200}
    with fresh(service) as client:
        assert client.get("/readyz").status_code == 200
    until(lambda: set(samples(service, "ragservice_engine_up")) == {"0", "1"} and pids(service)["1"] != workers["1"])
    after = report(service)
    assert pids(service)["0"] == workers["0"]
    assert after.incarnation != before.incarnation
    assert after.threads == 2


def test_only_what_a_killed_worker_had_in_hand_is_lost(service: Troubled) -> None:
    stop, failed, answered = threading.Event(), [], []

    def load() -> None:
        while not stop.is_set():
            try:
                answered.append(ask(service, "under load").status_code)
            except httpx.HTTPError as error:
                failed.append(error)

    clients = [threading.Thread(target=load) for _ in range(4)]
    for client in clients:
        client.start()
    until(lambda: len(answered) > 20)
    os.kill(pids(service)["0"], signal.SIGKILL)
    seen = len(answered)
    until(lambda: len(answered) > seen + 50)
    stop.set()
    for client in clients:
        client.join(60)
    assert set(answered) == {200}
    assert len(failed) <= 4


def test_one_stuck_worker_makes_the_pod_not_ready_until_it_goes_on(service: Troubled) -> None:
    with ThreadPoolExecutor(8) as background:
        for number in range(20):  # both have measured something
            assert ask(service, f"query {number}").status_code == 200
        service.order.write_text(HANG)
        waiting = background.submit(ask, service, "hangs")
        assert waiting.result().status_code == 503
        for _ in range(6):  # whoever is asked
            with fresh(service) as client:
                answer = client.get("/readyz")
                assert (answer.status_code, client.get("/healthz").status_code) == (503, 200)
                assert "is stuck" in answer.json()["error"]
        service.order.unlink()
        until(lambda: fresh(service).get("/readyz").status_code == 200)


def test_a_worker_whose_engine_died_is_replaced(service: Troubled) -> None:
    workers = pids(service)
    service.order.write_text(DIE)
    assert ask(service).status_code == 503
    service.order.unlink()
    until(lambda: len(pids(service)) == 2 and pids(service) != workers)
    until(lambda: fresh(service).get("/readyz").status_code == 200)
    assert {ask(service, f"query {number}").status_code for number in range(10)} == {200}


def test_a_worker_that_answers_nothing_makes_the_pod_not_ready(service: Troubled) -> None:
    os.kill(pids(service)["1"], signal.SIGSTOP)
    try:
        refused = []
        until(lambda: refused.extend(quickly(service, "/readyz", 503)) or refused)
        assert "process 1 of the pod does not answer" in refused[0].json()["error"]
        until(lambda: quickly(service, "/internal/load", 503))
    finally:
        os.kill(pids(service)["1"], signal.SIGCONT)
    until(lambda: quickly(service, "/readyz", 200))


def quickly(service: ServiceProcess, path: str, status: int) -> list[httpx.Response]:
    """An answer of this status, unless the connection meets a worker that does not answer."""
    try:
        answer = httpx.get(service.url + path, timeout=8, headers={"Connection": "close"})
    except httpx.TimeoutException:
        return []
    return [answer] if answer.status_code == status else []


def test_no_request_fails_while_all_of_them_drain(tmp_path: Path, tiny: dict[str, str]) -> None:
    with Troubled(tmp_path, tiny, drain="1s") as service:
        drained = drain(service, clients=6)
        assert (drained.told, drained.failed, set(drained.answered)) == (6, [], {200})
        assert service.process.wait(30) == 0
        refused_or_gone(service)


def refused_or_gone(service: ServiceProcess) -> None:
    port = int(service.url.rpartition(":")[2])
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_worker_outlives_its_keeper(tmp_path: Path, tiny: dict[str, str], number: signal.Signals) -> None:
    with Troubled(tmp_path, tiny) as service:
        workers = pids(service)
        assert len(workers) == 2
        service.process.send_signal(number)
        service.process.wait(30)
        until(lambda: not any(alive(pid) for pid in workers.values()))


def alive(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def test_wrong_settings_end_them_all(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text(
        '{"service": "a/b", "models": [{"name": "m", "uri": "file:///nowhere"}], "cache": {"ttl": "1h"},'
        '"requestTimeout": "10s", "workers": 3}'
    )
    ended = subprocess.run(
        [sys.executable, "-m", "rag_service", "serve", "--config", str(config), "--port", "0"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (ended.returncode, ended.stderr.count("there is no directory /nowhere")) == (2, 1)


def test_merged_reports_add_up() -> None:
    def one(**changes: object) -> LoadReport:
        told = {"incarnation": "a", "uptime": 1.0, "threads": 2, "busy": 0.5, "latency": [1] * 52} | changes
        return LoadReport.model_validate(told)

    assert merged([one()]) == one()
    both = merged([one(), one(incarnation="b", uptime=3, busy=1)])
    assert (both.uptime, both.threads, both.busy, set(both.latency)) == (3, 4, 1.5, {2})
    other = merged([one(incarnation="b"), one()])
    assert other.incarnation == both.incarnation != merged([one(), one(incarnation="c")]).incarnation
