"""One step makes components run as described; what is well is left alone."""

import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from devcluster import component, probe, processes
from devcluster.component import Component
from devcluster.errors import DevclusterError
from devcluster.paths import ClusterPaths

SERVER = """
import http.server, sys
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), http.server.SimpleHTTPRequestHandler).serve_forever()
"""

FAILS_FIRST = """
import pathlib, sys, time
first = pathlib.Path(sys.argv[2])
if not first.exists():
    first.mkdir()
    time.sleep(0.3)
    sys.exit("Error: address already in use")
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.fixture
def paths(tmp_path: Path) -> Iterator[ClusterPaths]:
    paths = ClusterPaths(tmp_path / "cluster")
    paths.logs.mkdir(parents=True)
    yield paths
    processes.kill(processes.find(paths.root), paths.root)


@pytest.fixture
def server(paths: ClusterPaths) -> Component:
    port = free_port()
    config = paths.root / "config"
    config.write_text("1")
    command = (sys.executable, "-c", SERVER, str(port))
    return Component("server", command, health=f"http://127.0.0.1:{port}/", inputs=(config,))


def pid(paths: ClusterPaths) -> int:
    (running,) = processes.find(paths.root)
    return running.pid


def test_what_runs_well_is_left_alone(paths: ClusterPaths, server: Component) -> None:
    component.ensure(paths, [server], probe=probe.wait)
    first = pid(paths)
    component.ensure(paths, [server], probe=probe.wait)
    assert pid(paths) == first


def test_what_was_killed_is_started_again(paths: ClusterPaths, server: Component) -> None:
    component.ensure(paths, [server], probe=probe.wait)
    first = pid(paths)
    os.kill(first, signal.SIGKILL)
    component.ensure(paths, [server], probe=probe.wait)
    assert pid(paths) != first


def test_what_hangs_is_started_anew(paths: ClusterPaths, server: Component, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(component, "_SECONDS_FOR_KEPT", 0.2)
    component.ensure(paths, [server], probe=probe.wait)
    first = pid(paths)
    os.kill(first, signal.SIGSTOP)
    component.ensure(paths, [server], probe=probe.wait)
    assert pid(paths) != first


def test_a_changed_configuration_file_means_a_restart(paths: ClusterPaths, server: Component) -> None:
    component.ensure(paths, [server], probe=probe.wait)
    first = pid(paths)
    server.inputs[0].write_text("2")
    component.ensure(paths, [server], probe=probe.wait)
    assert pid(paths) != first


def test_one_that_ends_at_first_is_started_again(paths: ClusterPaths, tmp_path: Path) -> None:
    """As when the port that it needs is still held by the one before, which is on its way out."""
    port = free_port()
    command = (sys.executable, "-c", FAILS_FIRST + SERVER, str(port), str(tmp_path / "first"))
    slow = Component("slow", command, health=f"http://127.0.0.1:{port}/")
    component.ensure(paths, [slow], probe=probe.wait)
    assert (tmp_path / "first").is_dir()
    assert probe.wait([slow.health], 10) == []


def test_a_port_that_is_still_held_for_a_moment_is_waited_for(paths: ClusterPaths) -> None:
    taken = socket.create_server(("127.0.0.1", 0))
    one = Component("one", ("/bin/sleep", "60"), health="", listen=taken.getsockname()[1])
    threading.Timer(0.5, taken.close).start()
    component.ensure(paths, [one], probe=lambda *_: [])
    assert pid(paths)


def test_one_that_ends_again_and_again_is_reported_with_its_own_words(paths: ClusterPaths) -> None:
    command = (sys.executable, "-c", "import time, sys; time.sleep(0.3); sys.exit('Error: no such flag')")
    broken = Component("broken", command, health=f"http://127.0.0.1:{free_port()}/")
    with pytest.raises(DevclusterError, match=r"broken has ended: Error: no such flag - log: .*broken\.log"):
        component.ensure(paths, [broken], probe=probe.wait)


def test_a_taken_port_is_named(paths: ClusterPaths) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        one = Component("one", ("/bin/sleep", "60"), health="", listen=port)
        with pytest.raises(DevclusterError, match=rf"port {port} of 127\.0\.0\.1.*end what listens there"):
            component.ensure(paths, [one], probe=probe.wait)
