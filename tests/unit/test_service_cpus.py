"""How many CPUs a process may use."""

import math
import os
from pathlib import Path

import pytest

from rag_service.cpus import available, cpu_groups, engine_threads, quota, quota_v1

EVERY = float(len(os.sched_getaffinity(0)))


@pytest.mark.parametrize(
    ("text", "cpus"), [("max 100000\n", math.inf), ("150000 100000\n", 1.5), ("25000 100000", 0.25)]
)
def test_a_limit_of_version_2(text: str, cpus: float) -> None:
    assert quota(text) == cpus


@pytest.mark.parametrize(("most", "cpus"), [("-1\n", math.inf), ("200000\n", 2.0), ("25000\n", 0.25)])
def test_a_limit_of_version_1(most: str, cpus: float) -> None:
    assert quota_v1(most, "100000\n") == cpus


def test_the_groups_that_limit_cpus() -> None:
    assert list(cpu_groups("0::/a:b/c\n")) == [(2, "/a:b/c")]
    assert list(cpu_groups("8:pids:/x\n3:cpu,cpuacct:/a\n2:cpuset:/y\n0::/\n")) == [(1, "/a"), (2, "/")]


@pytest.mark.parametrize(
    ("cpus", "workers", "threads"), [(0.25, 1, 1), (1.9, 1, 1), (2.0, 1, 2), (4.5, 2, 2), (2.0, 2, 1), (2.0, 8, 1)]
)
def test_threads_share_whole_cpus(cpus: float, workers: int, threads: int) -> None:
    assert engine_threads(cpus, workers) == threads


def machine(root: Path, group: str, files: dict[str, str]) -> Path:
    for name, text in {
        "proc/self/cgroup": group,
        **{f"sys/fs/cgroup/{name}": text for name, text in files.items()},
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("group", "files", "cpus"),
    [
        ("0::/\n", {"cpu.max": "50000 100000\n"}, 0.5),  # a container of version 2
        ("0::/pods/one\n", {"cpu.max": "max 100000", "pods/cpu.max": "50000 100000", "pods/one/cpu.max": "max 1"}, 0.5),
        ("0::/../outside\n", {"cpu.max": "50000 100000\n"}, 0.5),
        ("4:cpu,cpuacct:/\n", {"cpu/cpu.cfs_quota_us": "50000", "cpu/cpu.cfs_period_us": "100000"}, 0.5),
        # A container of version 1 sees its path from outside, and its own group as the top one.
        ("4:cpu:/kubepods/x\n", {"cpu/cpu.cfs_quota_us": "75000", "cpu/cpu.cfs_period_us": "100000"}, 0.75),
        ("4:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, EVERY),
        ("0::/\n", {}, EVERY),
        ("", {}, EVERY),
        ("0::/\n", {"cpu.max": "100000000 100000\n"}, EVERY),
    ],
)
def test_the_tightest_limit_holds(tmp_path: Path, group: str, files: dict[str, str], cpus: float) -> None:
    assert available(machine(tmp_path, group, files)) == cpus


def test_this_process_may_use_some() -> None:
    assert 0 < available() <= EVERY
