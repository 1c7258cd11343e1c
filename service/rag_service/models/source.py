"""A model as its makers publish it: `config.json`, `tokenizer.json` and weights, in a directory or under a name."""

import importlib.util
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rag_service.contract.settings import MODEL_SCHEMES
from rag_service.models import ModelError
from rag_service.models.manifest import GRAPH, TOKENIZER, Kind

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
MODULES = "modules.json"
POOLING = f"1_Pooling/{CONFIG}"

Form = Literal["bert", "onnx", "other"]
"""What the weights are: those that `export` reads, a graph that is used as it is, or what only torch can run."""

Pooling = Literal["mean", "cls"]
_POOLINGS: Mapping[str, Pooling] = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}

_FAMILIES = ("Bert", "Roberta", "XLMRoberta", "Electra", "DistilBert")
_EXPORTED = {f"{family}{form}" for family in _FAMILIES for form in ("ForSequenceClassification", "Model")}
_LAYERS = {"Transformer", "Pooling", "Normalize"}  # of sentence-transformers: those that a graph stands for

_PART = re.compile(r"model-\d{5}-of-(\d{5})\.safetensors")
_GRAPHS = re.compile(r"(?:onnx/)?model\.onnx(?:[._]data)?")
_LAYER = re.compile(r"\d+_[A-Za-z]+/model\.safetensors")
_SETTINGS = re.compile(r"(?:\d+_[A-Za-z]+/)?[A-Za-z0-9_][A-Za-z0-9_.-]*\.(?:json|txt|model)")


@dataclass(frozen=True)
class Description:
    """What a model's settings say of it."""

    architecture: str
    kind: Kind
    max_tokens: int
    pooling: Pooling
    exported: bool  # `export` can write its graph


@dataclass(frozen=True)
class Source:
    """A model's published files, read as far as is needed to know what they are."""

    uri: str
    directory: Path
    config: Mapping[str, Any]
    described: Description
    form: Form
    weights: tuple[Path, ...]

    @property
    def configuration(self) -> tuple[Path, ...]:
        """The settings that a score depends on."""
        return tuple(path for name in (CONFIG, MODULES, POOLING) if (path := self.directory / name).is_file())

    @property
    def tokenizer(self) -> Path:
        """The tokenizer's file."""
        return self.directory / TOKENIZER

    @property
    def files(self) -> tuple[str, ...]:
        """Names of everything that belongs to the model, relative to the directory."""
        weights = [path.relative_to(self.directory).as_posix() for path in self.weights]
        return tuple(sorted({*settings(_names(self.directory)), *weights}))


def locate(uri: str) -> Path:
    """The directory that a `file://` or `package://` URI names. Raises ModelError when it does not exist."""
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
    described = describe(uri, directory)
    form, names = weights(uri, _names(directory), described)
    return Source(
        uri=uri,
        directory=directory,
        config=_json(uri, directory / CONFIG),
        described=described,
        form=form,
        weights=tuple(directory / name for name in names),
    )


def settings(names: Collection[str]) -> list[str]:
    """Of the names of published files, those that say what the model is: small ones, without weights."""
    return sorted(name for name in names if _SETTINGS.fullmatch(name))


def weights(uri: str, names: Collection[str], described: Description) -> tuple[Form, list[str]]:
    """Of the names of published files, those of the weights to use, and what they are. Raises ModelError for none."""
    whole = _safetensors(uri, names)
    if whole and described.exported:
        return "bert", whole
    graphs = [name for name in sorted(names) if _GRAPHS.fullmatch(name)]
    for graph in (GRAPH, f"onnx/{GRAPH}"):
        if graph in graphs:
            return "onnx", [name for name in graphs if name.startswith(graph)]
    if whole:
        return "other", whole + sorted(name for name in names if _LAYER.fullmatch(name))
    raise ModelError(f"{uri}: its weights are missing: neither {WEIGHTS} nor {GRAPH} is there")


def _safetensors(uri: str, names: Collection[str]) -> list[str]:
    if WEIGHTS in names:
        return [WEIGHTS]
    parts = {name: int(found[1]) for name in sorted(names) if (found := _PART.fullmatch(name))}
    if parts and len(parts) != (many := max(parts.values())):
        raise ModelError(f"{uri}: its weights are missing: {len(parts)} of {many} parts are there")
    return list(parts)


def describe(uri: str, directory: Path) -> Description:
    """Read a model's settings; its weights need not be there. Raises ModelError on a model that cannot be served."""
    for name in (CONFIG, TOKENIZER):
        if not (directory / name).is_file():
            raise ModelError(f"{uri}: {name} is missing in {directory}")
    config = _json(uri, directory / CONFIG)
    architecture = (config.get("architectures") or ["no architecture"])[0]
    kind = _kind(uri, architecture, config, directory)
    pooling, layers = _pooling(uri, directory)
    return Description(
        architecture=architecture,
        kind=kind,
        max_tokens=_max_tokens(uri, config, directory),
        pooling=pooling or "mean",
        exported=architecture in _EXPORTED and (kind == "cross-encoder" or (pooling is not None and layers)),
    )


def _kind(uri: str, architecture: str, config: Mapping[str, Any], directory: Path) -> Kind:
    if "auto_map" in config:
        raise ModelError(f"{uri}: the model brings code of its own, which is not run here")
    if architecture.endswith("ForSequenceClassification"):
        labels = len(config.get("id2label") or "1")
        if labels != 1:
            raise ModelError(f"{uri}: a cross-encoder has one label, this model has {labels}")
        return "cross-encoder"
    if architecture.endswith("Model") and (architecture in _EXPORTED or (directory / MODULES).is_file()):
        return "bi-encoder"
    raise ModelError(
        f"{uri}: {architecture} cannot be served; …ForSequenceClassification with one label can, "
        f"{', '.join(f'{family}Model' for family in _FAMILIES)}, and models of sentence-transformers"
    )


def _pooling(uri: str, directory: Path) -> tuple[Pooling | None, bool]:
    """How a bi-encoder pools, None for ways that are not exported, and whether a graph can stand for all its layers."""
    layers = True
    if (directory / MODULES).is_file():
        types = [str(one.get("type", "")).rpartition(".")[2] for one in _json_list(uri, directory / MODULES)]
        layers = set(types) <= _LAYERS
    if not (directory / POOLING).is_file():
        return "mean", layers
    declared = _json(uri, directory / POOLING)
    modes = [name for name, on in declared.items() if name.startswith("pooling_mode_") and on is True]
    if isinstance(declared.get("pooling_mode"), str):  # as newer versions of sentence-transformers write it
        modes = [
            {"mean": "pooling_mode_mean_tokens", "cls": "pooling_mode_cls_token"}.get(declared["pooling_mode"], "")
        ]
    if not modes:
        return "mean", layers
    return (_POOLINGS.get(modes[0]) if len(modes) == 1 else None), layers


def _max_tokens(uri: str, config: Mapping[str, Any], directory: Path) -> int:
    """The shortest of the lengths that the model's files declare."""
    positions = config.get("max_position_embeddings")
    if isinstance(positions, int) and "roberta" in str(config.get("model_type")):
        positions -= 1 + int(config.get("pad_token_id") or 1)  # RoBERTa counts positions from behind the padding's
    declared: list[Any] = [positions]
    for name, key in (("tokenizer_config.json", "model_max_length"), ("sentence_bert_config.json", "max_seq_length")):
        if (path := directory / name).is_file():
            declared.append(_json(uri, path).get(key))
    lengths = [int(length) for length in declared if isinstance(length, int | float) and length > 0]
    if not lengths:
        raise ModelError(f"{uri}: {CONFIG} does not say max_position_embeddings")
    return min(lengths)


def _names(directory: Path) -> list[str]:
    """Files in the directory and in those right below it."""
    return [path.relative_to(directory).as_posix() for form in ("*", "*/*") for path in directory.glob(form)]


def _json(uri: str, path: Path) -> Mapping[str, Any]:
    content = _read(uri, path)
    if not isinstance(content, dict):
        raise ModelError(f"{uri}: {path} should hold a JSON object")
    return content


def _json_list(uri: str, path: Path) -> list[Mapping[str, Any]]:
    content = _read(uri, path)
    if not isinstance(content, list) or not all(isinstance(one, dict) for one in content):
        raise ModelError(f"{uri}: {path} should hold a list of JSON objects")
    return content


def _read(uri: str, path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (ValueError, OSError) as error:
        raise ModelError(f"{uri}: {path} cannot be read as JSON: {error}") from error
