"""How many CPUs this process may use: as many as its cgroup's limit allows, not as many as the machine has."""

import math
import os
from collections.abc import Iterator
from pathlib import Path

from rag_service.contract.settings import ServiceSettings


def threads_of(settings: ServiceSettings) -> int:
    """Engine threads of each process, as settings say or else as this container's limit allows."""
    return settings.threads or engine_threads(available(), settings.workers)


def engine_threads(available: float, workers: int) -> int:
    """Engine threads of each of so many processes: the whole CPUs of its share, at least one."""
    return max(1, int(available / workers))


def available(root: Path = Path("/")) -> float:
    """CPUs, whole or part, that this process may use. `root`: of the file system, another one in tests."""
    return min([float(len(os.sched_getaffinity(0))), *_limits(root)])


def quota(text: str) -> float:
    """CPUs of version 2's `cpu.max`, such as `150000 100000` (microseconds, and of how many), or `max 100000`."""
    most, period = text.split()
    return math.inf if most == "max" else int(most) / int(period)


def quota_v1(most: str, period: str) -> float:
    """CPUs of version 1's `cpu.cfs_quota_us` and `cpu.cfs_period_us`; no limit is -1."""
    return int(most) / int(period) if int(most) > 0 else math.inf


def cpu_groups(text: str) -> Iterator[tuple[int, str]]:
    """Of `/proc/self/cgroup`: the groups that may limit CPUs, as the version of cgroups and the group's path.

    A line is `0::/path` of version 2, and `3:cpu,cpuacct:/path` of version 1.
    """
    for line in text.splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0" and not controllers:
            yield 2, path
        elif "cpu" in controllers.split(","):
            yield 1, path


def _limits(root: Path) -> Iterator[float]:
    """The limits of the process' group and of those above it. The tightest one holds."""
    mounted = root / "sys/fs/cgroup"
    for version, path in cpu_groups(_read(root / "proc/self/cgroup")):
        top = mounted if version == 2 else mounted / "cpu"
        # In a container the group that is mounted there is its own, whatever its path is called from outside.
        here = top / path.lstrip("/")
        for group in (here, *(parent for parent in here.parents if parent.is_relative_to(top))):
            if version == 2 and (text := _read(group / "cpu.max")):
                yield quota(text)
            elif version == 1 and (text := _read(group / "cpu.cfs_quota_us")):
                yield quota_v1(text, _read(group / "cpu.cfs_period_us"))


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
