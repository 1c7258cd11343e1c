"""What runs a model. A backend is any object of the shape of `Backend`; each module here makes those of one library.

The libraries are large and not all of them are installed: a module is imported when its backend is wanted.
"""

import importlib
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from rag_service.contract.settings import BackendName, Precision
from rag_service.engine.tokens import Tokens
from rag_service.models import ModelError
from rag_service.models.manifest import Manifest


class Variant(NamedTuple):
    """What a model is run by, and what it computes in."""

    backend: BackendName
    precision: Precision

    def __str__(self) -> str:
        return f"{self.backend} {self.precision}"


REFERENCE = Variant("onnxruntime", "fp32")  # what the others are compared with


class Backend(Protocol):
    """Runs one model; several engine threads call it at the same time."""

    def run(self, batch: Sequence[Tokens], length: int) -> NDArray[np.float32]:
        """One row an input: a cross-encoder's logit or a bi-encoder's embedding. Shape: [len(batch), width].

        Every input is padded to `length` tokens. A row must depend on its own input and on `length` alone, to the
        bit: never on the other inputs of the batch, or on how many there are.
        """


class _Library(NamedTuple):
    package: str  # what is imported
    extra: str  # of this distribution, that installs it


LIBRARIES: Mapping[BackendName, _Library] = {
    "openvino": _Library("openvino", "openvino"),
    "onnxruntime": _Library("onnxruntime", "service"),
    "sentence-transformers": _Library("sentence_transformers", "torch"),
}


def installed(backend: BackendName) -> bool:
    """Whether a backend's library is there; it is not imported."""
    return importlib.util.find_spec(LIBRARIES[backend].package) is not None


def load(directory: Path, manifest: Manifest, variant: Variant, threads: int) -> Backend:
    """The backend of a prepared model, for so many threads that call it at the same time.

    Raises ModelError when its library is missing, or cannot run the model.
    """
    if not installed(variant.backend):
        extra = LIBRARIES[variant.backend].extra
        raise ModelError(
            f"{manifest.uri}: backend {variant.backend} is not installed: install ragservice[{extra}], "
            "use an image that has it, or set another backend"
        )
    module = importlib.import_module(f"{__name__}.{variant.backend.replace('-', '_')}")
    make = cast(Callable[[Path, Manifest, Precision, int], Backend], module.load)
    return make(directory, manifest, variant.precision, threads)
