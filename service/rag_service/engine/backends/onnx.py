"""ONNX Runtime on the CPU, in float32."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from rag_service.engine.tokens import Tokens
from rag_service.models import ModelError
from rag_service.models.manifest import GRAPH

OUTPUTS = ("logits", "sentence_embedding")


class OnnxBackend:
    """One graph with inputs named as Hugging Face does, and one of `OUTPUTS`."""

    def __init__(self, directory: Path) -> None:
        options = onnxruntime.SessionOptions()
        # Engine threads run requests beside each other; threads inside of an operator would only disturb them.
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.enable_mem_pattern = False  # it plans memory for one shape; every length is another
        try:
            self._session = onnxruntime.InferenceSession(
                str(directory / GRAPH), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            # The runtime's own errors have no common base, and say over many lines where in its source they arose.
            raise ModelError(f"{directory / GRAPH} cannot be loaded: {str(error).splitlines()[0]}") from error
        self._inputs = [given.name for given in self._session.get_inputs()]
        outputs = [given.name for given in self._session.get_outputs()]
        self._output = next((name for name in OUTPUTS if name in outputs), "")
        if not self._output:
            raise ModelError(f"{directory / GRAPH} gives {', '.join(outputs)}; one of {', '.join(OUTPUTS)} is needed")

    def run(self, batch: Sequence[Tokens], length: int) -> NDArray[np.float32]:
        """See `Backend`."""
        ids, mask, types = np.zeros((3, len(batch), length), np.int64)
        for row, tokens in enumerate(batch):
            size = len(tokens.ids)
            ids[row, :size], mask[row, :size], types[row, :size] = tokens.ids, 1, tokens.types
        given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
        (rows,) = self._session.run([self._output], {name: given[name] for name in self._inputs})
        return np.asarray(rows, np.float32)
