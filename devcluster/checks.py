"""What a node needs of the machine, each with the one line that tells how to get it."""

import os
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from devcluster.errors import DevclusterError
from devcluster.paths import cache_home, state_home

# Program -> the Debian package that has it. Those of util-linux are on every machine.
NODE_PROGRAMS = {
    "containerd": "containerd",
    "runc": "runc",
    "nft": "nftables",
    "ip": "iproute2",
}
IMAGE_PROGRAMS = {"buildah": "buildah", "mmdebstrap": "mmdebstrap"}
_CNI_PACKAGE = "containernetworking-plugins"
_CNI_PLUGINS = ("bridge", "host-local", "loopback")
_CNI_FOLDERS = (Path("/usr/lib/cni"), Path("/opt/cni/bin"))
_FREE_BYTES = 6 * 10**9
# Replaced inside a node's mount namespace (devcluster.sandbox): what lies there is not seen from inside.
_HIDDEN_FOLDERS = ("/run", "/var/run", "/var/log")


def require_node() -> None:
    """Raise unless a node can run here."""
    if os.geteuid() != 0:
        raise DevclusterError("a node needs root for its namespaces: run this as root, or use --nodes 0")
    require_programs(NODE_PROGRAMS)
    cni_folder()
    for folder in (state_home(), cache_home()):
        if str(folder).startswith(tuple(f"{hidden}/" for hidden in _HIDDEN_FOLDERS)):
            raise DevclusterError(f"{folder} can't be used by a node: set XDG_STATE_HOME and XDG_CACHE_HOME elsewhere")
        require_space(folder)


def require_images() -> None:
    """Raise unless images can be built here."""
    if os.geteuid() != 0:
        raise DevclusterError("building images needs root for its mounts: run this as root")
    require_programs(IMAGE_PROGRAMS)
    require_space(cache_home())


def require_programs(programs: dict[str, str]) -> None:
    """Raise unless the programs are on the PATH."""
    if absent := [program for program in programs if not shutil.which(program)]:
        raise _missing([programs[program] for program in absent], ", ".join(absent))


def require_space(folder: Path) -> None:
    """Raise unless there is room for images and containers where the folder is, or will be."""
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if free < _FREE_BYTES:
        raise DevclusterError(
            f"{free / 1e9:.1f} GB are free at {existing}, {_FREE_BYTES / 1e9:.0f} GB are needed: "
            "make room, or set XDG_STATE_HOME and XDG_CACHE_HOME to another disk"
        )


def cni_folder() -> Path:
    """Where the CNI plugins are; raises if they are not."""
    for folder in _CNI_FOLDERS:
        if all((folder / plugin).exists() for plugin in _CNI_PLUGINS):
            return folder
    raise _missing([_CNI_PACKAGE], "the CNI plugins " + ", ".join(_CNI_PLUGINS))


def install() -> None:
    """Install what is missing from the distribution's packages."""
    programs = NODE_PROGRAMS | IMAGE_PROGRAMS
    packages = {package for program, package in programs.items() if not shutil.which(program)}
    try:
        cni_folder()
    except DevclusterError:
        packages.add(_CNI_PACKAGE)
    if not packages:
        return
    if not shutil.which("apt-get"):
        raise _missing(packages, ", ".join(sorted(packages)))
    sudo = [] if os.geteuid() == 0 else ["sudo"]
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for arguments in (["update"], ["install", "--yes", "--no-install-recommends", *sorted(packages)]):
        done = subprocess.run(
            [*sudo, "apt-get", "--quiet", *arguments], env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            reason = done.stderr.strip().splitlines()[-1:] or ["no reason given"]
            raise DevclusterError(f"apt-get {arguments[0]} failed: {reason[0]}")


def _missing(packages: Iterable[str], what: str) -> DevclusterError:
    return DevclusterError(
        f"{what} not found: run `devcluster setup`, or install the packages {' '.join(sorted(packages))}"
    )
