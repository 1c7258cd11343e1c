"""The Locust edge: users that ask over HTTP, and a probe of how well this process keeps up with them.

`rag_loadtest.__main__` has patched the standard library for gevent before this is imported.
"""

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import gevent
from locust import FastHttpUser, task
from locust.contrib.fasthttp import FastHttpSession, ResponseContextManager
from locust.env import Environment
from locust.exception import StopUser

from rag_loadtest.answers import Outcome, Sample, judge
from rag_loadtest.errors import ConfigurationError, UnreachableError
from rag_loadtest.shapes import Workload, intended_starts
from rag_loadtest.verdict import Generator, percentile
from rag_service.contract.wire import HEADER_CACHE, PATH, RerankRequest, parse_cache_header

HEADERS = {"Content-Type": "application/json", "Accept": "application/json"}
# A ClusterIP balances connections, not requests: a connection that lived on would never see a new pod, and would be
# cut when its pod goes. One that is opened for every request would use up the ports where answers take milliseconds.
CONNECTION_SECONDS = 1.0
# What any client waits before it tries again. Without it a closed loop would ask the faster the worse the answers are.
BACK_OFF_SECONDS = 0.1
PROBE_SECONDS = 0.02
WATCH_SECONDS = 2.0
REACH_SECONDS = 2.0  # a Service may need a moment to know its first ready pod

Watch = Callable[[float, Sequence[Sample]], None]


@dataclass(frozen=True)
class Plan:
    """One load check. Times in seconds; `timeout` counts from a request's intended start."""

    url: str
    users: int
    warm_up: float
    duration: float
    timeout: float
    pace: float | None


@dataclass
class _Run:
    """What the users of one load check share."""

    plan: Plan
    workload: Workload
    begin: float = field(default_factory=time.perf_counter)
    numbers: Iterator[int] = field(default_factory=itertools.count)
    samples: list[Sample] = field(default_factory=list)

    @property
    def end(self) -> float:
        """No request is meant to start at or after this time."""
        return self.plan.warm_up + self.plan.duration

    def elapsed(self) -> float:
        """Seconds since the load began."""
        return time.perf_counter() - self.begin


class _User(FastHttpUser):
    """Asks, reads the answer, asks again."""

    abstract = True
    insecure = False
    max_redirects = 0
    run_: ClassVar[_Run]

    def on_start(self) -> None:
        run, number = self.run_, next(self.run_.numbers)
        self.requests = run.workload.requests(number)
        self.starts = intended_starts(number, run.plan.users, run.plan.pace) if run.plan.pace else None
        self.connected = run.elapsed()

    @task
    def ask(self) -> None:
        """One request, with everything that can become of it."""
        run = self.run_
        start = next(self.starts) if self.starts else run.elapsed()
        if start >= run.end:
            raise StopUser
        gevent.sleep(max(0.0, start - run.elapsed()))
        request = next(self.requests)
        remaining = start + run.plan.timeout - run.elapsed()
        if remaining <= 0:
            run.samples.append(Sample(start, run.plan.timeout, Outcome.FAILED, "timed out before it could be sent"))
            return
        with gevent.Timeout(remaining), post(self.client, request) as response:
            latency = run.elapsed() - start
            sample = _sample(start, latency, response, len(request.texts), run.plan.timeout)
            response.failure(sample.problem) if sample.problem else response.success()
        run.samples.append(sample)
        answered = sample.outcome is Outcome.ANSWERED
        if not answered or run.elapsed() - self.connected > CONNECTION_SECONDS:
            self.client.client.close()
            self.connected = run.elapsed()
        if not answered and not self.starts:
            gevent.sleep(BACK_OFF_SECONDS)


def post(client: FastHttpSession, request: RerankRequest) -> ResponseContextManager:
    """Send the request and read the whole answer."""
    body = request.model_dump_json(exclude_defaults=True)
    return client.post(PATH, data=body, headers=HEADERS, catch_response=True)


def _sample(start: float, latency: float, response: ResponseContextManager, documents: int, timeout: float) -> Sample:
    error = response.request_meta["exception"]
    if latency >= timeout:
        return Sample(start, latency, Outcome.FAILED, f"no answer within {timeout:g} s")
    if response.status_code == 0 or (error and response.status_code == 200):
        return Sample(start, latency, Outcome.FAILED, f"connection failed: {_describe(error)}")
    outcome, problem = judge(response.status_code, response.content or b"", documents)
    cache = str(response.headers.get(HEADER_CACHE)) if response.headers else ""
    hits, misses = parse_cache_header(cache) or (0, 0)
    return Sample(start, latency, outcome, problem, hits, misses)


def _describe(error: BaseException) -> str:
    """Why there is no answer: the operating system's words where there are any."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def reach(url: str, request: RerankRequest, timeout: float) -> None:
    """Make sure that a RAGService answers there. Raises UnreachableError or, when it refuses the request as such,
    ConfigurationError. That it is busy or broken is for the load check to say.
    """
    client = FastHttpSession(
        base_url=url,
        request_event=Environment().events.request,
        user=None,
        insecure=False,
        max_redirects=0,
        max_retries=0,
        connection_timeout=REACH_SECONDS,
        network_timeout=timeout,
    )
    deadline = time.perf_counter() + REACH_SECONDS
    while True:
        with post(client, request) as response:
            error = response.request_meta["exception"]
            response.success()
        if response.status_code:
            break
        if time.perf_counter() > deadline:
            raise UnreachableError(f"{url} does not answer: {_describe(error)}")
        gevent.sleep(0.2)
    if response.status_code in {404, 405}:
        raise UnreachableError(f"{url} answers, but has no POST {PATH}: is it the address of a RAGService?")
    if 400 <= response.status_code < 500 and response.status_code != 429:
        message = (response.content or b"").decode(errors="replace")[:500]
        raise ConfigurationError(f"{url} refuses the requests, status {response.status_code}: {message}")


def interrupt_on(*signals: int) -> None:
    """Raise KeyboardInterrupt on these signals, here, and not in whichever user happens to run at that moment."""
    for number in signals:
        gevent.signal_handler(number, gevent.kill, gevent.getcurrent(), KeyboardInterrupt)


def drive(plan: Plan, workload: Workload, watch: Watch | None = None) -> tuple[list[Sample], Generator]:
    """Run the load to its end, answers to the last requests included. Calls `watch` every other second."""
    run = _Run(plan, workload)
    user = type(
        "User", (_User,), {"run_": run, "network_timeout": plan.timeout + 1, "connection_timeout": plan.timeout + 1}
    )
    # A fault of our own must end the check, not be counted as one of the target.
    environment = Environment(user_classes=[user], host=plan.url, catch_exceptions=False)
    runner = environment.create_local_runner()
    probe = gevent.spawn(_probe, run)
    watcher = gevent.spawn(_watch, run, watch) if watch else None
    try:
        runner.start(plan.users, spawn_rate=plan.users)
        gevent.joinall([runner.spawning_greenlet])
        runner.user_greenlets.join(raise_error=True)
        return run.samples, probe.get()
    finally:
        gevent.killall([greenlet for greenlet in (probe, watcher) if greenlet])
        runner.quit()


def _probe(run: _Run) -> Generator:
    """Measure, during the measured window, how late this process is and how much CPU it uses."""
    gevent.sleep(run.plan.warm_up)
    begin, cpu = run.elapsed(), time.process_time()
    lags: list[float] = []
    while not lags or run.elapsed() < run.end:
        before = run.elapsed()
        gevent.sleep(PROBE_SECONDS)
        lags.append(run.elapsed() - before - PROBE_SECONDS)
    return Generator(
        lag_p95_seconds=max(0.0, percentile(sorted(lags), 95)),
        cpu_share=(time.process_time() - cpu) / (run.elapsed() - begin),
    )


def _watch(run: _Run, watch: Watch) -> None:
    while True:
        gevent.sleep(WATCH_SECONDS)
        watch(run.elapsed(), run.samples)
