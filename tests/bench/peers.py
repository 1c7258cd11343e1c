"""The servers that are compared with, in an environment of their own: made once, 6 GB, in the user's cache."""

import hashlib
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

REQUIREMENTS = Path(__file__).parents[2] / "requirements" / "bench.txt"
PYTHONS = ((3, 11), (3, 12))  # that the pinned libraries have wheels for
HERE = Path(__file__).parent


class UnavailableError(Exception):
    """The peers cannot run here. The message says why, in one line."""


def environment() -> Path:
    """The peers' virtual environment, made now unless it is there. Raises UnavailableError."""
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        raise UnavailableError("the other servers are pinned for Linux on x86-64")
    key = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()[:12]
    folder = _cache() / f"peers-{key}"
    if (folder / "ready").exists():
        return folder
    print(f"Installing the other servers into {folder} (once, 6 GB)", flush=True)
    python = _python()
    for left in _cache().glob("peers-*"):
        shutil.rmtree(left)
    install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes"]
    try:
        subprocess.run([python, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(folder / "bin" / "python"), *install, "-r", str(REQUIREMENTS)], check=True, timeout=3600)
    except (subprocess.SubprocessError, OSError) as error:
        raise UnavailableError(f"the other servers could not be installed: {_said(error)}") from error
    (folder / "ready").touch()
    return folder


def settings(home: Path) -> Mapping[str, str]:
    """What the peers find in their environment: nothing is fetched, nothing is reported.

    Nothing of what our libraries were told either, such as to tokenise on one thread.
    """
    others = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TOKENIZERS_"))}
    return others | {
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(home),
        "DO_NOT_TRACK": "1",
        "INFINITY_ANONYMOUS_USAGE_STATS": "0",
        "ORT_DISABLE_TELEMETRY": "1",
    }


def int8(folder: Path, model: Path, out: Path, home: Path) -> Path:
    """The model for Infinity's optimum engine, made once. Raises UnavailableError."""
    if (out / "model_quantized.onnx").is_file():
        return out
    shutil.rmtree(out, ignore_errors=True)
    draft = out.with_name(f".{out.name}")
    shutil.rmtree(draft, ignore_errors=True)
    command = [str(folder / "bin" / "python"), "-P", str(HERE / "quantise_for_peers.py"), str(model), str(draft)]
    made = subprocess.run(command, env=settings(home), capture_output=True, text=True, timeout=600, check=False)
    if made.returncode:
        raise UnavailableError(f"optimum could not quantise the model: {made.stderr.strip().splitlines()[-1]}")
    draft.rename(out)
    return out


def ours_int8(prepared: Path, graph: str, model: Path, out: Path) -> Path:
    """The model for Infinity's optimum engine, with the static int8 graph that we serve."""
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(model, out, ignore=shutil.ignore_patterns("*.safetensors", "*.onnx*"))
    for file in prepared.glob(f"{graph}*"):
        # The graph names the file of its tensors; Infinity takes what is called quantized.
        shutil.copyfile(file, out / ("model_quantized.onnx" if file.name == graph else file.name))
    return out


def _said(error: Exception) -> str:
    """An error without the command, whose paths are this machine's."""
    return (
        f"pip ended with {error.returncode}"
        if isinstance(error, subprocess.CalledProcessError)
        else type(error).__name__
    )


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification: a relative path is invalid and ignored.
    folder = (Path(base) if base.startswith("/") else Path.home() / ".cache") / "ragservice" / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _python() -> str:
    if sys.version_info[:2] in PYTHONS:
        return sys.executable
    names = [f"python{major}.{minor}" for major, minor in PYTHONS]
    if found := next(filter(None, map(shutil.which, names)), None):
        return found
    raise UnavailableError(f"the other servers need one of {', '.join(names)} on the PATH")
