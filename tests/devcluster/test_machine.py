"""Names, ports, cgroups, prerequisites: what is found out about the machine, and how it is told."""

import random
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from devcluster import __main__, cgroups, checks, files, paths, spec
from devcluster.errors import DevclusterError


def test_folders_follow_the_xdg_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "relative/is/invalid")
    monkeypatch.setenv("HOME", "/home/someone")
    assert paths.cluster_paths("one").root == tmp_path / "ragservice" / "devcluster" / "one"
    assert paths.cache_home() == Path("/home/someone/.cache/ragservice/devcluster")


@pytest.mark.parametrize("name", ["", "-a", "a-", "A", "a/b", "..", "a" * 33])
def test_a_name_that_can_be_no_name_is_refused(name: str) -> None:
    with pytest.raises(DevclusterError, match="cluster name"):
        paths.cluster_paths(name)


def test_ports_are_distinct_and_free() -> None:
    taken = set(range(20000, 31000))
    ports = vars(spec.choose_ports(random.Random(1), lambda port: port not in taken)).values()
    assert len(set(ports)) == len(ports)
    assert taken.isdisjoint(ports)


def test_no_free_ports_is_told() -> None:
    with pytest.raises(DevclusterError, match="end what holds them"):
        spec.choose_ports(random.Random(1), lambda _: False)


def test_a_port_with_a_listener_is_not_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert not spec.port_is_free(server.getsockname()[1])


def test_a_spec_is_read_as_it_was_written(tmp_path: Path) -> None:
    written = spec.ClusterSpec(1, "15s", spec.Ports(1, 2, 3, 4, 5))
    written.save(tmp_path / "cluster.json")
    assert spec.load(tmp_path / "cluster.json") == written
    assert spec.load(tmp_path / "none.json") is None


def test_a_damaged_spec_says_how_to_get_rid_of_it(tmp_path: Path) -> None:
    (tmp_path / "cluster.json").write_text("{")
    with pytest.raises(DevclusterError, match=rf"is damaged .* `devcluster down --name {tmp_path.name}`"):
        spec.load(tmp_path / "cluster.json")


def test_cgroup_hierarchies_are_read_from_the_mounts() -> None:
    hybrid = (
        "30 25 0:26 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755\n"
        "31 30 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
        "34 30 0:30 / /sys/fs/cgroup/cpu rw,relatime shared:11 - cgroup cgroup rw,cpu\n"
    )
    assert cgroups.mounted(hybrid) == [(Path("/sys/fs/cgroup/unified"), 2), (Path("/sys/fs/cgroup/cpu"), 1)]


def test_what_is_missing_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(DevclusterError, match=r"nft not found: run `devcluster setup`, or install .* nftables"):
        checks.require_programs({"nft": "nftables"})


def test_no_root_and_no_room_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(DevclusterError, match="needs root"):
        checks.require_node()
    monkeypatch.setattr(checks, "_FREE_BYTES", 10**18)
    with pytest.raises(DevclusterError, match="make room"):
        checks.require_space(tmp_path / "not" / "yet" / "there")


@pytest.mark.parametrize(
    "arguments",
    [["kubeconfig"], ["exec", "--", "true"], ["load", "x.tar"], ["status"], ["exec"], ["up", "--name", "A"]],
)
def test_a_failure_is_one_line_without_a_trace(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert __main__.main(arguments) == 1
    output = capsys.readouterr()
    assert len((output.out + output.err).splitlines()) == 1


def test_what_can_not_start_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert __main__.main(["up", "--nodes", "1", "--name", "one"]) == 1
    assert __main__.main(["up", "--hpa-sync", "soon", "--name", "one"]) == 1
    assert not paths.cluster_paths("one").root.exists()


def test_two_never_hold_one_lock(tmp_path: Path) -> None:
    inside = []

    def enter(who: int) -> None:
        with files.locked(tmp_path / "folder"):
            inside.append(who)
            time.sleep(0.01)
            assert inside == [who]
            inside.remove(who)

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(enter, who) for who in range(20)]:
            done.result()
    assert not (tmp_path / "folder").exists()


def test_down_of_what_does_not_exist_is_fine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert __main__.main(["down", "--name", "never-was"]) == 0
    assert not list(tmp_path.iterdir())
