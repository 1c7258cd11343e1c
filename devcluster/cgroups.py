"""The cgroups below which a node's pods live, for cgroup v1, v2 and the hybrid of both."""

import errno
import time
from pathlib import Path

from devcluster.errors import DevclusterError

_SECONDS_TO_EMPTY = 10.0
# What pods are limited by; the kubelet refuses a root without them.
_CONTROLLERS = ("cpu", "cpuset", "memory", "pids", "io", "hugetlb")


def make(name: str) -> None:
    """Make a top-level cgroup of that name in every hierarchy."""
    hierarchies = mounted(Path("/proc/self/mountinfo").read_text())
    for mount, version in hierarchies:
        if version == 2 and len(hierarchies) == 1:
            _enable_controllers(mount)
        (mount / name).mkdir(exist_ok=True)


def remove(name: str) -> None:
    """Remove a top-level cgroup and everything below it; its processes have ended before."""
    deadline = time.monotonic() + _SECONDS_TO_EMPTY
    for mount, _ in mounted(Path("/proc/self/mountinfo").read_text()):
        top = mount / name
        while top.exists():
            try:
                _remove_tree(top)
            except OSError as error:
                # A process that has ended still counts for a moment.
                if error.errno != errno.EBUSY or time.monotonic() > deadline:
                    raise DevclusterError(f"{error.filename} can't be removed: {error.strerror}") from error
                time.sleep(0.05)


def _remove_tree(top: Path) -> None:
    for folder in sorted((path for path in top.rglob("*") if path.is_dir()), reverse=True):
        folder.rmdir()
    top.rmdir()


def mounted(mountinfo: str) -> list[tuple[Path, int]]:
    """Mount point and version (1 or 2) of each hierarchy."""
    found = []
    for line in mountinfo.splitlines():
        mount, _, source = line.partition(" - ")
        version = {"cgroup": 1, "cgroup2": 2}.get(source.split()[0])
        if version:
            found.append((Path(mount.split()[4]), version))
    return found


def _enable_controllers(mount: Path) -> None:
    available = (mount / "cgroup.controllers").read_text().split()
    wanted = " ".join(f"+{controller}" for controller in _CONTROLLERS if controller in available)
    try:
        (mount / "cgroup.subtree_control").write_text(wanted)
    except OSError as error:
        raise DevclusterError(
            f"{mount}/cgroup.subtree_control refuses {wanted} ({error.strerror}): in a container, start it with a "
            "writable cgroup namespace of its own, or use the machine itself"
        ) from error
