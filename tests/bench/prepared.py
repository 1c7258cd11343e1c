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
from rag_service.models import manifest as manifests
from rag_service.models import quantise
from rag_service.models.prepare import BERT_GRAPH


class Prepared(NamedTuple):
    """A prepared model. `name`: what clients call it."""

    name: str
    directory: Path

    @property
    def uri(self) -> str:
        """Where the service finds it."""
        return f"file://{self.directory}"

    @property
    def manifest(self) -> manifests.Manifest:
        """What was prepared."""
        found = manifests.read(self.directory)
        assert found, self.directory
        return found

    def calibrate(self) -> Variant:
        """Forget what serves it best, and find it out anew."""
        shutil.rmtree(self.directory / verdicts.FOLDER, ignore_errors=True)
        return self.served()

    def served(self) -> Variant:
        """What `auto` serves it with."""
        return verdicts.choose(self.directory, self.manifest, FidelityGate())


def prepare(name: str, uri: str, folder: Path, int8: bool) -> Prepared:
    """Prepare a model in a folder of `folder`, unless that was done; again with another exporter or quantiser.

    Raises CalledProcessError.
    """
    makers = f"{BERT_GRAPH} {quantise.maker() if int8 else ''}"
    out = folder / f"{name}-{hashlib.sha256(makers.encode()).hexdigest()[:8]}"
    for old in folder.glob(f"{name}-*"):
        if old != out:
            shutil.rmtree(old)
    precision = "int8" if int8 else "fp32"
    print(f"Preparing {name} ({precision}), unless that was done", flush=True)
    command = [sys.executable, "-m", "rag_service", "model", "prepare", uri, "--out", str(out)]
    subprocess.run([*command, "--precision", precision], check=True, stdout=subprocess.DEVNULL)
    return Prepared(name, out)
