"""`rag-loadtest run` as users start it, against real HTTP servers."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pytest
import yaml
from starlette.responses import Response

from tests.loadtest.server import Server, after, closed_port, every, serving

pytestmark = pytest.mark.process

ROOT = Path(__file__).parents[2]
CORPUS = ROOT / "examples" / "faq" / "corpus.yaml"


@dataclass
class Run:
    """What a run left behind."""

    status: int
    output: str
    errors: str
    report: dict[str, Any]

    @property
    def measured(self) -> dict[str, Any]:
        measured: dict[str, Any] = self.report["measurement"]
        return measured


@dataclass
class Starter:
    """The process that forks every run but the first."""

    stdin: IO[str]
    stdout: IO[str]


class Check:
    """A RAGService in a file, and runs of the load check with it."""

    def __init__(self, directory: Path, starter: Starter) -> None:
        self.directory, self.starter = directory, starter
        self.resource, self.report = directory / "faq.yaml", directory / "report.json"
        self.slo()

    def slo(self, p95: str = "10s", availability: str = "99", timeout: str = "30s") -> None:
        slo = {"p95": p95, "availability": availability, "timeout": timeout, "request": {"documents": 5, "tokens": 40}}
        spec = {"slo": slo, "loadCheck": {"users": 4}}
        self.resource.write_text(yaml.safe_dump({"kind": "RAGService", "metadata": {"name": "faq"}, "spec": spec}))

    def arguments(self, url: str, *options: str) -> list[str]:
        files = (f"--resource={self.resource}", f"--corpus={CORPUS}", f"--json={self.report}")
        return ["run", *files, f"--url={url}", "--duration=600ms", "--warm-up=0s", *options]

    def start(self, url: str, *options: str) -> int:
        """Start a run; its process number."""
        files = {name: str(self.directory / name) for name in ("stdout", "stderr")}
        self.starter.stdin.write(json.dumps({"arguments": self.arguments(url, *options), **files}) + "\n")
        self.starter.stdin.flush()
        return int(self.starter.stdout.readline())

    def end(self) -> Run:
        """Wait for the end of the run."""
        status = int(self.starter.stdout.readline())
        output, errors = ((self.directory / name).read_text() for name in ("stdout", "stderr"))
        report = json.loads(self.report.read_text()) if self.report.exists() else {}
        assert "Traceback" not in errors, errors
        return Run(status, output, errors, report)

    def run(self, url: str, *options: str) -> Run:
        self.start(url, *options)
        return self.end()

    def run_until(self, server: Server, requests: int, number: signal.Signals, *options: str) -> Run:
        """A run that is sent a signal after so many requests."""
        process = self.start(server.url, "--users=1", "--duration=1h", *options)
        while len(server.requests) < requests:
            time.sleep(0.01)
        os.kill(process, number)
        return self.end()


@pytest.fixture(scope="module")
def starter() -> Iterator[Starter]:
    command = (sys.executable, "-m", "tests.loadtest.starter")
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield Starter(process.stdin, process.stdout)
        process.stdin.close()


@pytest.fixture
def check(tmp_path: Path, starter: Starter) -> Check:
    return Check(tmp_path, starter)


def test_a_service_that_keeps_its_slo_passes(check: Check) -> None:
    with serving(after(0.02)) as server:
        program = Path(sys.executable).with_name("rag-loadtest")
        command = [program, *check.arguments(server.url, "--duration=2500ms", "--live")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert "PASSED: p95 is " in done.stdout
    assert "measure  4 users" in done.stdout
    run = Run(done.returncode, done.stdout, done.stderr, json.loads(check.report.read_text()))
    assert run.report["verdict"]["result"] == "passed"
    # Everything that was asked was counted, but for the first look at whether anybody is there.
    assert run.measured["requests"] == run.measured["answered"] == len(server.requests) - 1
    assert run.measured["hitRate"] == pytest.approx(server.hits / (server.hits + server.misses - 5))
    assert server.most_in_flight == 4
    # Connections are renewed, so that new pods get their share, but not for every request.
    assert 2 * 4 < len(server.ports) < len(server.requests) / 4


def test_slow_answers_miss_the_slo(check: Check) -> None:
    check.slo(p95="2s")
    with serving(after(2.1)) as server:
        run = check.run(server.url, "--users=20")
    assert run.status == 1, run.output + run.errors
    assert "MISSED: p95 is 2" in run.output
    assert "the SLO allows 2000 ms" in run.output


def test_answers_that_come_after_the_end_count(check: Check) -> None:
    with serving(after(0.4)) as server:
        run = check.run(server.url, "--users=110", "--duration=200ms")
    assert run.measured["answered"] == 110


@pytest.mark.parametrize(
    ("response", "why"),
    [
        (Response(status_code=429), "× status 429"),
        (Response(status_code=500), "× status 500"),
        (Response(content='[{"index": 0, "score": 1.0}]'), "× wrong answer: not one rank for each document"),
    ],
)
def test_too_many_requests_without_a_right_answer_miss_the_slo(check: Check, response: Response, why: str) -> None:
    with serving(every(10, response)) as server:
        run = check.run(server.url)
    assert run.status == 1, run.output + run.errors
    assert "MISSED: only " in run.output
    assert why in run.output


def test_a_service_that_stops_answering_misses_the_slo(check: Check) -> None:
    async def sometimes_never(_server: Server, number: int) -> None:
        await asyncio.sleep(60 if number % 20 == 1 else 0.01)

    check.slo(timeout="600ms")
    with serving(sometimes_never) as server:
        run = check.run(server.url)
    assert run.status == 1, run.output + run.errors
    assert "× no answer within 0.6 s" in run.output


def test_a_service_that_goes_away_misses_the_slo(check: Check) -> None:
    with serving(after(0.01)) as server:
        check.start(server.url, "--duration=1s")
        while len(server.requests) < 20:
            time.sleep(0.01)
    run = check.end()
    assert run.status == 1, run.output + run.errors
    assert "× connection failed: Connection refused" in run.output


def test_warm_up_does_not_count(check: Check) -> None:
    async def slow_start(_server: Server, number: int) -> None:
        await asyncio.sleep(0.8 if number <= 8 else 0.01)

    with serving(slow_start) as server:
        run = check.run(server.url, "--users=8", "--warm-up=200ms", "--duration=1s")
    assert run.measured["answered"] == len(server.requests) - 1 - 8
    assert run.measured["latencySeconds"]["p99"] < 0.8


def test_a_set_pace_shows_what_one_stall_does_to_everybody_after_it(check: Check) -> None:
    async def stall(_server: Server, number: int) -> None:
        await asyncio.sleep(0.8 if number == 1 else 0.001)

    with serving(stall) as server:
        paced = check.run(server.url, "--pace=20ms", "--duration=1s")
    assert paced.measured["requests"] == 4 * 50
    assert paced.measured["latencySeconds"]["p95"] > 0.5
    with serving(stall) as server:
        as_fast_as_answered = check.run(server.url, "--duration=1s")
    assert as_fast_as_answered.measured["latencySeconds"]["p95"] < 0.5


def test_the_same_seed_asks_the_same(check: Check) -> None:
    def requests(seed: int) -> list[str]:
        with serving(after(0.01)) as server:
            check.run_until(server, 11, signal.SIGTERM, f"--seed={seed}")
        return [request.model_dump_json() for request in server.requests[:11]]

    first = requests(1)
    assert requests(1) == first
    assert requests(2) != first


def test_few_requests_give_no_verdict(check: Check) -> None:
    with serving(after(0.1)) as server:
        run = check.run(server.url)
    assert run.status == 3, run.output + run.errors
    assert "INVALID: " in run.output
    assert "too few for a verdict" in run.output


def test_a_generator_that_is_too_slow_for_the_slo_gives_no_verdict(check: Check) -> None:
    check.slo(p95="1ms")
    with serving() as server:
        run = check.run(server.url)
    assert run.status == 3, run.output + run.errors
    assert "INVALID: the load generator " in run.output


def test_nobody_there(check: Check) -> None:
    run = check.run(closed_port())
    assert run.status == 4
    assert run.errors.endswith("does not answer: Connection refused\n")
    assert not run.report


def test_somebody_else_there(check: Check) -> None:
    with serving() as server:
        run = check.run(f"{server.url}/elsewhere")
    assert run.status == 4
    assert "answers, but has no POST /rerank" in run.errors


def test_a_service_that_refuses_the_requests_cannot_be_checked_with_them(check: Check) -> None:
    async def refuse(_server: Server, _number: int) -> Response:
        return Response(status_code=413, content='{"error": "at most 3 documents", "error_type": "Validation"}')

    with serving(refuse) as server:
        run = check.run(server.url)
    assert run.status == 2
    assert "refuses the requests, status 413" in run.errors
    assert "at most 3 documents" in run.errors


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_ended_says_so(check: Check, number: signal.Signals) -> None:
    with serving(after(0.01)) as server:
        run = check.run_until(server, 20, number)
    assert run.status == 130
    assert run.errors == "rag-loadtest: interrupted, no verdict\n"


def test_bad_configuration_is_one_line(check: Check) -> None:
    check.resource.write_text("kind: Pod\n")
    refused = check.run("http://127.0.0.1:1")
    assert refused.status == 2
    assert refused.errors == f"rag-loadtest: {check.resource} must hold exactly one RAGService, and holds 0\n"
