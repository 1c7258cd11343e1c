"""A model as its makers publish it: a directory with `config.json`, `tokenizer.json` and weights."""

import importlib.util
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rag_service.contract.settings import MODEL_SCHEMES
from rag_service.models import ModelError
from rag_service.models.manifest import GRAPH, TOKENIZER, Kind

CONFIG = "config.json"
WEIGHTS = "model.safetensors"

ARCHITECTURES: Mapping[str, Kind] = {"BertForSequenceClassification": "cross-encoder", "BertModel": "bi-encoder"}


@dataclass(frozen=True)
class Source:
    """A model's published files, read as far as is needed to know what they are."""

    uri: str
    config: Mapping[str, Any]
    config_file: Path
    tokenizer: Path
    weights: Path
    kind: Kind
    max_tokens: int


def locate(uri: str) -> Path:
    """The directory that a URI names. Raises ModelError when it does not exist."""
    scheme, _, rest = uri.partition("://")
    if scheme not in MODEL_SCHEMES or not rest:
        raise ModelError(f"{uri} is no model URI: write {' or '.join(f'{known}://…' for known in MODEL_SCHEMES)}")
    directory = Path(rest) if scheme == "file" else _in_package(uri, rest)
    if not directory.is_dir():
        raise ModelError(f"{uri}: there is no directory {directory}")
    return directory


def _in_package(uri: str, rest: str) -> Path:
    """Find a package's model without importing the package, whose own code may want libraries that are not here."""
    name, _, below = rest.partition("/")
    spec = importlib.util.find_spec(name) if name.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(f"{uri}: no Python package {name} is installed; install the one that carries the model")
    root = Path(next(iter(spec.submodule_search_locations)))
    if below:
        return root / below
    found = sorted(path.parent for path in root.rglob(CONFIG) if (path.parent / TOKENIZER).is_file())
    if len(found) != 1:
        where = ", ".join(str(path.relative_to(root)) for path in found) or "none"
        raise ModelError(f"{uri}: one model was expected in the package, found: {where}; name its directory in the URI")
    return found[0]


def inspect(uri: str, directory: Path) -> Source:
    """Read what the files are. Raises ModelError on missing files and on models that cannot be served."""
    config_file, tokenizer = directory / CONFIG, directory / TOKENIZER
    for file in (config_file, tokenizer):
        if not file.is_file():
            raise ModelError(f"{uri}: {file.name} is missing in {directory}")
    weights = next((path for name in (WEIGHTS, GRAPH) if (path := directory / name).is_file()), None)
    if weights is None:
        raise ModelError(f"{uri}: neither {WEIGHTS} nor {GRAPH} is in {directory}")
    config = _json(uri, config_file)
    return Source(
        uri=uri,
        config=config,
        config_file=config_file,
        tokenizer=tokenizer,
        weights=weights,
        kind=_kind(uri, config, directory),
        max_tokens=_max_tokens(uri, config, directory),
    )


def _kind(uri: str, config: Mapping[str, Any], directory: Path) -> Kind:
    architectures = config.get("architectures") or ["no architecture"]
    kind = ARCHITECTURES.get(architectures[0])
    if kind is None:
        raise ModelError(f"{uri}: {architectures[0]} cannot be served; these can: {', '.join(ARCHITECTURES)}")
    pooling = directory / "1_Pooling" / CONFIG
    if kind == "bi-encoder" and pooling.is_file():
        modes = [name for name, on in _json(uri, pooling).items() if name.startswith("pooling_mode_") and on is True]
        if modes not in ([], ["pooling_mode_mean_tokens"]):
            raise ModelError(f"{uri}: only mean pooling can be served, this model uses {', '.join(modes)}")
    return kind


def _max_tokens(uri: str, config: Mapping[str, Any], directory: Path) -> int:
    """The shortest of the lengths that the model's files declare."""
    declared: list[Any] = [config.get("max_position_embeddings")]
    for name, key in (("tokenizer_config.json", "model_max_length"), ("sentence_bert_config.json", "max_seq_length")):
        if (path := directory / name).is_file():
            declared.append(_json(uri, path).get(key))
    lengths = [int(length) for length in declared if isinstance(length, int | float) and length > 0]
    if not lengths:
        raise ModelError(f"{uri}: {CONFIG} does not say max_position_embeddings")
    return min(lengths)


def _json(uri: str, path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, OSError) as error:
        raise ModelError(f"{uri}: {path} cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise ModelError(f"{uri}: {path} should hold a JSON object")
    return content
