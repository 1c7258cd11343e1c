"""What a directory of prepared files holds: `model.onnx`, `tokenizer.json` and this manifest."""

import hashlib
from pathlib import Path
from typing import Literal

from pydantic import Field, PositiveInt, ValidationError

from rag_service.contract.model import Shape
from rag_service.models import ModelError

FILE = "manifest.json"
GRAPH = "model.onnx"
TOKENIZER = "tokenizer.json"

Kind = Literal["cross-encoder", "bi-encoder"]


class Recipe(Shape):
    """Everything that a score depends on besides the query and the document."""

    kind: Kind = Field(description="cross-encoder: reads a pair, gives a logit; bi-encoder: embeds each text alone")
    weights: str = Field(description="digest of the file of weights")
    config: str = Field(description="digest of the model's configuration")
    tokenizer: str = Field(description="digest of the tokenizer's file")
    precision: Literal["fp32"] = "fp32"
    max_tokens: PositiveInt = Field(description="a longer input is cut to this many tokens, special ones included")
    graph: str = Field(description="who made the graph, and which version of it")

    @property
    def fingerprint(self) -> str:
        """Names these scores among those of all models, in 32 hexadecimal digits."""
        return hashlib.blake2b(self.model_dump_json().encode(), digest_size=16).hexdigest()


class Manifest(Shape):
    """A prepared model."""

    uri: str = Field(description="where it was made from")
    recipe: Recipe
    fingerprint: str = Field(description="of the recipe")


def read(directory: Path) -> Manifest | None:
    """The manifest of a directory of prepared files, None where there is none. Raises ModelError on a broken one."""
    path = directory / FILE
    if not path.is_file():
        return None
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except (ValidationError, OSError) as error:
        raise ModelError(f"{path} is not a manifest of this version: prepare the model again") from error


def digest(*paths: Path) -> str:
    """Digest of what files hold, one after the other, 64 hexadecimal digits. Raises OSError when one cannot be read."""
    whole = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            hashlib.file_digest(file, lambda: whole)
    return whole.hexdigest()
