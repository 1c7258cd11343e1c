"""From a model's URI to a directory of prepared files: found where it was made before, made where it was not.

Prepared models lie in the directories that `RAGSERVICE_MODELS` lists: the image's own, and a volume where an init
container or somebody ahead of time put more. They are found there by the URI that they were made from, so that serving
needs neither the published weights nor the libraries that read them.
"""

import hashlib
import importlib.util
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from rag_service.models import ModelError, manifest
from rag_service.models.manifest import GRAPH, TOKENIZER, Graph, Manifest, Recipe, digest
from rag_service.models.source import WEIGHTS, Source, inspect, locate

PREPARED = "RAGSERVICE_MODELS"
BERT_GRAPH = "bert-1"  # raise it whenever `export` may give other scores than before


def find(uri: str, environment: Mapping[str, str] = os.environ) -> tuple[Path, Manifest]:
    """The prepared files of a model: those of the image, else its own, else made now and kept in the user's cache.

    Raises ModelError when the model cannot be served, or not without the libraries that export it.
    """
    for root in filter(None, environment.get(PREPARED, "").split(os.pathsep)):
        for file in sorted(Path(root).glob(f"*/{manifest.FILE}")):
            found = manifest.read(file.parent)
            if found and found.uri == uri:
                return file.parent, found
    directory = locate(uri)
    if found := manifest.read(directory):
        return directory, found
    source = inspect(uri, directory)
    cache = Path(environment.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ragservice" / "models"
    kept = cache / _name(recipe(source))
    if found := manifest.read(kept):
        return kept, found
    return kept, prepare(uri, kept)


def prepare(uri: str, out: Path) -> Manifest:
    """Make the prepared files of a model in the directory `out`, whole or not at all.

    Raises ModelError when the model cannot be served or the directory cannot be written.
    """
    source = inspect(uri, locate(uri))
    made = recipe(source)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as scratch:
            draft = Path(scratch) / "model"
            draft.mkdir()
            _graph(source, draft / GRAPH)
            shutil.copyfile(source.tokenizer, draft / TOKENIZER)
            fp32 = Graph(file=GRAPH, digest=digest(*sorted(draft.glob(f"{GRAPH}*"))), maker=made.graph or "")
            described = Manifest(uri=uri, recipe=made, graphs={"fp32": fp32})
            (draft / manifest.FILE).write_text(described.model_dump_json(by_alias=True, indent=2) + "\n")
            for file in draft.iterdir():
                file.chmod(0o644)
            _replace(draft, out, described)
    except OSError as error:
        raise ModelError(f"{uri}: cannot be written to {out}: {error}") from error
    return described


def recipe(source: Source) -> Recipe:
    """What the scores of this model depend on."""
    try:
        return Recipe(
            kind=source.kind,
            weights=digest(*_weights(source)),
            config=digest(source.config_file),
            tokenizer=digest(source.tokenizer),
            max_tokens=source.max_tokens,
            graph=BERT_GRAPH if source.weights.name == WEIGHTS else "published",
        )
    except OSError as error:
        raise ModelError(f"{source.uri}: cannot be read: {error}") from error


def _name(made: Recipe) -> str:
    return hashlib.blake2b(made.model_dump_json().encode(), digest_size=16).hexdigest()


def _weights(source: Source) -> Sequence[Path]:
    """The files that hold the weights; of a published graph, large tensors lie in others beside it."""
    return sorted(source.weights.parent.glob(f"{GRAPH}*")) if source.weights.name == GRAPH else [source.weights]


def _graph(source: Source, path: Path) -> None:
    if source.weights.name == GRAPH:
        for file in _weights(source):
            shutil.copyfile(file, path.with_name(file.name))
        return
    for library in ("onnx", "safetensors"):
        if importlib.util.find_spec(library) is None:
            raise ModelError(
                f"{source.uri}: to make it ready needs the library {library}: install ragservice[export], or run "
                f"`rag-service model prepare {source.uri} --out DIR` where it is installed and serve file://DIR"
            )
    from rag_service.models.export import export  # noqa: PLC0415 (the served image lacks what it imports)

    export(source, path)


def _replace(draft: Path, out: Path, made: Manifest) -> None:
    """Move a directory into place; where another process put the same model there meanwhile, leave it."""
    there = manifest.read(out)
    if there == made:
        return
    if there:
        shutil.rmtree(out)
    elif out.is_dir() and any(out.iterdir()):
        raise OSError("the directory holds other files; name an empty or a new one")
    draft.rename(out)
