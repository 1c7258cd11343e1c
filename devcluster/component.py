"""A component as data, and the one step that makes a set of them run as described."""

import logging
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from devcluster import processes
from devcluster.errors import DevclusterError
from devcluster.network import LOOPBACK
from devcluster.paths import ClusterPaths

_SECONDS_FOR_KEPT = 10.0
_SECONDS_FOR_STARTED = 90.0
_SECONDS_BETWEEN_LOOKS = 2.0
# A killed process keeps its ports for a moment after it is no longer found: its successor may have to begin again.
_STARTS = 3
_SECONDS_FOR_PORT = 2.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Component:
    """One process: what runs, what it reads, and where it says that it is well."""

    name: str
    command: tuple[str, ...]
    health: str
    """Address as `devcluster.probe` takes it, seen from where the component runs."""
    inputs: tuple[Path, ...] = ()
    """Files that it reads only when it starts: a change means a restart."""
    listen: int = 0
    """Port of the host's loopback on which it gets a listening socket as standard input."""


Probe = Callable[[Sequence[str], float], list[str]]


def ensure(
    paths: ClusterPaths, components: Sequence[Component], *, launcher: Sequence[str] = processes.DETACH, probe: Probe
) -> None:
    """Make all components run as described and well; those that already do are left alone.

    They start together; call once for each set that must be well before the next may start.
    """
    running = processes.find(paths.root)
    kept: list[Component] = []
    missing: list[Component] = []
    for component in components:
        fingerprint = processes.fingerprint(component.command, component.inputs)
        mine = [process for process in running if process.component == component.name and process.is_component]
        current = [process for process in mine if process.fingerprint == fingerprint]
        processes.kill((process for process in mine if process not in current[:1]), paths.root)
        (kept if current else missing).append(component)
    _start(paths, missing, launcher)
    failing = probe([component.health for component in kept], _SECONDS_FOR_KEPT) if kept else []
    hung = [component for component in kept if component.health in failing]
    for component in hung:
        _log.info("%s runs but does not answer: it is started anew", component.name)
        stop(paths, [component.name])
    _start(paths, hung, launcher)
    _wait(paths, [*missing, *hung], launcher, probe)


def stop(paths: ClusterPaths, names: Sequence[str]) -> None:
    """End the components of these names, not what inherited their marks."""
    found = processes.find(paths.root)
    processes.kill((process for process in found if process.is_component and process.component in names), paths.root)


def _wait(paths: ClusterPaths, started: Sequence[Component], launcher: Sequence[str], probe: Probe) -> None:
    deadline = time.monotonic() + _SECONDS_FOR_STARTED
    starts = dict.fromkeys((component.name for component in started), 1)
    while started:
        failing = probe([component.health for component in started], _SECONDS_BETWEEN_LOOKS)
        started = [component for component in started if component.health in failing]
        alive = {process.component for process in processes.find(paths.root) if process.is_component}
        for component in started:
            if component.name not in alive and starts[component.name] < _STARTS:
                starts[component.name] += 1
                _start(paths, [component], launcher)
            elif component.name not in alive or time.monotonic() > deadline:
                log = paths.logs / f"{component.name}.log"
                how = "does not answer" if component.name in alive else "has ended"
                raise DevclusterError(f"{component.name} {how}: {processes.reason(log)} - log: {log}")


def _start(paths: ClusterPaths, components: Sequence[Component], launcher: Sequence[str]) -> None:
    for component in components:
        with _listener(component.listen) as stdin:
            processes.start(
                paths.root, component.name, component.command,
                launcher=launcher, inputs=component.inputs, log=paths.logs / f"{component.name}.log", stdin=stdin,
            )  # fmt: skip


@contextmanager
def _listener(port: int) -> Iterator[int]:
    if port == 0:
        yield subprocess.DEVNULL
        return
    with _bound(port) as listener:
        yield listener.fileno()


def _bound(port: int) -> socket.socket:
    deadline = time.monotonic() + _SECONDS_FOR_PORT
    while True:
        try:
            return socket.create_server((LOOPBACK, port), backlog=128)
        except OSError as error:
            if time.monotonic() > deadline:
                raise DevclusterError(f"port {port} of {LOOPBACK}: {error.strerror}; end what listens there") from error
            time.sleep(0.05)
