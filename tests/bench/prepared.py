"""Models as they are served: prepared by the service's own command, and calibrated on this machine."""

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from rag_service.contract.settings import FidelityGate
from rag_service.engine import verdicts
from rag_service.engine.backends import Variant
from rag_service.models import manifest

PACKAGE = Path(manifest.__file__).parent


class Prepared(NamedTuple):
    """A prepared model. `name`: what clients call it."""

    name: str
    directory: Path

    @property
    def uri(self) -> str:
        """Where the service finds it."""
        return f"file://{self.directory}"

    def calibrate(self) -> Variant:
        """Forget what serves it best, and find it out anew."""
        shutil.rmtree(self.directory / verdicts.FOLDER, ignore_errors=True)
        return self.served()

    def served(self) -> Variant:
        """What `auto` serves it with."""
        found = manifest.read(self.directory)
        assert found, self.directory
        return verdicts.choose(self.directory, found, FidelityGate())


def prepare(name: str, uri: str, folder: Path, int8: bool) -> Prepared:
    """Prepare a model in a folder of `folder`; again when the code that prepares has changed.

    Raises CalledProcessError.
    """
    code = hashlib.sha256(b"".join(file.read_bytes() for file in sorted(PACKAGE.glob("*.py")))).hexdigest()[:12]
    out = folder / f"{name}-{code}"
    for old in folder.glob(f"{name}-*"):
        if old != out:
            shutil.rmtree(old)
    precision = "int8" if int8 else "fp32"
    command = [sys.executable, "-m", "rag_service", "model", "prepare", uri, "--out", str(out)]
    if not (out / manifest.FILE).exists():
        print(f"Preparing {name} ({precision})", flush=True)
    subprocess.run([*command, "--precision", precision], check=True, stdout=subprocess.DEVNULL)
    return Prepared(name, out)
