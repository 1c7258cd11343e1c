"""Where things lie: what is built once in the XDG cache, what belongs to one cluster in the XDG state folder."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from devcluster.errors import DevclusterError

# The name becomes part of cgroup, folder and network names.
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")


def _xdg(variable: str, fallback: str) -> Path:
    value = os.environ.get(variable, "")
    # The XDG specification: a relative path is invalid and ignored.
    base = Path(value) if value.startswith("/") else Path.home() / fallback
    return base / "ragservice" / "devcluster"


def cache_home() -> Path:
    """What can be made again at the price of time: binaries, images, downloads."""
    return _xdg("XDG_CACHE_HOME", ".cache")


def state_home() -> Path:
    """The folder that holds one folder a cluster."""
    return _xdg("XDG_STATE_HOME", ".local/state")


@dataclass(frozen=True)
class ClusterPaths:
    """The files of one cluster; all of them are removed by `down`."""

    root: Path

    @property
    def name(self) -> str:
        """The cluster's name."""
        return self.root.name

    @property
    def spec(self) -> Path:
        """What the cluster was asked to be, and the ports it was given."""
        return self.root / "cluster.json"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig, good from the host and from inside the node's network."""
        return self.root / "kubeconfig"

    @property
    def pki(self) -> Path:
        """Certificates and keys."""
        return self.root / "pki"

    @property
    def config(self) -> Path:
        """The components' configuration files and kubeconfigs."""
        return self.root / "config"

    @property
    def logs(self) -> Path:
        """One log a component."""
        return self.root / "logs"

    @property
    def etcd(self) -> Path:
        """The cluster's objects."""
        return self.root / "etcd"

    @property
    def tools(self) -> Path:
        """Links to kubectl and helm, for the PATH of `devcluster exec`."""
        return self.root / "tools"

    @property
    def node(self) -> Path:
        """What containerd and the kubelet keep on disk."""
        return self.root / "node"


def cluster_paths(name: str) -> ClusterPaths:
    """The paths of the cluster of that name, whether it exists or not."""
    if not _NAME.fullmatch(name):
        raise DevclusterError(f"cluster name {name!r}: use up to 32 lower-case letters, digits and, inside, dashes")
    return ClusterPaths(state_home() / name)
