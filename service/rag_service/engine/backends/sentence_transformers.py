"""sentence-transformers (torch): serves on a GPU, and whatever has no graph for the other backends."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import sentence_transformers
import torch
from numpy.typing import NDArray

from rag_service.contract.settings import Precision
from rag_service.engine.backends import graph
from rag_service.engine.tokens import Tokens
from rag_service.models import ModelError
from rag_service.models.manifest import SOURCE, Manifest

TYPES: Mapping[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}


class TorchBackend:
    """One published model, on the GPU where there is one."""

    def __init__(self, path: Path, manifest: Manifest, precision: Precision) -> None:
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._cross = manifest.recipe.kind == "cross-encoder"
        torch.set_num_threads(1)  # engine threads run requests beside each other
        kind = sentence_transformers.CrossEncoder if self._cross else sentence_transformers.SentenceTransformer
        try:
            model = kind(
                str(path), device=str(self._device), local_files_only=True, model_kwargs={"dtype": TYPES[precision]}
            )
        except Exception as error:
            raise graph.broken(path, error) from error
        tokenizer = model.tokenizer
        self._model = model.eval()
        self._inputs = set(tokenizer.model_input_names)
        self._filler: int = tokenizer.pad_token_id or 0

    def run(self, batch: Sequence[Tokens], length: int) -> NDArray[np.float32]:
        """See `Backend`.

        On a CPU one input at a time: torch rounds by the number of rows. A GPU would idle that way; there the trial
        sees whether what is rounded matters.
        """
        together = len(batch) if self._device.type == "cuda" else 1
        with torch.inference_mode():
            rows = [self._run(batch[start : start + together], length) for start in range(0, len(batch), together)]
            return np.asarray(torch.cat(rows).float().cpu().numpy())

    def _run(self, batch: Sequence[Tokens], length: int) -> torch.Tensor:
        padded = graph.pad(batch, length, self._filler)
        given = {name: torch.from_numpy(padded[name]).to(self._device) for name in self._inputs if name in padded}
        if self._cross:
            return self._model.model(**given).logits
        return self._model(given)["sentence_embedding"]


def load(directory: Path, manifest: Manifest, precision: Precision, threads: int) -> TorchBackend:  # noqa: ARG001 (any number may call)
    """The backend of a prepared model. Raises ModelError."""
    if precision == "int8":
        raise ModelError(f"{manifest.uri}: sentence-transformers has no int8: set another precision or backend")
    path = directory / SOURCE
    if not path.is_dir():
        raise ModelError(f"{manifest.uri}: {path} with the published files is missing: prepare the model again")
    return TorchBackend(path, manifest, precision)
