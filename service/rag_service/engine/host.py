"""What this machine, or the part of it that the container got, has to run models with."""

import importlib.metadata
import re
from collections.abc import Iterable
from pathlib import Path

from rag_service.engine.backends import LIBRARIES, installed
from rag_service.engine.choice import Host

# Of the flags that Linux lists for a CPU, those that tell what arithmetic it has: x86, and in the second part ARM.
_ARITHMETIC = re.compile(r"avx|amx|fma|f16c|sse4|asimd|sve|sme|i8mm|bf16|fphp")
_BF16 = {"avx512_bf16", "amx_bf16", "bf16", "svebf16"}
_NAMES = ("model name", "cpu family", "model", "stepping", "CPU implementer", "CPU part", "CPU variant")

# Of cgroups version 2 and 1: the files with limit and usage, and what the statistics beside them call unused files.
_MEMORY = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
)


def read(cpuinfo: str | None = None) -> Host:
    """This host. `cpuinfo`: what /proc/cpuinfo would hold."""
    text = cpuinfo if cpuinfo is not None else _text(Path("/proc/cpuinfo"))
    lines = (line.split(":", 1) for line in text.split("\n\n")[0].splitlines() if ":" in line)
    first = {name.strip(): value.strip() for name, value in lines}
    flags = set((first.get("flags") or first.get("Features") or "").split())
    arithmetic = sorted(flag for flag in flags if _ARITHMETIC.search(flag))
    gpu = any(Path("/dev").glob("nvidia[0-9]*"))
    names = [first[name] for name in _NAMES if name in first]
    return Host(
        installed=frozenset(backend for backend in LIBRARIES if installed(backend)),
        bf16=bool(flags & _BF16),
        gpu=gpu,
        cpu=" ".join([*names, *arithmetic, *(["GPU"] if gpu else [])]),
        versions=dict(_versions(("onnxruntime", "openvino", "sentence-transformers", "torch"))),
    )


def free_memory(root: Path = Path("/")) -> int | None:
    """Bytes that this container may still use; None where it has no limit. `root`: of the file system."""
    groups = root / "sys/fs/cgroup"
    for limit, usage, idle in _MEMORY:
        most, used = _text(groups / limit).strip(), _text(groups / usage).strip()
        if most.isdigit() and used.isdigit() and int(most) < 1 << 60:  # version 1 has a huge number for no limit
            # Files that nobody used lately count as used, and go first.
            unused = re.search(rf"^{idle} (\d+)$", _text((groups / usage).with_name("memory.stat")), re.MULTILINE)
            return max(0, int(most) - int(used) + (int(unused[1]) if unused else 0))
    return None


def _versions(packages: Iterable[str]) -> Iterable[tuple[str, str]]:
    for package in packages:
        try:
            yield package, importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
