"""Starts, finds and ends processes without keeping a record of them.

Each process carries a mark in its environment: whose it is, which component, and what it was started with. The
kernel's process table is thus the only record. Nothing goes stale when something is killed, a reused process id
never carries the mark, and a process started a moment before its driver was killed is found like any other.
"""

import hashlib
import os
import re
import select
import signal
import subprocess
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from devcluster.errors import DevclusterError

_VARIABLE = "DEVCLUSTER_PROCESS"
# Components get no other variables: a proxy or a KUBECONFIG of the caller must not reach them.
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_LOG_END = 1 << 16
# As the components' loggers write it: klog (E, F), logrus and zap (level), cobra and the Go runtime.
_ERROR = re.compile(r"^[EF]\d{4} |level=(error|fatal)|\"level\":\"(error|fatal)|^Error: |^panic: ")
_SECONDS_TO_DIE = 30.0
_SECONDS_TO_APPEAR = 30.0
# Leaves the component to the init process of its PID namespace, which reaps it.
DETACH = ("setsid", "--fork")


@dataclass(frozen=True)
class Running:
    """A live process that carries the mark."""

    pid: int
    component: str
    fingerprint: str
    """Of the command and inputs it was started with."""
    is_component: bool
    """False for what merely inherited the mark: the launcher, or a child such as a container's shim."""


def fingerprint(command: Sequence[str], inputs: Iterable[Path] = ()) -> str:
    """Name a command together with the content of the files that it reads."""
    digest = hashlib.sha256("\0".join(command).encode())
    for path in inputs:
        digest.update(b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def find(owner: Path) -> list[Running]:
    """All live processes of an owner (a cluster's folder), those in its namespaces included."""
    found = (_inspect(int(entry.name), owner) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return [process for process in found if process]


def start(
    owner: Path,
    component: str,
    command: Sequence[str],
    *,
    launcher: Sequence[str] = DETACH,
    inputs: Iterable[Path] = (),
    log: Path,
    stdin: int = subprocess.DEVNULL,
) -> Running:
    """Start a component in the background and return it once it runs its own command.

    `launcher` is a command that detaches and ends in executing the one that follows it.
    """
    if log.exists():
        # The log of the run before tells why that one ended; mixed with this one it would mislead.
        log.replace(log.with_suffix(".log.old"))
    mark = f"{fingerprint(command)}:{fingerprint(command, inputs)}:{component}:{owner}"
    # A process shows no mark while it executes another program: only a pipe tells that it has ended.
    alive, held = os.pipe()
    try:
        with log.open("ab") as output, os.fdopen(held, "wb"):
            subprocess.run(
                [*launcher, *command],
                env={"PATH": _PATH, _VARIABLE: mark}, stdin=stdin, stdout=output, stderr=output, cwd="/", check=False,
                pass_fds=(held,),
            )  # fmt: skip
        deadline = time.monotonic() + _SECONDS_TO_APPEAR
        ended = False
        while not ended and time.monotonic() < deadline:
            # Asked first: what is then still not found has never been there.
            ended = _hung_up(alive)
            for process in find(owner):
                if process.component == component and process.is_component:
                    return process
            time.sleep(0.02)
    finally:
        os.close(alive)
    raise DevclusterError(f"{component} did not start: {reason(log)} - log: {log}")


def kill(processes: Iterable[Running], owner: Path) -> None:
    """End processes at once and wait until they are gone.

    No polite signal first: what they hold is thrown away with the cluster, or made to survive a crash (etcd).
    """
    descriptors = []
    try:
        for process in processes:
            try:
                descriptor = os.pidfd_open(process.pid)
            except ProcessLookupError:
                continue
            descriptors.append(descriptor)
            # The id may have been reused since it was listed; from here on the descriptor is the process.
            now = _inspect(process.pid, owner)
            if now and now.component == process.component:
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            else:
                descriptors.remove(descriptor)
                os.close(descriptor)
        deadline = time.monotonic() + _SECONDS_TO_DIE
        for descriptor in descriptors:
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise DevclusterError("a process does not end although it was killed; see `ps`, state D, and dmesg")
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def reason(log: Path) -> str:
    """The line of a log's end that says most about a failure: its last error, otherwise its last line; shortened."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _LOG_END))
        lines = [line for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if _ERROR.search(line)]
    return (errors or lines or ["it wrote nothing"])[-1].strip()[:300]


def _hung_up(pipe: int) -> bool:
    """Whether nobody holds the other end of a pipe any more."""
    poll = select.poll()
    poll.register(pipe, 0)
    return bool(poll.poll(0))


def _inspect(pid: int, owner: Path) -> Running | None:
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:  # it ended, or it is another user's
        return None
    for variable in environment.split(b"\0"):
        if variable.startswith(_VARIABLE.encode() + b"="):
            value = variable.decode(errors="replace").partition("=")[2]
            own_command, started_with, component, whose = value.split(":", 3)
            if whose == str(owner):
                arguments = [part.decode(errors="replace") for part in command.split(b"\0")[:-1]]
                return Running(pid, component, started_with, fingerprint(arguments) == own_command)
    return None
