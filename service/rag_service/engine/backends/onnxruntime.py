"""ONNX Runtime on the CPU: graphs in float32, and in int8 with fixed scales."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from rag_service.contract.settings import Precision
from rag_service.engine.backends import graph
from rag_service.engine.tokens import Tokens
from rag_service.models import ModelError
from rag_service.models.manifest import Manifest


class OnnxBackend:
    """One graph with inputs named as Hugging Face does."""

    def __init__(self, path: Path) -> None:
        options = onnxruntime.SessionOptions()
        # Engine threads run requests beside each other; threads inside of an operator would only disturb them.
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.enable_mem_pattern = False  # it plans memory for one shape; every length is another
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise graph.broken(path, error) from error
        self._inputs = [given.name for given in self._session.get_inputs()]
        self._output = graph.output(path, [given.name for given in self._session.get_outputs()])

    def run(self, batch: Sequence[Tokens], length: int) -> NDArray[np.float32]:
        """See `Backend`."""
        given = graph.pad(batch, length)
        (rows,) = self._session.run([self._output], {name: given[name] for name in self._inputs})
        return np.asarray(rows, np.float32)


def load(directory: Path, manifest: Manifest, precision: Precision, threads: int) -> OnnxBackend:  # noqa: ARG001 (any number may call)
    """The backend of a prepared model. Raises ModelError."""
    if precision == "bf16":
        raise ModelError(f"{manifest.uri}: onnxruntime has no bf16 on a CPU: set another, or backend openvino")
    return OnnxBackend(graph.locate(directory, manifest, precision))
