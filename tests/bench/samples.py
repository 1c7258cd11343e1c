"""What the rounds of the rerank bench measured, and the figures that follow from it. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tests.bench.figures import Figure, over_rounds, ratio, table

OURS, EQUAL, NAIVE, INFINITY = "ours", "ours, fp32", "naive", "Infinity"
CONCURRENCY = (1, 8, 32)
MIXED, MIXED_CONCURRENCY = "mixed", 8


def at(concurrency: int) -> str:
    """The name of a load of the reference shape."""
    return f"c{concurrency}"


@dataclass(frozen=True)
class Sample:
    """One server under one load in one round."""

    rate: float  # requests per second
    cpu_ms: float  # of the server's processes, per request
    p95: float  # seconds
    generator: float  # share of a CPU that the load generator took
    others: float  # share of a CPU that the idle servers took


Samples = Mapping[tuple[str, str], Sequence[Sample]]
"""By server and load, one for each round."""


def figures(samples: Samples) -> dict[str, float]:
    """The ratios that compare servers; those of servers that did not run are left out."""
    servers = list(dict.fromkeys(server for server, _ in samples))
    peers = [server for server in servers if server not in (OURS, EQUAL)]
    infinities = [server for server in peers if server.startswith(INFINITY)]
    made: dict[str, Figure] = {}
    for concurrency in CONCURRENCY:
        load = at(concurrency)
        for prefix, ours in (("", OURS), ("fp32_", EQUAL)):
            for name, server in (("naive", NAIVE), ("infinity", INFINITY)):
                if server in servers and ours in servers:
                    made[f"{prefix}req_ratio_{name}_{load}"] = _rates(samples, ours, server, load)
        if infinities:
            best = max(infinities, key=lambda server: _median(samples, server, load, "rate"))
            made[f"req_ratio_infinity_best_{load}"] = _rates(samples, OURS, best, load)
    load = at(CONCURRENCY[-1])
    if infinities:
        best = min(infinities, key=lambda server: _median(samples, server, load, "cpu_ms"))
        made["cpu_ratio_infinity_best"] = ratio(
            _values(samples, best, load, "cpu_ms"), _values(samples, OURS, load, "cpu_ms")
        )
    if peers:
        best = min(peers, key=lambda server: _median(samples, server, load, "p95"))
        made[f"p95_ratio_best_peer_{load}"] = ratio(
            _values(samples, OURS, load, "p95"), _values(samples, best, load, "p95")
        )
    if (NAIVE, MIXED) in samples:
        made["mixed_ratio_naive"] = _rates(samples, OURS, NAIVE, MIXED)
    return {name: figure.median for name, figure in made.items()}


def report(samples: Samples) -> str:
    """Every server's figures as a table in Markdown: medians, in brackets the range over rounds."""
    last = at(CONCURRENCY[-1])
    head = ["server", *(f"requests/s at {concurrency}" for concurrency in CONCURRENCY)]
    rows = []
    for server in dict.fromkeys(server for server, _ in samples):
        cells = [_cell(samples, server, at(concurrency), "rate", ".1f") for concurrency in CONCURRENCY]
        cells += [_cell(samples, server, last, "cpu_ms", ".0f"), _cell(samples, server, last, "p95", ".2f")]
        rows.append([server, *cells, _cell(samples, server, MIXED, "rate", ".1f")])
    load = f"at {CONCURRENCY[-1]}"
    return table([*head, f"CPU-ms a request {load}", f"p95 in s {load}", "mixed lengths, requests/s"], rows)


def _rates(samples: Samples, ours: str, theirs: str, load: str) -> Figure:
    return ratio(_values(samples, ours, load, "rate"), _values(samples, theirs, load, "rate"))


def _median(samples: Samples, server: str, load: str, name: str) -> float:
    return over_rounds(_values(samples, server, load, name)).median


def _values(samples: Samples, server: str, load: str, name: str) -> list[float]:
    return [getattr(sample, name) for sample in samples[server, load]]


def _cell(samples: Samples, server: str, load: str, name: str, form: str) -> str:
    if (server, load) not in samples:
        return ""
    figure = over_rounds(_values(samples, server, load, name))
    return f"{figure.median:{form}} ({figure.least:{form}}–{figure.most:{form}})"
