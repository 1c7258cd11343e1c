"""What the backends share that run a graph in ONNX's form: where it lies, its inputs and its output."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rag_service.contract.settings import Precision
from rag_service.engine.tokens import Tokens
from rag_service.models import ModelError
from rag_service.models.manifest import Manifest

OUTPUTS = ("logits", "sentence_embedding")


def locate(directory: Path, manifest: Manifest, precision: Precision) -> Path:
    """The file of the graph that computes in this precision. Raises ModelError where there is none."""
    graph = manifest.graph(precision)
    if graph is None:
        raise ModelError(
            f"{manifest.uri}: there is no {precision} graph in {directory}: prepare the model with one "
            "(`rag-service model prepare --precision`), or set another precision or backend"
        )
    path = directory / graph.file
    if not path.is_file():
        raise ModelError(f"{manifest.uri}: {path} is missing: prepare the model again")
    return path


def output(path: Path, names: Collection[str]) -> str:
    """Which of a graph's outputs is the one that is wanted. Raises ModelError where none is."""
    found = next((name for name in OUTPUTS if name in names), None)
    if found is None:
        raise ModelError(f"{path} gives {', '.join(sorted(names))}; one of {', '.join(OUTPUTS)} is needed")
    return found


def pad(batch: Sequence[Tokens], length: int, filler: int = 0) -> Mapping[str, NDArray[np.int64]]:
    """The inputs by the names that Hugging Face gives them. Shape of each: [len(batch), length]."""
    ids, mask, types = np.zeros((3, len(batch), length), np.int64)
    ids[:] = filler
    for row, tokens in enumerate(batch):
        size = len(tokens.ids)
        ids[row, :size], mask[row, :size], types[row, :size] = tokens.ids, 1, tokens.types
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}


def broken(path: Path, error: Exception) -> ModelError:
    """What to raise when a library refuses a graph.

    Its own errors have no common base, and say over many lines where in its source they arose.
    """
    lines = [line.strip() for line in str(error).splitlines()]
    said = [line for line in lines if line and not line.startswith(("Exception from", "Check '"))]
    return ModelError(f"{path} cannot be loaded: {(said or lines or ['no reason given'])[0]}")
