"""The two kinds of models: how each turns a query and documents into inputs, and its outputs into scores."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rag_service.contract.wire import LongDocuments
from rag_service.engine import backends
from rag_service.engine.backends import REFERENCE, Backend, Variant
from rag_service.engine.pending import padded
from rag_service.engine.reader import Reader
from rag_service.engine.tokens import Tokeniser, Tokens
from rag_service.models import ModelError
from rag_service.models.manifest import TOKENIZER, Manifest


class Ranker(Protocol):
    """A loaded model."""

    manifest: Manifest
    backend: Backend
    variant: Variant
    fingerprint: str  # of the scores: of the model, and of what it computes in

    def reader(self, query: str, long: LongDocuments) -> Reader:
        """What makes inputs of documents to be ranked for a query. Raises TooLongError as `Reader.read` does."""

    def encode(self, query: str, documents: Sequence[str]) -> list[Tokens]:
        """All inputs at once, cut where they are too long."""

    def scores(self, rows: NDArray[np.float32]) -> list[float]:
        """One raw score an input of documents, each a number that float32 holds, from the outputs of all inputs."""

    def activate(self, score: float) -> float:
        """A raw score on the scale that clients expect."""


class _Loaded(ABC):
    def __init__(self, manifest: Manifest, tokeniser: Tokeniser, backend: Backend, variant: Variant) -> None:
        self.manifest = manifest
        self.backend = backend
        self.variant = variant
        self.fingerprint = manifest.fingerprint(variant.precision, variant.backend)
        self._tokeniser = tokeniser

    @abstractmethod
    def reader(self, query: str, long: LongDocuments) -> Reader:
        """See `Ranker`."""

    def encode(self, query: str, documents: Sequence[str]) -> list[Tokens]:
        """See `Ranker`."""
        reader = self.reader(query, "truncate")
        return [*reader.first, *(tokens for read in reader.read(documents) for tokens in read.inputs)]


class CrossEncoder(_Loaded):
    """Reads the query with each document. A raw score is a logit, an activated one a probability."""

    def reader(self, query: str, long: LongDocuments) -> Reader:
        """See `Ranker`."""
        # The query is read again with each document: a thousand times to the end of a long one would take minutes.
        return Reader(self._tokeniser, long, self._tokeniser.readable(query))

    def scores(self, rows: NDArray[np.float32]) -> list[float]:
        """See `Ranker`."""
        return [float(logit) for (logit,) in rows]

    def activate(self, score: float) -> float:
        """The logistic function, written so that no exponential overflows."""
        return 1 / (1 + math.exp(-score)) if score >= 0 else 1 - 1 / (1 + math.exp(score))


class BiEncoder(_Loaded):
    """Embeds query and documents apart. A score is the cosine of two embeddings, activated or not."""

    def reader(self, query: str, long: LongDocuments) -> Reader:
        """See `Ranker`. The query is an input of its own, the first."""
        return Reader(self._tokeniser, long, None, self._tokeniser([query]))

    def scores(self, rows: NDArray[np.float32]) -> list[float]:
        """See `Ranker`. Summed row by row: a matrix product would round by the number of rows."""
        query, *documents = (row / _length(row) for row in rows.astype(np.float64))
        return [float(np.float32((query * row).sum())) for row in documents]

    def activate(self, score: float) -> float:
        """The cosine itself, from -1 to 1."""
        return score


def _length(vector: NDArray[np.float64]) -> float:
    return max(math.sqrt((vector * vector).sum()), 1e-12)


def load(directory: Path, manifest: Manifest, variant: Variant = REFERENCE, threads: int = 1) -> Ranker:
    """A model from its prepared files, warm, for so many engine threads.

    Raises ModelError when it cannot be loaded.
    """
    tokeniser = Tokeniser(directory / TOKENIZER, manifest.recipe.max_tokens)
    kind = CrossEncoder if manifest.recipe.kind == "cross-encoder" else BiEncoder
    made = kind(manifest, tokeniser, backends.load(directory, manifest, variant, threads), variant)
    inputs = made.encode("query", ["document"])
    try:
        rows = made.backend.run(inputs, padded(max(len(tokens.ids) for tokens in inputs)))
    except Exception as error:
        raise ModelError(f"{manifest.uri} does not run on {variant}: {str(error).splitlines()[0]}") from error
    if kind is CrossEncoder and rows.shape != (1, 1):
        raise ModelError(f"{manifest.uri}: a cross-encoder has one label, this model has {rows.shape[-1]}")
    return made
