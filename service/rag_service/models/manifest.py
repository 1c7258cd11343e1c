"""What a directory of prepared files holds: graphs, `tokenizer.json` and this manifest."""

import contextlib
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PositiveInt, ValidationError

from rag_service.contract.model import Shape
from rag_service.contract.settings import BackendName, Precision
from rag_service.models import ModelError

FILE = "manifest.json"
GRAPH = "model.onnx"
TOKENIZER = "tokenizer.json"
SOURCE = "source"

Kind = Literal["cross-encoder", "bi-encoder"]


class Recipe(Shape):
    """What a model is: everything that a score depends on besides the precision, the query and the document."""

    kind: Kind = Field(description="cross-encoder: reads a pair, gives a logit; bi-encoder: embeds each text alone")
    weights: str = Field(description="digest of the files of weights")
    config: str = Field(description="digest of the model's configuration")
    tokenizer: str = Field(description="digest of the tokenizer's file")
    max_tokens: PositiveInt = Field(description="a longer input is cut to this many tokens, special ones included")
    graph: str | None = Field(description="who made the fp32 graph, and which version of it; null: there is none")


class Fidelity(Shape):
    """How near a graph's scores come to those of the fp32 graph, on queries that it was not calibrated with."""

    queries: PositiveInt
    tau: float = Field(description="Kendall's rank correlation with the fp32 scores, mean over queries")
    top10: float = Field(description="share of the fp32 graph's ten best that are among its own, mean over queries")
    batch_delta: float = Field(
        description="largest difference between a pair's scores in two batches, in standard deviations of the scores"
    )


class Graph(Shape):
    """One graph of the model."""

    file: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] = Field(description="name in this directory")
    digest: str = Field(description="of the file and of those beside it that hold its tensors")
    maker: str = Field(description="who made it: the exporter or the quantiser, its version, how it was set")
    fidelity: Fidelity | None = Field(default=None, description="measured when it was made; null: it is the reference")


class Manifest(Shape):
    """A prepared model."""

    uri: str = Field(description="where it was made from")
    revision: str | None = Field(default=None, description="commit of the hub's repository")
    recipe: Recipe
    graphs: Mapping[Literal["fp32", "int8"], Graph] = Field(
        description="by precision; bf16 runs the fp32 graph. None at all: `source` holds the published files"
    )

    refused: Mapping[Literal["int8"], Graph] = Field(
        default={}, description="graphs that were made, but are too far from fp32 to be served, and were not kept"
    )

    def graph(self, precision: Precision) -> Graph | None:
        """The graph that a backend runs at this precision; None where there is none."""
        return self.graphs.get("int8" if precision == "int8" else "fp32")

    def fingerprint(self, precision: Precision, backend: BackendName) -> str:
        """Names the scores of this model at this precision among all others, in 32 hexadecimal digits.

        In fp32 all backends agree but for the last bits. What rounds more, each rounds in its own way.
        """
        graph = self.graphs.get("int8") if precision == "int8" else None
        parts = [self.recipe.model_dump_json(), precision, graph.digest if graph else ""]
        if precision != "fp32":
            parts.append(backend)
        return hashlib.blake2b("\n".join(parts).encode(), digest_size=16).hexdigest()


def read(directory: Path) -> Manifest | None:
    """The manifest of a directory of prepared files, None where there is none. Raises ModelError on a broken one."""
    path = directory / FILE
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from error
    try:
        return Manifest.model_validate_json(content)
    except ValidationError as error:
        raise ModelError(f"{path} is not a manifest of this version: prepare the model again") from error


def mentions(directory: Path, uri: str) -> bool:
    """Whether the manifest of a directory may be of the model with this URI, even where it is of another version."""
    with contextlib.suppress(OSError):
        return json.dumps(uri).encode() in (directory / FILE).read_bytes()
    return False


def digest(*paths: Path) -> str:
    """Digest of what files hold, one after the other, 64 hexadecimal digits. Raises OSError when one cannot be read."""
    whole = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            hashlib.file_digest(file, lambda: whole)
    return whole.hexdigest()
