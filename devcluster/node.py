"""A node's namespaces: making them, entering them, and what the host does through them."""

import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from devcluster import cgroups, images, network, probe, processes
from devcluster.api import Api
from devcluster.build import Binaries
from devcluster.errors import DevclusterError
from devcluster.nodecomponents import CONTAINERD_SOCKET
from devcluster.paths import ClusterPaths

_SANDBOX = "sandbox"
_SECONDS_FOR_READY = 60.0


class Node:
    """The namespaces of one cluster's node. Making the object starts nothing."""

    def __init__(self, paths: ClusterPaths) -> None:
        self._paths = paths
        # Clusters of one name may exist in several state folders.
        self.cgroup = f"devcluster-{paths.name}-{hashlib.sha256(str(paths.root).encode()).hexdigest()[:6]}"

    def open(self, binaries: Binaries) -> None:
        """Make the namespaces exist; new ones if the first process of the old ones has ended."""
        if self._find():
            return
        # What is left of a node that lost its first process.
        processes.kill(processes.find(self._paths.root), self._paths.root)
        self.close()
        cgroups.make(self.cgroup)
        self._paths.node.mkdir(exist_ok=True)
        processes.start(
            self._paths.root, _SANDBOX, (str(binaries.pause),),
            launcher=(
                *processes.DETACH, "unshare", "--mount", "--propagation=slave", "--net", "--pid", "--fork", "--",
                sys.executable, "-m", "devcluster.sandbox", str(self._paths.root),
            ),
            log=self._paths.logs / f"{_SANDBOX}.log",
        )  # fmt: skip

    def close(self) -> None:
        """Remove what does not end with the namespaces: the pods' cgroups."""
        cgroups.remove(self.cgroup)

    def enter(self, *namespaces: str) -> tuple[str, ...]:
        """A prefix that runs a command in namespaces of the node: any of mount, net, pid."""
        sandbox = self._find()
        if sandbox is None:
            raise DevclusterError(
                f"the node of cluster {self._paths.name} does not run: `devcluster up --name {self._paths.name}`"
            )
        return ("nsenter", f"--target={sandbox.pid}", *(f"--{namespace}" for namespace in namespaces), "--")

    def probe(self, addresses: Sequence[str], seconds: float) -> list[str]:
        """`probe.wait`, seen from inside."""
        command = [*self.enter("mount", "net"), sys.executable, str(probe.__file__), str(seconds), *addresses]
        return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.split()

    def load(self, archive: Path) -> bool:
        """Import an OCI archive into the container runtime; False if the runtime had it already."""
        reference, digest = images.manifest_digest(archive)
        if digest in self._ctr("images", "list", f"name=={reference}"):
            return False
        with archive.open("rb") as file:
            self._ctr("images", "import", "-", stdin=file)
        return True

    def wait_until_ready(self, api: Api) -> None:
        """Wait until the API server lists the node as ready for pods."""
        deadline = time.monotonic() + _SECONDS_FOR_READY
        while not _is_ready(api):
            if time.monotonic() > deadline:
                log = self._paths.logs / "kubelet.log"
                raise DevclusterError(f"the node is not ready: {processes.reason(log)} - log: {log}")
            time.sleep(0.1)

    def _ctr(self, *arguments: str, stdin: IO[bytes] | int = subprocess.DEVNULL) -> str:
        command = [*self.enter("mount"), "ctr", f"--address={CONTAINERD_SOCKET}", "--namespace=k8s.io", *arguments]
        done = subprocess.run(command, stdin=stdin, capture_output=True, text=True, check=False)
        if done.returncode:
            raise DevclusterError(f"ctr {' '.join(arguments)} failed: {done.stderr.strip()[-300:]}")
        return done.stdout

    def _find(self) -> processes.Running | None:
        found = processes.find(self._paths.root)
        return next((process for process in found if process.component == _SANDBOX and process.is_component), None)


def _is_ready(api: Api) -> bool:
    status, body = api.get(f"/api/v1/nodes/{network.NODE_NAME}")
    if status != 200:
        return False
    conditions = json.loads(body).get("status", {}).get("conditions", [])
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)
