"""The two kinds of models: how each turns a query and documents into inputs, and its outputs into scores."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rag_service.engine.backends import Backend
from rag_service.engine.backends.onnx import OnnxBackend
from rag_service.engine.pending import padded
from rag_service.engine.tokens import Tokeniser, Tokens, TooLongError
from rag_service.models import ModelError
from rag_service.models.manifest import TOKENIZER, Manifest


class Ranker(Protocol):
    """A loaded model."""

    manifest: Manifest
    backend: Backend
    fingerprint: str

    def encode(self, query: str, documents: Sequence[str], cut: bool = True) -> list[Tokens]:
        """The inputs of the model. Raises TooLongError, with positions of documents, or -1 for the query."""

    def scores(self, rows: NDArray[np.float32]) -> list[float]:
        """One raw score a document, each a number that float32 holds, from the outputs of `encode`'s inputs."""

    def activate(self, score: float) -> float:
        """A raw score on the scale that clients expect."""


class CrossEncoder:
    """Reads the query with each document. A raw score is a logit, an activated one a probability."""

    def __init__(self, manifest: Manifest, tokeniser: Tokeniser, backend: Backend) -> None:
        self.manifest = manifest
        self.backend = backend
        self.fingerprint = manifest.fingerprint("fp32")
        self._tokeniser = tokeniser

    def encode(self, query: str, documents: Sequence[str], cut: bool = True) -> list[Tokens]:
        """See `Ranker`."""
        # The query is read again with each document: a thousand times to the end of a long one would take minutes.
        query = self._tokeniser.readable(query)
        return self._tokeniser([(query, document) for document in documents], cut)

    def scores(self, rows: NDArray[np.float32]) -> list[float]:
        """See `Ranker`."""
        return [float(logit) for (logit,) in rows]

    def activate(self, score: float) -> float:
        """The logistic function, written so that no exponential overflows."""
        return 1 / (1 + math.exp(-score)) if score >= 0 else 1 - 1 / (1 + math.exp(score))


class BiEncoder:
    """Embeds query and documents apart. A score is the cosine of two embeddings, activated or not."""

    def __init__(self, manifest: Manifest, tokeniser: Tokeniser, backend: Backend) -> None:
        self.manifest = manifest
        self.backend = backend
        self.fingerprint = manifest.fingerprint("fp32")
        self._tokeniser = tokeniser

    def encode(self, query: str, documents: Sequence[str], cut: bool = True) -> list[Tokens]:
        """The query's tokens, then the documents'. See `Ranker`."""
        try:
            return self._tokeniser([query, *documents], cut)
        except TooLongError as error:
            raise TooLongError([position - 1 for position in error.positions], error.limit) from None

    def scores(self, rows: NDArray[np.float32]) -> list[float]:
        """See `Ranker`. Summed row by row: a matrix product would round by the number of rows."""
        query, *documents = (row / _length(row) for row in rows.astype(np.float64))
        return [float(np.float32((query * row).sum())) for row in documents]

    def activate(self, score: float) -> float:
        """The cosine itself, from -1 to 1."""
        return score


def _length(vector: NDArray[np.float64]) -> float:
    return max(math.sqrt((vector * vector).sum()), 1e-12)


def load(directory: Path, manifest: Manifest) -> Ranker:
    """A model from its prepared files, warm. Raises ModelError when it cannot be loaded."""
    tokeniser = Tokeniser(directory / TOKENIZER, manifest.recipe.max_tokens)
    kind = CrossEncoder if manifest.recipe.kind == "cross-encoder" else BiEncoder
    made = kind(manifest, tokeniser, OnnxBackend(directory))
    inputs = made.encode("query", ["document"])
    try:
        rows = made.backend.run(inputs, padded(max(len(tokens.ids) for tokens in inputs)))
    except Exception as error:
        raise ModelError(f"{manifest.uri} does not run: {str(error).splitlines()[0]}") from error
    if kind is CrossEncoder and rows.shape != (1, 1):
        raise ModelError(f"{manifest.uri}: a cross-encoder has one label, this model has {rows.shape[-1]}")
    return made
