"""Builds the project's images from its Dockerfiles, without a registry.

The base comes from the distribution's packages. Everything is cached by what goes into it: the base by its recipe, an
image by its Dockerfile and the files that it copies, a package download by pip.
"""

import hashlib
import json
import logging
import os
import re
import shlex
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from devcluster import checks, pipconfig
from devcluster.errors import DevclusterError
from devcluster.files import locked
from devcluster.paths import cache_home
from devcluster.progress import Progress

PROJECT = Path(__file__).parents[1]
COMPONENTS = ("operator", "service", "loadtest")
_REPOSITORY = "localhost/ragservice"
BASE = f"{_REPOSITORY}/base:dev"
_SUITE = "trixie"
# The same Python as the Dockerfiles' published base; Redis and HAProxy for the pods that run them.
_PACKAGES = ("python3", "python3-venv", "redis-server", "haproxy", "ca-certificates")
_DPKG_OPTIONS = (
    # What is thrown away when it fails needs no flush to disk after every file.
    "force-unsafe-io",
    *(f"path-exclude=/usr/share/{unread}/*" for unread in ("doc", "info", "locale", "man")),
)
# Every file of a build gets this time, so that a fresh checkout finds the layers of the last one.
_FILE_TIME = 1577836800
_UNFINISHED = ".unfinished-"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Image:
    """A built image: its name in the cluster, and the OCI archive that holds it."""

    reference: str
    archive: Path

    @property
    def bytes(self) -> int:
        """Size of the archive, compressed layers included."""
        return self.archive.stat().st_size


def build(components: Iterable[str] = COMPONENTS, project: Path = PROJECT) -> list[Image]:
    """Build what has changed; returns the base image, then the components'."""
    chosen = list(components)
    for name in chosen:
        if not _dockerfile(project, name).exists():
            raise DevclusterError(f"{_dockerfile(project, name)} does not exist: no image {name}")
    folder = cache_home() / "images"
    with locked(folder) as lock:
        # Nobody else builds here while we hold the lock: these were left by a build that was killed.
        for leftover in folder.glob(f"{_UNFINISHED}*"):
            if leftover.is_dir():
                shutil.rmtree(leftover)
            else:
                leftover.unlink()
        builder = _Builder(project, folder, lock)
        base = builder.base()
        return [base, *(builder.component(name, base) for name in chosen)]


def copied_paths(dockerfile: str) -> list[str]:
    """What a Dockerfile takes from the build context: the sources of its COPY and ADD lines, other stages left out."""
    sources: list[str] = []
    for line in re.sub(r"\\\n", " ", dockerfile).splitlines():
        words = shlex.split(line, comments=True)
        if not words or words[0].upper() not in {"COPY", "ADD"}:
            continue
        flags = [word for word in words[1:] if word.startswith("--")]
        if not any(flag.startswith("--from=") for flag in flags):
            sources += [word for word in words[1:-1] if not word.startswith("--")]
    return sources


def project_files(project: Path, paths: Iterable[str]) -> list[Path]:
    """The files below the paths that git would commit, relative to the project."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *paths],
        cwd=project, capture_output=True, check=False,
    )  # fmt: skip
    if listed.returncode:
        raise DevclusterError(f"git can't list the files of {project}: {listed.stderr.decode().strip()}")
    names = sorted({name for name in listed.stdout.decode().split("\0") if name})
    return [Path(name) for name in names if (project / name).is_file()]


def content_key(project: Path, files: Iterable[Path], *more: str) -> str:
    """Name a build by the names, modes and content of its files and whatever else decides it."""
    digest = hashlib.sha256("\0".join(more).encode())
    for file in files:
        full = project / file
        executable = full.stat().st_mode & 0o100
        digest.update(f"\0{file}\0{executable}\0".encode() + full.read_bytes())
    return digest.hexdigest()[:16]


def manifest_digest(archive: Path) -> tuple[str, str]:
    """Reference and manifest digest of the one image in an OCI archive."""
    try:
        with tarfile.open(archive) as tar:
            index = tar.extractfile("index.json")
            if index is None:
                raise ValueError("its index.json is not a file")
            (entry,) = json.load(index)["manifests"]
            names = entry.get("annotations", {})
            name = names.get("io.containerd.image.name") or names["org.opencontainers.image.ref.name"]
            return name, entry["digest"]
    except (OSError, tarfile.TarError, KeyError, ValueError) as error:
        raise DevclusterError(f"{archive} is not an OCI archive of one named image: {error}") from error


def _dockerfile(project: Path, component: str) -> Path:
    return project / component / "Dockerfile"


class _Builder:
    def __init__(self, project: Path, folder: Path, lock: int) -> None:
        self._project = project
        self._folder = folder
        self._lock = lock
        self._storage = cache_home() / "buildah"
        self._log = cache_home() / "images.log"
        self._opened = False

    def base(self) -> Image:
        recipe = json.dumps([_SUITE, _PACKAGES, _DPKG_OPTIONS])
        key = hashlib.sha256(recipe.encode()).hexdigest()[:16]
        image = Image(BASE, self._folder / f"base-{key}.tar")
        if not image.archive.exists():
            with tempfile.TemporaryDirectory(prefix=_UNFINISHED, dir=self._folder) as context:
                root = Path(context) / "root.tar"
                options = [f"--dpkgopt={option}" for option in _DPKG_OPTIONS]
                self._open()
                self._run(
                    "Installing the base from the distribution's packages",
                    "unshare", "--mount", "env", f"TMPDIR={context}", "mmdebstrap", "--mode=root",
                    "--variant=essential", *options, f"--include={','.join(_PACKAGES)}", _SUITE, str(root),
                )  # fmt: skip
                dockerfile = Path(context) / "Dockerfile"
                dockerfile.write_text('FROM scratch\nADD root.tar /\nCMD ["/bin/sh"]\n')
                self._build(image, dockerfile, Path(context), "Packing the base")
        return image

    def component(self, name: str, base: Image) -> Image:
        relative = _dockerfile(self._project, name).relative_to(self._project)
        with tempfile.TemporaryDirectory(prefix=_UNFINISHED, dir=self._folder) as folder:
            context = Path(folder)
            # The key names the copy, so a file that changes meanwhile can't be built under another's key.
            _copy_files(self._project, [relative], context)
            files = project_files(self._project, copied_paths((context / relative).read_text()))
            _copy_files(self._project, files, context)
            key = content_key(context, sorted({relative, *files}), base.archive.name)
            image = Image(f"{_REPOSITORY}/{name}:dev", self._folder / f"{name}-{key}.tar")
            if not image.archive.exists():
                self._restore(base)
                what, argument = f"Building the image {name}", f"--build-arg=BASE={base.reference}"
                self._build(image, context / relative, context, what, argument)
        return image

    def _build(self, image: Image, dockerfile: Path, context: Path, what: str, *options: str) -> None:
        self._open()
        started = time.monotonic()
        pip = cache_home() / "pip"
        pip.mkdir(exist_ok=True)
        mounts = [*pipconfig.mounts(self._folder / ".pip"), pipconfig.Mount(pip, pipconfig.CACHE, "rw")]
        unfinished = image.archive.with_name(f"{_UNFINISHED}{image.archive.name}")
        self._buildah(
            what, "build", "--isolation=chroot", "--network=host", "--pull-never", "--layers", *options,
            *(f"--volume={mount.source}:{mount.target}:{mount.options}" for mount in mounts),
            f"--tag={image.reference}", f"--file={dockerfile}", str(context),
        )  # fmt: skip
        unfinished.unlink(missing_ok=True)
        self._buildah(
            what, "push", "--compression-format=zstd", image.reference, f"oci-archive:{unfinished}:{image.reference}"
        )
        unfinished.rename(image.archive)
        for old in self._folder.glob(f"{image.archive.name.rpartition('-')[0]}-*.tar"):
            if old != image.archive:
                old.unlink()
        _log.info("%s: %.1f s, %.0f MB", image.reference, time.monotonic() - started, image.bytes / 1e6)

    def _restore(self, base: Image) -> None:
        """Take the base from its archive if buildah's own storage was removed."""
        self._open()
        if not (self._storage / "root").exists():
            self._buildah("Unpacking the base", "pull", f"oci-archive:{base.archive}")

    def _open(self) -> None:
        """Before the first build: check what it needs, and clear what a killed one left."""
        if self._opened:
            return
        self._opened = True
        checks.require_images()
        # Locks and counters of builds that no longer run.
        shutil.rmtree(self._storage / "run", ignore_errors=True)
        if (self._storage / "root").exists():
            self._buildah("Clearing unfinished builds", "rm", "--all")

    def _buildah(self, what: str, *arguments: str) -> None:
        # In a mount namespace of its own: its mounts end with it, however it ends.
        self._run(
            what, "unshare", "--mount", "buildah", f"--root={self._storage / 'root'}",
            f"--runroot={self._storage / 'run'}", f"--storage-driver={self._driver()}", *arguments,
        )  # fmt: skip

    def _driver(self) -> str:
        """Overlay where the file system carries it; vfs, which copies every layer, elsewhere."""
        self._storage.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._storage) as folder:
            for name in ("lower", "upper", "work", "merged"):
                (Path(folder) / name).mkdir()
            layers = "lowerdir=lower,upperdir=upper,workdir=work"
            tried = subprocess.run(
                ["unshare", "--mount", "mount", "-t", "overlay", "-o", layers, "overlay", "merged"],
                cwd=folder, capture_output=True, check=False,
            )  # fmt: skip
        return "overlay" if tried.returncode == 0 else "vfs"

    def _run(self, what: str, *command: str) -> None:
        # The child inherits the lock: a build that outlives a killed driver still keeps others out.
        with self._log.open("ab") as log, Progress(what) as progress:
            start = log.tell()
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=(self._lock,)
            )
            try:
                while True:
                    try:
                        process.wait(timeout=0.5)
                        break
                    except subprocess.TimeoutExpired:
                        progress.update(_last_line(self._log, start))
            finally:
                process.kill()
        if process.returncode:
            raise DevclusterError(f"{what} failed: {_last_line(self._log, start)} - log: {self._log}")


def _last_line(log: Path, start: int) -> str:
    with log.open("rb") as file:
        file.seek(max(start, log.stat().st_size - 4096))
        lines = file.read().decode(errors="replace").replace("\r", "\n").splitlines()
    return next((line.strip()[:200] for line in reversed(lines) if line.strip()), "starting")


def _copy_files(project: Path, files: Iterable[Path], context: Path) -> None:
    for file in files:
        target = context / file
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(project / file, target)
        os.utime(target, (_FILE_TIME, _FILE_TIME))
