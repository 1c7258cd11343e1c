"""Processes are found by the mark that they carry, and nothing else is ever ended."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from devcluster import processes
from devcluster.errors import DevclusterError

SLEEP = ("/bin/sleep", "60")


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    processes.kill(processes.find(tmp_path), tmp_path)


def start(owner: Path, component: str, command: tuple[str, ...] = SLEEP, **options: object) -> processes.Running:
    return processes.start(owner, component, command, log=owner / f"{component}.log", **options)  # type: ignore[arg-type]


def test_a_process_is_found_without_any_record(owner: Path) -> None:
    started = start(owner, "one")
    assert processes.find(owner) == [started]
    assert started.is_component
    assert processes.find(owner / "other") == []


def test_a_killed_process_is_no_longer_found(owner: Path) -> None:
    started = start(owner, "one")
    os.kill(started.pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while processes.find(owner) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert processes.find(owner) == []


def test_a_child_inherits_the_mark_but_is_not_the_component(owner: Path) -> None:
    start(owner, "parent", ("/bin/sh", "-c", "sleep 60 & sleep 61; true"))
    deadline = time.monotonic() + 10
    while len(processes.find(owner)) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    found = processes.find(owner)
    assert {process.component for process in found} == {"parent"}
    assert sorted(process.is_component for process in found) == [False, False, True]


def test_kill_waits_until_all_are_gone_and_ends_nothing_else(owner: Path) -> None:
    with subprocess.Popen(SLEEP) as bystander:
        mine = [start(owner, "one"), start(owner, "two")]
        stranger = processes.Running(bystander.pid, "one", mine[0].fingerprint, is_component=True)
        processes.kill([*mine, stranger], owner)
        assert processes.find(owner) == []
        assert bystander.poll() is None
        bystander.kill()


def test_the_callers_environment_does_not_reach_a_component(owner: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", "/somewhere")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.invalid")
    started = start(owner, "one")
    names = {part.partition(b"=")[0] for part in Path(f"/proc/{started.pid}/environ").read_bytes().split(b"\0") if part}
    assert names == {b"PATH", b"DEVCLUSTER_PROCESS"}


def test_a_program_that_is_not_there_is_reported(owner: Path) -> None:
    with pytest.raises(DevclusterError, match=r"broken did not start: .*/no/such/program.* - log: "):
        start(owner, "broken", ("/no/such/program",))


def test_a_process_that_shows_no_mark_for_a_moment_is_waited_for(owner: Path) -> None:
    """As every process does while it executes another program."""
    hide_the_mark = "mark=$DEVCLUSTER_PROCESS; exec env -u DEVCLUSTER_PROCESS sh -c 'sleep 0.3; exec env \"$@\"'"
    launcher = (*processes.DETACH, "/bin/sh", "-c", f'{hide_the_mark} sh "DEVCLUSTER_PROCESS=$mark" "$@"', "sh")
    started = start(owner, "slow", launcher=launcher)
    assert processes.find(owner) == [started]


def test_the_fingerprint_covers_command_and_inputs(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text("a")
    one = processes.fingerprint(["server", "--x"], [config])
    assert one != processes.fingerprint(["server", "--y"], [config])
    config.write_text("b")
    assert one != processes.fingerprint(["server", "--x"], [config])


@pytest.mark.parametrize(
    ("log", "line"),
    [
        ("I0101 fine\nE0101 12:00:00 broken\nI0101 fine again\n", "E0101 12:00:00 broken"),
        ("Error: bad flag\nUsage:\n  --help\n", "Error: bad flag"),
        ("just one line\n", "just one line"),
        ("", "it wrote nothing"),
    ],
)
def test_the_reason_is_the_last_error_of_a_log(tmp_path: Path, log: str, line: str) -> None:
    (tmp_path / "log").write_text(log)
    assert processes.reason(tmp_path / "log") == line
