"""Makes the inside of a node's namespaces and then becomes their first process; run under unshare.

A node lives in a mount, a network and a PID namespace of its own. Ending its first process ends everything in it,
and with that its mounts, network devices and rules are gone: nothing on the machine needs to be undone.
"""

import os
import subprocess
import sys
from pathlib import Path

from devcluster import network

# containerd and its shims, the CNI plugins and the kubelet write to fixed places. In here these are the node's own.
_OWN_FOLDERS = ("/run", "/var/log")
# Written by the kubelet and the CNI library, read by whatever else is installed there: an overlay serves both.
_SHARED_FOLDER = "/var/lib"
# The kubelet sets these for the whole machine. In here they are plain files, and the machine keeps its own.
_MACHINE_SYSCTLS = (
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
)


def main(root: Path, command: list[str]) -> None:
    """Prepare mounts and network, then execute the command in place of this program."""
    _mount_folders(root)
    _shadow_sysctls()
    _make_network()
    os.execv(command[0], command)


def _mount_folders(root: Path) -> None:
    for folder in _OWN_FOLDERS:
        _run("mount", "-t", "tmpfs", "-o", "mode=755", "devcluster", folder)
    own = Path("/run/devcluster")
    for folder in ("cluster", "upper", "work"):
        (own / folder).mkdir(parents=True)
    _run("mount", "--bind", str(root), str(own / "cluster"))
    layers = f"lowerdir={_SHARED_FOLDER},upperdir={own / 'upper'},workdir={own / 'work'}"
    _run("mount", "-t", "overlay", "-o", layers, "devcluster", _SHARED_FOLDER)
    if root.is_relative_to(_SHARED_FOLDER):
        # What the node writes into the cluster's folder must reach the disk, not the overlay.
        _run("mount", "--bind", str(own / "cluster"), str(root))
    # The PID namespace is new: only a new mount shows its processes.
    _run("mount", "-t", "proc", "proc", "/proc")


def _shadow_sysctls() -> None:
    for name in _MACHINE_SYSCTLS:
        real = Path("/proc/sys") / name
        shadow = Path("/run/devcluster") / name.replace("/", ".")
        shadow.write_text(real.read_text())
        _run("mount", "--bind", str(shadow), str(real))


def _make_network() -> None:
    _run("ip", "link", "set", "lo", "up")
    # Both ends of the pair stay here: it only carries the node's address. Not every kernel has dummy devices.
    _run("ip", "link", "add", "node0", "type", "veth", "peer", "name", "node1")
    _run("ip", "address", "add", f"{network.NODE_ADDRESS}/{network.NODE_PREFIX}", "dev", "node0")
    for device in ("node0", "node1"):
        _run("ip", "link", "set", device, "up")
    # A packet to a Service needs a route before kube-proxy's rules see it.
    _run("ip", "route", "add", network.SERVICE_SUBNET, "dev", "node0")
    # There is no way out, and pods that look for one learn so at once.
    _run("ip", "route", "add", "unreachable", "default")
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}: {done.stderr.strip()}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
