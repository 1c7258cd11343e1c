"""A control plane without a node: it comes up, is used again, survives kills, and leaves nothing."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from devcluster import processes
from devcluster.cluster import Cluster
from devcluster.errors import DevclusterError

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        cluster = Cluster("plane")
    try:
        cluster.up(nodes=0)
        yield cluster
    finally:
        cluster.down()


def pids(cluster: Cluster) -> dict[str, int | None]:
    return {component.name: component.pid for component in cluster.status()}


def kubectl(cluster: Cluster, *arguments: str) -> str:
    command = [cluster.paths.tools / "kubectl", *arguments]
    environment = os.environ | cluster.environment()
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout


def test_the_kubeconfig_works_and_the_version_is_one(cluster: Cluster) -> None:
    version = json.loads(kubectl(cluster, "version", "--output=json"))
    server, client = version["serverVersion"], version["clientVersion"]
    assert (server["major"], server["minor"]) == (client["major"], client["minor"])
    assert "default" in kubectl(cluster, "get", "serviceaccounts")


def test_helm_can_parse_the_version(cluster: Cluster) -> None:
    helm = subprocess.run(
        [cluster.paths.tools / "helm", "list", "--all-namespaces"], env=os.environ | cluster.environment(), check=False
    )
    assert helm.returncode == 0


def test_controllers_work(cluster: Cluster) -> None:
    kubectl(cluster, "create", "deployment", "one", "--image=none", "--replicas=2")
    kubectl(cluster, "wait", "deployment/one", "--for=jsonpath={.status.unavailableReplicas}=2", "--timeout=30s")


def test_a_second_up_finds_everything_well(cluster: Cluster) -> None:
    before = pids(cluster)
    cluster.up()
    assert pids(cluster) == before


@pytest.mark.parametrize("victims", [["kube-apiserver"], ["etcd", "kube-scheduler"], ["kube-controller-manager"]])
def test_up_repairs_what_was_killed_and_keeps_the_objects(cluster: Cluster, victims: list[str]) -> None:
    kubectl(cluster, "create", "configmap", victims[0])
    before = pids(cluster)
    for victim in victims:
        pid = before[victim]
        assert pid
        os.kill(pid, signal.SIGKILL)
    cluster.up()
    after = pids(cluster)
    assert all(after.values())
    assert {name for name in after if after[name] != before[name]} >= set(victims)
    kubectl(cluster, "get", "configmap", victims[0])


def test_up_repairs_a_cluster_whose_processes_all_ended(cluster: Cluster) -> None:
    kubectl(cluster, "create", "configmap", "kept")
    processes.kill(processes.find(cluster.paths.root), cluster.paths.root)
    cluster.up()
    kubectl(cluster, "get", "configmap", "kept")


def test_another_hpa_period_restarts_only_the_controller_manager(cluster: Cluster) -> None:
    before = pids(cluster)
    cluster.up(hpa_sync="3s")
    after = pids(cluster)
    assert {name for name in after if after[name] != before[name]} == {"kube-controller-manager"}
    cluster.up()
    assert pids(cluster) == after


def test_it_does_not_become_a_cluster_with_a_node(cluster: Cluster) -> None:
    with pytest.raises(DevclusterError, match=r"exists with 0 nodes, not 1.*devcluster down --name plane"):
        cluster.up(nodes=1)
    with pytest.raises(DevclusterError, match="no cluster plane with a node"):
        cluster.load(Path("x.tar"))


def test_two_stand_side_by_side_and_down_leaves_nothing(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, home = tmp_path / "state", tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")))
    monkeypatch.setenv("XDG_STATE_HOME", str(state))
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("KUBECONFIG", str(home / "config"))
    other = Cluster("other")
    other.up(nodes=0)
    kubectl(other, "create", "configmap", "other")
    assert "other" not in kubectl(cluster, "get", "configmaps", "--output=name")
    other.down()
    assert processes.find(other.paths.root) == []
    assert not state.exists() or not list(state.iterdir())
    assert not list(home.iterdir()), "the home folder, with a kubeconfig in it perhaps, is none of its business"
    assert all(pids(cluster).values())
