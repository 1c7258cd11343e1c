"""The command line: from arguments to an exit status."""

import argparse
import functools
import json
import logging
import resource
import signal
import sys
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from pydantic import ValidationError

from rag_loadtest.answers import Sample
from rag_loadtest.drive import Plan, drive, interrupt_on, reach
from rag_loadtest.errors import ConfigurationError, UnreachableError
from rag_loadtest.report import Report, Settings, live_line, table
from rag_loadtest.shapes import Corpus, Workload
from rag_loadtest.target import Target, explain, from_cluster, from_file, replicas
from rag_loadtest.verdict import Result, judge, measure
from rag_service.contract.duration import parse

EXIT = {Result.PASSED: 0, Result.MISSED: 1, Result.INVALID: 3}
EXIT_BAD_CONFIGURATION = 2
EXIT_UNREACHABLE = 4
SPARE_FILES = 100
EXIT_INTERRUPTED = 130  # as shells have it for SIGINT

Say = Callable[[str], None]


def main() -> None:
    """Run `rag-loadtest`."""
    interrupt_on(signal.SIGINT, signal.SIGTERM)
    logging.basicConfig(level=logging.ERROR)  # what Locust warns of is part of the verdict
    say = functools.partial(print, flush=True)
    try:
        sys.exit(run(command_line().parse_args(), say))
    except ConfigurationError as error:
        sys.stderr.write(f"rag-loadtest: {error}\n")
        sys.exit(EXIT_BAD_CONFIGURATION)
    except UnreachableError as error:
        sys.stderr.write(f"rag-loadtest: {error}\n")
        sys.exit(EXIT_UNREACHABLE)
    except KeyboardInterrupt:
        sys.stderr.write("rag-loadtest: interrupted, no verdict\n")
        sys.exit(EXIT_INTERRUPTED)


def run(arguments: argparse.Namespace, say: Say) -> int:
    """Do the load check and return its exit status. Raises ConfigurationError, UnreachableError."""
    is_file = "." in arguments.resource or "/" in arguments.resource  # no name of a RAGService has them
    target = from_file(Path(arguments.resource)) if is_file else from_cluster(arguments.resource, arguments.namespace)
    objective = target.spec.slo
    url = _url(arguments.url or target.status.url)
    users = arguments.users or target.spec.load_check.users
    workload = _workload(arguments, target)
    settings = Settings(
        service=target.metadata.name,
        url=url,
        users=users,
        warm_up=arguments.warm_up,
        duration=arguments.duration,
        pace=arguments.pace,
        distinct_queries=arguments.distinct_queries,
        seed=arguments.seed,
    )
    plan = Plan(
        url=url,
        users=users,
        warm_up=arguments.warm_up.total_seconds(),
        duration=arguments.duration.total_seconds(),
        timeout=objective.timeout.total_seconds(),
        pace=arguments.pace.total_seconds() if arguments.pace else None,
    )
    _allow_connections(users)
    if arguments.json and not arguments.json.parent.is_dir():
        raise ConfigurationError(f"cannot write {arguments.json}: {arguments.json.parent} is not a directory")
    reach(url, workload.request(0), plan.timeout)
    in_cluster = not is_file or arguments.namespace

    def watch(elapsed: float, samples: Sequence[Sample]) -> None:
        pods = replicas(target.metadata.name, arguments.namespace) if in_cluster else ""
        say(live_line(elapsed, samples, settings, pods))

    samples, generator = drive(plan, workload, watch if arguments.live else None)
    measured = measure(samples, plan.warm_up, plan.duration, objective, generator)
    report = Report(settings=settings, objective=objective, measurement=measured, verdict=judge(measured, objective))
    say(("\n" if arguments.live else "") + table(report))
    if arguments.json:
        _write(arguments.json, report)
    return EXIT[report.verdict.result]


def command_line() -> argparse.ArgumentParser:
    """What `rag-loadtest` understands."""
    parser = argparse.ArgumentParser(prog="rag-loadtest", description="Checks whether a RAGService keeps its SLO.")
    command = parser.add_subparsers(required=True, metavar="COMMAND").add_parser(
        "run",
        help="load a RAGService and say whether its SLO held",
        description="Loads a RAGService as its users would and says whether its SLO held. Exit status: 0 passed, "
        "1 SLO missed, 2 bad configuration, 3 no valid verdict (too few requests, or the load generator too slow), "
        "4 target unreachable.",
    )
    add = command.add_argument
    add(
        "--resource",
        required=True,
        metavar="FILE|NAME",
        help="manifest of the RAGService (a path with `.` or `/`), or its name in the cluster",
    )
    add("-n", "--namespace", help="its namespace in the cluster (default: kubectl's current one)")
    add("--url", help="where it answers, such as http://127.0.0.1:8081 (default: status.url, good inside the cluster)")
    add("--corpus", required=True, type=Path, metavar="FILE", help="JSON or YAML with `documents` and `queries`")
    add("--duration", type=_duration, default="60s", help="how long to measure (default: 60s)")
    add("--warm-up", type=_wait, default="10s", help="load before that, which does not count (default: 10s)")
    add("--users", type=_count, help="requests in flight (default: spec.loadCheck.users)")
    add("--pace", type=_duration, help="every user asks once in this time, and no longer as soon as it has its answer")
    add("--distinct-queries", type=_count, default=10_000, help="different queries in all (default: 10000)")
    add("--seed", type=int, default=0, help="another seed asks other queries (default: 0)")
    add("--live", action="store_true", help="a line every 2 seconds, with replicas where the cluster is known")
    add("--json", type=Path, metavar="FILE", help="write the report there, too")
    return parser


def _duration(value: str) -> timedelta:
    if not (duration := _wait(value)):
        raise argparse.ArgumentTypeError("must be longer than zero")
    return duration


def _wait(value: str) -> timedelta:
    try:
        return parse(value)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _count(value: str) -> int:
    if not value.isdecimal() or int(value) < 1:
        raise argparse.ArgumentTypeError(f"{value!r} is not a number from 1 up")
    return int(value)


def _url(url: str | None) -> str:
    if not url:
        raise ConfigurationError("the RAGService has no status.url yet: say where it answers with --url")
    try:
        parts = urlsplit(url)
        valid = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise ConfigurationError(f"--url {url!r} is not an address such as http://127.0.0.1:8081")
    return url.rstrip("/")


def _allow_connections(users: int) -> None:
    """Raise this process' limit of open files as far as it may go; every user has a connection of its own."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = users + SPARE_FILES
    if hard != resource.RLIM_INFINITY and needed > hard:
        raise ConfigurationError(f"{users} users need {needed} open files, the limit is {hard} (ulimit -Hn)")
    if soft != resource.RLIM_INFINITY and needed > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def _workload(arguments: argparse.Namespace, target: Target) -> Workload:
    request, path = target.spec.slo.request, arguments.corpus
    try:
        text = path.read_text()
        content: Any = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
        corpus = Corpus.model_validate(content)
        return Workload(corpus, request.documents, request.tokens, arguments.distinct_queries, arguments.seed)
    except ValidationError as error:
        raise ConfigurationError(f"{path}: {explain(error)}") from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigurationError(f"corpus {path}: {error}") from None


def _write(path: Path, report: Report) -> None:
    try:
        path.write_text(report.model_dump_json(by_alias=True, indent=2) + "\n")
    except OSError as error:
        raise ConfigurationError(f"cannot write {path}: {error.strerror}") from None
