"""OpenVINO on the CPU: the fp32 graph in float32 or bfloat16, and an int8 graph with fixed scales."""

import ctypes
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from rag_service.contract.settings import Precision
from rag_service.engine.backends import graph
from rag_service.engine.tokens import Tokens
from rag_service.models import ModelError
from rag_service.models.manifest import Manifest

# Its converter of other formats would take 14 MB. `None` stands for a module that cannot be found.
cast(dict[str, Any], sys.modules)["openvino.tools.ovc"] = None

import openvino  # noqa: E402 (after the line above)

# Batches are run in parts whose sizes are powers of these. Every shape that was ever run takes memory for compiled
# code for good: 1 MB in float32, 1.5 in bfloat16, 4 to 7 in int8. With batches of any size that came to 600 MB.
BASES: Mapping[Precision, int] = {"fp32": 2, "bf16": 2, "int8": 4}


class OpenVinoBackend:
    """One compiled graph, and a request of its own for each thread that calls."""

    def __init__(self, path: Path, precision: Precision, threads: int) -> None:
        core = openvino.Core()
        if precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise ModelError(f"{path}: this CPU has no instructions for bf16: set another precision")
        try:
            self._compiled = core.compile_model(
                path,
                "CPU",
                {
                    # As many streams as engine threads, and one thread in each.
                    "NUM_STREAMS": threads,
                    "INFERENCE_NUM_THREADS": threads,
                    "ENABLE_CPU_PINNING": False,  # two processes would pin their threads to the same core
                    # What an int8 graph leaves in floats has to stay exact: in bf16 its scores were too far off.
                    "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
                },
            )
        except Exception as error:
            raise graph.broken(path, error) from error
        self._inputs = [given.get_any_name() for given in self._compiled.inputs]
        self._output = graph.output(path, [name for given in self._compiled.outputs for name in given.get_names()])
        self._base = BASES[precision]
        self._local = threading.local()
        _forget(path.parent.resolve())

    def run(self, batch: Sequence[Tokens], length: int) -> NDArray[np.float32]:
        """See `Backend`."""
        return np.concatenate([self._infer(part, length) for part in parts(batch, self._base)])

    def _infer(self, batch: Sequence[Tokens], length: int) -> NDArray[np.float32]:
        if not hasattr(self._local, "request"):
            self._local.request = self._compiled.create_infer_request()
        request: openvino.InferRequest = self._local.request
        given = graph.pad(batch, length)
        request.infer({name: given[name] for name in self._inputs}, share_inputs=True)
        return np.array(request.get_tensor(self._output).data, np.float32)


def parts(batch: Sequence[Tokens], base: int) -> Iterator[Sequence[Tokens]]:
    """A batch in parts whose sizes are powers of `base`, the largest first."""
    start = 0
    while start < len(batch):
        size = 1
        while size * base <= len(batch) - start:
            size *= base
        yield batch[start : start + size]
        start += size


def _forget(directory: Path) -> None:
    """Give back the memory of the files that the graph was compiled from.

    Compiling reads all weights through a mapping and keeps them in another form. What is needed again, such as the
    rows of an embedding table, is read again.
    """
    if sys.platform != "linux":
        return
    dont_need = 4  # MADV_DONTNEED
    libc = ctypes.CDLL(None, use_errno=True)
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, rights, *_, name = line.split(maxsplit=5)
        if name.startswith(f"{directory}/") and "w" not in rights:
            start, end = (int(bound, 16) for bound in span.split("-"))
            libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), dont_need)


def load(directory: Path, manifest: Manifest, precision: Precision, threads: int) -> OpenVinoBackend:
    """The backend of a prepared model. Raises ModelError."""
    return OpenVinoBackend(graph.locate(directory, manifest, precision), precision, threads)
