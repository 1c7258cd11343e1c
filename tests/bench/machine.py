"""What figures depend on besides the code: the machine and the versions of the libraries."""

import importlib.metadata
import os
import platform
import re
from pathlib import Path
from typing import Any

# Instruction sets that decide which precision is fast.
FLAGS = (
    "avx2", "fma", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_int8",
    "amx_bf16", "asimddp", "i8mm", "bf16", "sve",
)  # fmt: skip
PACKAGES = ("openvino", "onnxruntime", "nncf", "tokenizers", "numpy", "fastapi", "uvicorn", "redis")
PEERS = ("infinity-emb", "sentence-transformers", "torch", "optimum", "onnxruntime", "transformers")


def facts(peers: Path | None = None) -> dict[str, Any]:
    """The machine, without anything that names it. `peers`: the other servers' environment, where there is one."""
    cpu = Path("/proc/cpuinfo").read_text()
    flags = set((_first(r"^(?:flags|Features)\s*:(.*)$", cpu) or "").split())
    memory = int(_first(r"^MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text()) or 0)
    return {
        "cpu": (_first(r"^model name\s*:(.*)$", cpu) or platform.machine()).strip(),
        "flags": [flag for flag in FLAGS if flag in flags],
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory / 2**20, 1),
        "kernel": platform.release().split("-")[0],
        "versions": {"python": platform.python_version()}
        | {name: version for name in PACKAGES if (version := _version(name))}
        | ({f"peers {name}": version for name, version in _installed(peers, PEERS).items()} if peers else {}),
    }


def stolen() -> tuple[int, int]:
    """Clock ticks that the machine's host gave to others, and all ticks, since the machine started."""
    ticks = [int(count) for count in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return ticks[7], sum(ticks)


def stolen_percent(before: tuple[int, int], after: tuple[int, int]) -> float:
    """Share of the time between two readings of `stolen` that the host gave to others."""
    return round(100 * (after[0] - before[0]) / max(1, after[1] - before[1]), 1)


def _first(pattern: str, text: str) -> str | None:
    match = re.search(pattern, text, re.MULTILINE)
    return match[1] if match else None


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _installed(environment: Path, names: tuple[str, ...]) -> dict[str, str]:
    folders = [str(folder) for folder in environment.glob("lib/python3*/site-packages")]
    found = importlib.metadata.distributions(path=folders)
    versions = {one.metadata["Name"].lower().replace("_", "-"): one.version for one in found}
    return {name: versions[name] for name in names if name in versions}
