"""The tables in docs/benchmarks.md. Pure but for `put`."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.bench.figures import table

_VARIANTS = ("_onnxruntime_", "_openvino_", "_sentence_transformers_")


def section(values: Mapping[str, float], facts: Mapping[str, Any], report: str) -> str:
    """What one part of the bench found, in Markdown."""
    # Those of single variants are in the report.
    rows = [[f"`{name}`", f"{value:.4g}"] for name, value in values.items() if not any(map(name.count, _VARIANTS))]
    return "\n\n".join([described(facts), report, table(["figure", "value"], rows)])


def described(facts: Mapping[str, Any]) -> str:
    """The machine in some lines."""
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    served = facts.get("served", "")
    named = ", ".join(f"{name}: {value}" for name, value in served.items()) if isinstance(served, Mapping) else served
    stolen = facts.get("stolen_percent")
    lines = [
        f"{facts['cores']} cores of {facts['cpu']} ({', '.join(facts['flags'])}), {facts['memory_gib']} GiB, "
        f"Linux {facts['kernel']}"
        + (f"; the host gave {stolen:g} % of the CPUs' time to others meanwhile." if stolen is not None else "."),
        f"Served by `auto`: {named}.",
        f"Versions: {versions}.",
    ]
    return "\n".join(lines)


def put(path: Path, part: str, text: str) -> None:
    """Replace the text between the marks of a part."""
    begin, end = f"<!-- {part}: begin -->", f"<!-- {part}: end -->"
    before = path.read_text(encoding="utf-8")
    pattern = re.compile(f"{re.escape(begin)}.*{re.escape(end)}", re.DOTALL)
    if not pattern.search(before):
        raise ValueError(f"{path} has no marks {begin} and {end}")
    after = pattern.sub(lambda _: f"{begin}\n\n{text}\n\n{end}", before)
    path.write_text(after, encoding="utf-8")
