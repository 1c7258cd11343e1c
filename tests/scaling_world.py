"""A simulated service for scaling tests: pods with a fixed speed, demand, and a clock that the test moves."""

from dataclasses import dataclass, field, replace

from rag_operator.scaling import estimate
from rag_operator.scaling.estimate import Estimate, Memory, Sample
from rag_operator.scaling.plan import Decision, Goal, State, plan
from rag_service.contract.histogram import Histogram
from rag_service.contract.load import LoadReport, Pairs, Requests, Tokens

PERIOD = 5.0
GOAL = Goal(slo_p95=0.3, min_replicas=1, max_replicas=10, scale_down_window=300.0)
DOCUMENTS_PER_REQUEST = 10
TOKENS_PER_REQUEST = 600
SERVICE_TIME = 0.05


def report(**counters: object) -> LoadReport:
    """A load report of a pod that has done nothing, but for what is given."""
    blank = LoadReport(incarnation="a", uptime=0.0, threads=1, busy=0.0, latency=tuple(Histogram().counts))
    return blank.model_copy(update=counters)


@dataclass
class Pod:
    """A pod's counters, as far as the operator sees them."""

    speed: float  # tokens a second of one busy thread
    started: float
    incarnation: str = "1"
    answering: bool = True
    offered: float = 0.0
    scored: float = 0.0
    busy: float = 0.0
    queued: float = 0.0
    hits: float = 0.0
    misses: float = 0.0
    answers: float = 0.0  # the part of an answer that is not complete
    histogram: Histogram = field(default_factory=Histogram)

    def work(self, seconds: float, tokens: float, hit_rate: float) -> None:
        """Take in work for a while: score what fits, queue the rest."""
        documents = tokens * DOCUMENTS_PER_REQUEST / TOKENS_PER_REQUEST
        self.hits += documents * hit_rate
        self.misses += documents * (1 - hit_rate)
        arrived = tokens * (1 - hit_rate)
        self.offered += arrived
        done = min(self.queued + arrived, self.speed * seconds)
        self.scored += done
        self.busy += done / self.speed
        self.queued += arrived - done
        self.answers += done / TOKENS_PER_REQUEST + documents * hit_rate / DOCUMENTS_PER_REQUEST
        for _ in range(int(self.answers)):
            self.histogram.observe(SERVICE_TIME + self.queued / self.speed)
        self.answers -= int(self.answers)

    def restart(self, now: float) -> None:
        """Start again with all counters at zero."""
        fresh = Pod(self.speed, now, str(int(self.incarnation) + 1))
        self.__dict__.update(fresh.__dict__)

    def report(self, now: float) -> LoadReport:
        """What `/internal/load` answers."""
        answered = self.histogram.total
        return LoadReport(
            incarnation=self.incarnation,
            uptime=now - self.started,
            threads=1,
            busy=self.busy,
            requests=Requests(answered=answered),
            pairs=Pairs(hits=int(self.hits), misses=int(self.misses)),
            tokens=Tokens(offered=int(self.offered), scored=int(self.scored)),
            queued_tokens=int(self.queued),
            in_flight=int(self.queued / TOKENS_PER_REQUEST),
            latency=tuple(self.histogram.counts),
        )


class World:
    """A service, its clients and its operator. Replicas follow the plan at once unless `lag` says otherwise."""

    def __init__(self, *, pods: int = 1, speed: float = 10_000.0, goal: Goal = GOAL, lag: float = 0.0) -> None:
        self.now = 0.0
        self.goal = goal
        self.speed = speed
        self.lag = lag
        self.pods = {f"pod-{number}": Pod(speed, 0.0) for number in range(pods)}
        self.make = lambda: Pod(self.speed, self.now)
        self._serial = pods
        self._starting: list[float] = []
        self.hit_rate = 0.0
        self.unready: set[str] = set()
        self.memory = Memory()
        self.state = State.start(pods, self.now)
        self.estimate = Estimate(pods=pods, reporting=0, observed=0)
        self.decision: Decision | None = None
        self.history: list[int] = []

    @property
    def required(self) -> int:
        assert self.decision is not None
        return self.decision.required

    def restart_operator(self) -> None:
        """The operator forgets everything but the replicas it finds."""
        self.memory = Memory()
        self.state = State.start(len(self.pods), self.now)

    def run(self, seconds: float, tokens: float) -> "World":
        """Let so many seconds pass with so many tokens a second arriving at the service (before the cache)."""
        end = self.now + seconds
        while self.now < end - 1e-9:
            self.now += PERIOD
            for pod in self.pods.values():
                pod.work(PERIOD, tokens * PERIOD / max(1, len(self.pods)), self.hit_rate)
            self.observe()
            self._actuate()
        return self

    def closed_loop(self, seconds: float, users: int) -> "World":
        """Let each client send a request, and the next one when it is answered."""
        tick = SERVICE_TIME
        for step in range(round(seconds / tick)):
            self.now += tick
            share = users * TOKENS_PER_REQUEST / max(1, len(self.pods))
            for pod in self.pods.values():
                pod.work(tick, max(0.0, share - pod.queued), 0.0)
            if (step + 1) % round(PERIOD / tick) == 0:
                self.observe()
                self._actuate()
        return self

    def observe(self) -> None:
        """One round of scraping and planning."""
        scraped = {
            name: Sample(self.now, pod.report(self.now)) if pod.answering else None for name, pod in self.pods.items()
        }
        self.memory = estimate.remember(self.memory, scraped, set(self.pods) - self.unready)
        self.estimate = estimate.estimate(self.memory, scraped)
        self.decision, self.state = plan(self.state, self.estimate, self.goal, self.now)
        self.history.append(self.decision.required)

    def bound(self, **changes: float) -> None:
        """Change the goal."""
        self.goal = replace(self.goal, **changes)  # type: ignore[arg-type]

    def _actuate(self) -> None:
        wanted = self.required
        self._starting = self._starting[: max(0, wanted - len(self.pods))]
        while len(self.pods) + len(self._starting) < wanted:
            self._starting.append(self.now + self.lag)
        for _ in [ready for ready in self._starting if ready <= self.now]:
            self._starting.pop(0)
            self.pods[f"pod-{self._serial}"] = self.make()
            self._serial += 1
        while len(self.pods) > wanted:
            _, gone = self.pods.popitem()
            for pod in self.pods.values():
                pod.queued += gone.queued / len(self.pods)
