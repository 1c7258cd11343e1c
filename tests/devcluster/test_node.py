"""A real node: pods, Services, DNS, limits, metrics and the autoscaler; kills, and a machine left as it was."""

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest

from devcluster import cgroups, images, processes
from devcluster.cluster import Cluster
from devcluster.errors import DevclusterError

pytestmark = pytest.mark.node

# Prints the share of a processor that it got in each second.
BURN = """
import time
while True:
    wall, cpu = time.monotonic(), time.process_time()
    while time.monotonic() < wall + 1: pass
    print((time.process_time() - cpu) / (time.monotonic() - wall), flush=True)
"""


def pod(*command: str, **container: Any) -> dict[str, Any]:
    """Template of a pod on the base image."""
    main = {"name": "main", "image": images.BASE, "imagePullPolicy": "Never", "command": command, **container}
    return {"terminationGracePeriodSeconds": 0, "containers": [main]}


def deployment(name: str, spec: dict[str, Any], replicas: int = 1) -> dict[str, Any]:
    labels = {"app": name}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }


WEB = [
    deployment(
        "web",
        pod(
            *("python3", "-m", "http.server", "8000"),
            readinessProbe={"httpGet": {"path": "/", "port": 8000}, "periodSeconds": 1},
        ),
    ),
    {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8000}]},
    },
]


T = TypeVar("T")


class World:
    """A cluster with a node, and the ways in which tests use it."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """Output of kubectl, run on the host."""
        done = self._run(*arguments, stdin=stdin)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def _run(self, *arguments: str, stdin: str | None = None) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [self.cluster.paths.tools / "kubectl", *arguments], env=os.environ | self.cluster.environment(),
            input=stdin, capture_output=True, text=True, check=False,
        )  # fmt: skip

    def apply(self, *manifests: dict[str, Any]) -> None:
        document = {"apiVersion": "v1", "kind": "List", "items": list(manifests)}
        self.kubectl("apply", "-f", "-", stdin=json.dumps(document))

    def python_in(self, target: str, program: str) -> str:
        """What a program prints in a pod; a kubelet or a Service that has just started is given time."""

        def run() -> "subprocess.CompletedProcess[str]":
            return self._run("exec", target, "--", "python3", "-c", program)

        return eventually(run, lambda done: done.returncode == 0, seconds=30).stdout.strip()

    def kill(self, component: str) -> None:
        (pid,) = [one.pid for one in self.cluster.status() if one.name == component]
        assert pid
        os.kill(pid, signal.SIGKILL)

    def pids(self) -> dict[str, int | None]:
        return {one.name: one.pid for one in self.cluster.status()}


def eventually(what: Callable[[], T], good: Callable[[T], bool], seconds: float = 120) -> T:
    deadline = time.monotonic() + seconds
    while True:
        last = what()
        if good(last) or time.monotonic() > deadline:
            assert good(last), last
            return last
        time.sleep(0.5)


def machine() -> dict[str, Any]:
    """What a node could leave behind on the machine."""
    sysctls = ("vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops", "net/ipv4/ip_forward")
    places = (
        "/run/netns", "/run/containerd", "/run/cni", "/var/lib/cni", "/var/lib/kubelet", "/var/log/pods",
        "/var/log/containers",
    )  # fmt: skip
    links = subprocess.run(["ip", "-json", "link"], check=True, capture_output=True, text=True).stdout
    return {
        "mounts": sorted(line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()),
        "sysctls": {name: (Path("/proc/sys") / name).read_text() for name in sysctls},
        "files": sorted(path for place in map(Path, places) if place.exists() for path in place.iterdir()),
        "links": sorted(link["ifname"] for link in json.loads(links)),
    }


@pytest.fixture(scope="module")
def before() -> dict[str, Any]:
    return machine()


@pytest.fixture(scope="module")
def world(before: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        cluster = Cluster("node")
    (base,) = images.build([])
    try:
        cluster.up(nodes=1)
        cluster.load(base.archive)
        world = World(cluster)
        world.apply(*WEB)
        world.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
        yield world
    finally:
        cluster.down()


def test_a_pod_reaches_a_service_by_name(world: World) -> None:
    program = "import urllib.request as r; print(r.urlopen('http://web.default.svc.cluster.local', timeout=9).status)"
    assert world.python_in("deployment/web", program) == "200"
    assert world.python_in("deployment/web", program.replace(".default.svc.cluster.local", "")) == "200"


def test_a_pod_has_no_way_out_and_learns_so_at_once(world: World) -> None:
    program = (
        "import socket\n"
        "try: socket.create_connection(('192.0.2.1', 80), 30)\n"
        "except OSError as error: print(type(error).__name__, error.errno)"
    )
    assert world.python_in("deployment/web", program).startswith("OSError")


def test_logs_and_port_forward_work_from_the_host(world: World) -> None:
    prefix = [world.cluster.paths.tools / "kubectl", "port-forward", "deployment/web", ":8000"]
    environment = os.environ | world.cluster.environment()
    with subprocess.Popen(prefix, env=environment, stdout=subprocess.PIPE, text=True) as forward:
        try:
            assert forward.stdout
            port = re.search(r"127\.0\.0\.1:(\d+)", forward.stdout.readline())
            assert port
            assert httpx.get(f"http://127.0.0.1:{port[1]}/marked", trust_env=False).status_code == 404
        finally:
            forward.kill()
    eventually(lambda: world.kubectl("logs", "deployment/web"), lambda log: "GET /marked" in log, seconds=20)


def test_the_prefix_runs_a_command_where_services_are_reachable(world: World) -> None:
    address = world.kubectl("get", "service", "web", "--output=jsonpath={.spec.clusterIP}")
    program = f"import urllib.request as r; print(r.urlopen('http://{address}', timeout=9).status)"
    command = [*world.cluster.exec_prefix, "python3", "-c", program]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip() == "200"


def test_a_limit_in_millicores_throttles(world: World) -> None:
    limits = {"cpu": "200m", "memory": "64Mi"}
    world.apply(deployment("burn", pod("python3", "-c", BURN, resources={"limits": limits, "requests": limits})))
    world.kubectl("rollout", "status", "deployment/burn", "--timeout=60s")
    shares = eventually(lambda: world.kubectl("logs", "deployment/burn").split(), lambda lines: len(lines) >= 6)
    assert 0.1 < sum(map(float, shares[1:])) / len(shares[1:]) < 0.3


def test_the_autoscaler_follows_the_cpu_that_the_metrics_server_measures(world: World) -> None:
    target = {"type": "Utilization", "averageUtilization": 50}
    world.apply(
        {
            "apiVersion": "autoscaling/v2",
            "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "burn"},
            "spec": {
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "burn"},
                "minReplicas": 1,
                "maxReplicas": 2,
                "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": target}}],
            },
        }
    )
    eventually(lambda: world.kubectl("get", "hpa/burn", "--output=jsonpath={.status.desiredReplicas}"), "2".__eq__)
    usage = eventually(lambda: world.kubectl("top", "pods", "--no-headers"), lambda table: "burn" in table)
    millicores = [int(line.split()[1].removesuffix("m")) for line in usage.splitlines() if line.startswith("burn")]
    assert all(100 < one < 300 for one in millicores)
    world.kubectl("delete", "hpa/burn", "deployment/burn")


def test_an_image_is_loaded_once(world: World, caplog: pytest.LogCaptureFixture) -> None:
    (base,) = images.build([])
    caplog.set_level("INFO")
    world.cluster.load(base.archive)
    assert "loaded" not in caplog.text
    with pytest.raises(DevclusterError, match="no such file"):
        world.cluster.load(Path("/no/such.tar"))


def test_a_second_up_finds_everything_well(world: World) -> None:
    before = world.pids()
    world.cluster.up()
    assert world.pids() == before


@pytest.mark.parametrize("victims", [["containerd"], ["kubelet", "coredns"], ["kube-apiserver", "forwarder"]])
def test_up_repairs_what_was_killed_and_the_pods_run_on(world: World, victims: list[str]) -> None:
    started = world.python_in("deployment/web", "print(open('/proc/1/stat').read().split()[21])")
    for victim in victims:
        world.kill(victim)
    world.cluster.up()
    assert all(world.pids().values())
    assert world.python_in("deployment/web", "print(open('/proc/1/stat').read().split()[21])") == started


def test_up_repairs_a_node_that_died_as_a_whole(world: World) -> None:
    world.kill("sandbox")
    world.cluster.up()
    program = "import urllib.request as r; print(r.urlopen('http://web', timeout=9).status)"
    assert world.python_in("deployment/web", program) == "200"


def test_down_leaves_the_machine_as_it_was(world: World, before: dict[str, Any]) -> None:
    hierarchies = [mount for mount, _ in cgroups.mounted(Path("/proc/self/mountinfo").read_text())]
    own = [mount / world.cluster.node.cgroup for mount in hierarchies]
    assert all(cgroup.exists() for cgroup in own)
    world.cluster.down()
    assert not any(cgroup.exists() for cgroup in own)
    assert processes.find(world.cluster.paths.root) == []
    assert not world.cluster.paths.root.exists()
    eventually(machine, before.__eq__, seconds=10)
