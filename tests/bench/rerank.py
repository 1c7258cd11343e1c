"""Requests per second, latency and cost, ours and others' side by side: `make bench ONLY=rerank`.

All servers run at once, but only one is driven at a time. A round drives each under every load; the next begins with
another server. So what disturbs the machine for a while disturbs all of them, and ratios hold better than rates.
"""

import asyncio
import itertools
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

from rag_service.cpus import available, engine_threads
from rag_service.engine.backends import Variant
from rag_service.models import manifest
from tests.bench import costs, figures, load, machine, models, peers, samples, servers, texts
from tests.bench.prepared import Prepared, prepare
from tests.bench.samples import CONCURRENCY, EQUAL, INFINITY, MIXED, MIXED_CONCURRENCY, NAIVE, OURS, Sample, at
from tests.bench.servers import Server, StartError
from tests.children import WITH_PARENT
from tests.redis_server import RedisServer

HEADLINE = 30  # queries, all at once
AHEAD = 60  # requests a second
SAME_FILE = f"{INFINITY}, our int8"
# Infinity's own choice of settings, the two that its documentation offers to make it faster on a CPU, and our graph.
MODES = {
    INFINITY: ["--engine", "torch"],
    f"{INFINITY}, bf16": ["--engine", "torch", "--dtype", "bfloat16"],
    f"{INFINITY}, optimum int8": ["--engine", "optimum"],
    SAME_FILE: ["--engine", "optimum"],
}


class Length(NamedTuple):
    """How long each server is driven under one load, in seconds."""

    warm_up: float = 1.5
    seconds: float = 7.0


class Load(NamedTuple):
    """One way to drive a server."""

    name: str
    shape: texts.Shape
    concurrency: int


LOADS = [Load(at(number), texts.REFERENCE, number) for number in CONCURRENCY]
MIXED_LOAD = Load(MIXED, texts.MIXED, MIXED_CONCURRENCY)


class InProcess:
    """The same engine without HTTP, in a process of its own."""

    def __init__(self, model: Path, variant: Variant, threads: int) -> None:
        command = [*WITH_PARENT, sys.executable, "-m", "tests.bench.inprocess", str(model), *variant, str(threads)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._read()

    def pairs(self, seed: str, concurrency: int, length: Length) -> float:
        """Pairs per second with so many requests in flight."""
        wanted = {"seed": seed, "concurrency": concurrency, **length._asdict()}
        assert self._process.stdin
        self._process.stdin.write(json.dumps(wanted) + "\n")
        self._process.stdin.flush()
        return float(self._read())

    def _read(self) -> str:
        assert self._process.stdout
        if not (line := self._process.stdout.readline()):
            raise StartError("the engine without HTTP ended")
        return line

    def __enter__(self) -> "InProcess":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()


def run(out: Path, rounds: int, length: Length, with_peers: bool) -> tuple[dict[str, float], dict[str, Any], str]:
    """Measure; the figures, the machine, and a report in Markdown. Files go to the folder `out`."""
    made = models.make(out / "models")
    ladder = [prepare(name, f"file://{made[name]}", out / "prepared", int8=name == "minilm-l6") for name in made]
    embedder = prepare("all-minilm-l6-v2", models.PACKAGED, out / "prepared", int8=True)
    print("Calibrating", flush=True)
    best = ladder[0]
    served = {best.name: best.calibrate()} | {model.name: model.served() for model in (*ladder[1:], embedder)}
    words = texts.Texts(best.directory / manifest.TOKENIZER)
    stolen = machine.stolen()
    with ExitStack() as stack:
        redis = stack.enter_context(RedisServer(_fresh(out / "redis")))
        others, environment, missing = _peers(out, made["minilm-l6"], best) if with_peers else ([], None, [])
        running = _start([*_ours(out, best, redis), *others], stack, missing)
        threads = engine_threads(available(), 1)
        engine = stack.enter_context(InProcess(best.directory, served[best.name], threads))
        bench = Bench(running, engine, words, length)
        for number in range(rounds):
            print(f"Round {number + 1} of {rounds}", flush=True)
            bench.round(number)
        rss = running[0].rss()
    print("Start-up, memory, image", flush=True)
    values = samples.figures(bench.samples) | bench.figures()
    values |= {"ready_s": costs.ready(best, out), "rss_mb": rss}
    values["rss_ladder_mb"] = costs.ladder([*ladder, embedder], out, words)
    if (image := costs.image()) is not None:
        values["image_mb"] = image
    facts = machine.facts(environment) | {
        "served": {name: str(variant) for name, variant in served.items()},
        "stolen_percent": machine.stolen_percent(stolen, machine.stolen()),
    }
    (out / "rerank-rounds.json").write_text(json.dumps(bench.raw() | {"missing": missing}, indent=1) + "\n")
    figures.write(out / "rerank.json", values, facts)
    return values, facts, "\n\n".join([samples.report(bench.samples), bench.remark(), *missing])


class Bench:
    """What was measured so far, and how to measure one round more."""

    def __init__(self, running: Sequence[Server], engine: InProcess, words: texts.Texts, length: Length) -> None:
        """`running`: the servers, ours first."""
        self._running = running
        self._engine = engine
        self._words = words
        self._length = length
        self.samples: dict[tuple[str, str], list[Sample]] = {
            (server.name, load.name): []
            for server in running
            for load in (*LOADS, MIXED_LOAD)
            if load in LOADS or server.name in (OURS, EQUAL, NAIVE)
        }
        self._pairs: list[float] = []  # per second without HTTP
        self._headline: list[float] = []  # queries per second

    def round(self, number: int) -> None:
        """Drive every server under every load once, beginning with another one each time."""
        first = number % len(self._running)
        for one in (*LOADS, MIXED_LOAD):
            for server in (*self._running[first:], *self._running[:first]):
                if (server.name, one.name) in self.samples:
                    self.samples[server.name, one.name].append(self._drive(server, one, number))
        self._pairs.append(self._engine.pairs(f"engine/{number}", CONCURRENCY[-1], self._length))
        ours = self._running[0]
        asked = itertools.islice(self._words.requests(texts.HEADLINE, f"headline/{number}"), HEADLINE)
        seconds = asyncio.run(load.burst(ours.port, [ours.request(one) for one in asked]))
        self._headline.append(HEADLINE / seconds)

    def figures(self) -> dict[str, float]:
        """What is not a comparison of servers."""
        served = [sample.rate * texts.REFERENCE.documents for sample in self.samples[OURS, at(CONCURRENCY[-1])]]
        return {
            "served_share": figures.ratio(served, self._pairs).median,
            "headline_qps": figures.over_rounds(self._headline).median,
        }

    def remark(self) -> str:
        """How far the bench itself disturbed what it measured."""
        every = [sample for some in self.samples.values() for sample in some]
        generator, others = (max(getattr(one, name) for one in every) for name in ("generator", "others"))
        return (
            f"Medians of {len(self._pairs)} rounds, in brackets the range. The load generator took up to "
            f"{generator:.0%} of one CPU, the servers that were idle up to {others:.0%}."
        )

    def raw(self) -> dict[str, Any]:
        """Everything that was measured."""
        return {
            "samples": [
                {"server": server, "load": name, "round": number} | asdict(sample)
                for (server, name), some in self.samples.items()
                for number, sample in enumerate(some)
            ],
            "pairs_without_http": self._pairs,
            "headline": self._headline,
        }

    def _drive(self, server: Server, one: Load, number: int) -> Sample:
        others = [other for other in self._running if other is not server]
        # As many requests as will be needed are made before the clock runs.
        asked = map(server.request, self._words.requests(one.shape, f"{one.name}/{number}"))
        sent = itertools.chain(list(itertools.islice(asked, round(AHEAD * sum(self._length)))), asked)
        began, idle = perf_counter(), sum(other.own_cpu() for other in others)
        length = self._length._asdict()
        window = asyncio.run(load.drive(server.port, sent, one.concurrency, **length, cpu=server.cpu))
        elapsed, idle = perf_counter() - began, sum(other.own_cpu() for other in others) - idle
        answered = len(window.latencies)
        if not answered:
            raise StartError(f"{server.name} answered nothing within {window.seconds:.0f} s at {one.name}")
        sample = Sample(
            rate=window.rate,
            cpu_ms=1000 * window.cpu / answered,
            p95=figures.percentile(window.latencies, 0.95),
            generator=window.own_cpu / window.seconds,
            others=idle / elapsed,
        )
        print(f"  {server.name:24} {one.name:6} {sample.rate:6.1f}/s {sample.cpu_ms:5.0f} CPU-ms", flush=True)
        return sample


def _ours(out: Path, model: Prepared, redis: RedisServer) -> list[Server]:
    settings: Mapping[str, Mapping[str, str]] = {OURS: {}, EQUAL: {"precision": "fp32"}}
    return [
        servers.ours(name, costs.settings([model], name, redis.url, **more), out, also=[redis.pid])
        for name, more in settings.items()
    ]


def _peers(out: Path, model: Path, prepared: Prepared) -> tuple[list[Server], Path | None, list[str]]:
    """The others, their environment, and what is missing, in one line each."""
    try:
        environment = peers.environment()
    except peers.UnavailableError as error:
        return [], None, [f"Compared with nothing: {error}"]
    python, home = environment / "bin" / "python", out / "peers"
    shutil.rmtree(home, ignore_errors=True)
    missing: list[str] = []
    made = [servers.naive(python, model, out, peers.settings(home))]
    for name, options in MODES.items():
        directory = model
        if name == SAME_FILE:
            graph = prepared.manifest.graphs.get("int8")
            if graph is None:
                missing.append(f"Left out: {name}: our int8 graph of this model is too far from fp32 to be served")
                continue
            directory = peers.ours_int8(prepared.directory, graph.file, model, out / "models" / "our-int8")
        elif "optimum" in options:
            try:
                directory = peers.int8(environment, model, out / "models" / "optimum-int8", home)
            except peers.UnavailableError as error:
                missing.append(f"Left out: {name}: {error}")
                continue
        own = peers.settings(_fresh(home / name.replace(", ", "-")))  # its optimiser keeps graphs there
        made.append(servers.infinity(name, options, python, directory, folder=out, environment=own))
    return made, environment, missing


def _start(wanted: list[Server], stack: ExitStack, missing: list[str]) -> list[Server]:
    """Start all at once; others that do not start are left out."""
    for server in wanted:
        server.launch()
        stack.callback(server.stop)
    running = []
    for server in wanted:
        try:
            server.wait()
        except StartError as error:
            if server.name in (OURS, EQUAL):
                raise
            missing.append(f"Left out: {error}")
        else:
            running.append(server)
    return running


def _fresh(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
