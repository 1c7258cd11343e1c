"""What a cluster was asked to be. Written once at its first start, read by every later command."""

import dataclasses
import json
import random
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from devcluster import files
from devcluster.errors import DevclusterError

# Below the range from which the kernel takes ports for outgoing connections: those can't be in the way of a restart.
_PORTS = range(20000, 32000)


@dataclass(frozen=True)
class Ports:
    """Loopback ports: on the host without a node, in the node's own network otherwise (the API server's on both)."""

    apiserver: int
    etcd: int
    etcd_peer: int
    controller_manager: int
    scheduler: int


@dataclass(frozen=True)
class ClusterSpec:
    """A cluster's shape."""

    nodes: int
    """0: a control plane on loopback; 1: with a node in a network of its own."""
    hpa_sync: str
    """Period of the autoscaler's loop, as a Go duration. Kubernetes' default is 15s."""
    ports: Ports

    def save(self, path: Path) -> None:
        """Write the spec."""
        files.write(path, json.dumps(dataclasses.asdict(self), indent=2) + "\n")


def load(path: Path) -> ClusterSpec | None:
    """Read a spec; None if there is none."""
    try:
        document = json.loads(path.read_text())
        return ClusterSpec(document["nodes"], document["hpa_sync"], Ports(**document["ports"]))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise DevclusterError(
            f"{path} is damaged ({error}): `devcluster down --name {path.parent.name}` removes it"
        ) from error


def choose_ports(random_source: random.Random, is_free: Callable[[int], bool]) -> Ports:
    """Pick distinct free ports at random, so that clusters started at the same moment don't meet."""
    candidates = (port for port in random_source.sample(_PORTS, len(_PORTS)) if is_free(port))
    wanted = len(dataclasses.fields(Ports))
    chosen = [port for _, port in zip(range(wanted), candidates, strict=False)]
    if len(chosen) < wanted:
        raise DevclusterError(
            f"fewer than {wanted} ports of 127.0.0.1:{_PORTS.start}-{_PORTS.stop} are free: end what holds them"
        )
    return Ports(*chosen)


def port_is_free(port: int) -> bool:
    """Whether a server could listen on the port of the host's loopback."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
