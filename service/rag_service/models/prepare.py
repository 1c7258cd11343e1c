"""From a model's URI to a directory of prepared files: found where it was made before, made where it was not.

Images and volumes carry prepared models under the folders of `RAGSERVICE_MODELS`, found there by the URI that they
were made from, so that serving needs neither the published weights nor the libraries that read them.
"""

import contextlib
import errno
import fcntl
import hashlib
import importlib.util
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Literal

from rag_service.models import ModelError, hub, manifest
from rag_service.models.manifest import GRAPH, SOURCE, TOKENIZER, Graph, Manifest, Recipe, digest
from rag_service.models.source import Source, inspect, locate

PREPARED = "RAGSERVICE_MODELS"
BERT_GRAPH = "bert-1"  # raise it whenever `export` may give other scores than before
INT8 = "int8.onnx"
FETCHED = "fetched"  # where published files lie until the model is prepared: a killed process's are used by the next
PATIENCE = 1800.0  # seconds to wait for another process that prepares the same model

Made = Literal["fp32", "int8"]
"""Precisions that have a graph of their own."""
ALWAYS: tuple[Made, ...] = ("fp32",)

log = logging.getLogger(__name__)


def find(uri: str, environment: Mapping[str, str] = os.environ) -> tuple[Path, Manifest]:
    """The prepared files of a model: those of the image, else its own, else made now and kept in the user's cache.

    Raises ModelError when the model cannot be served, or not without the libraries that export it.
    """
    for root in filter(None, environment.get(PREPARED, "").split(os.pathsep)):
        for directory in sorted(Path(root).glob("[!.]*")):
            # Others on a shared volume may be of other versions, and broken to this one.
            if manifest.mentions(directory, uri) and (found := _usable(directory)) and found.uri == uri:
                return directory, found
    cache = Path(environment.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ragservice" / "models"
    if uri.startswith(hub.PREFIX):
        kept = cache / _name(uri)
    else:
        directory = locate(uri)
        if found := manifest.read(directory):
            return directory, found
        kept = cache / _name(recipe(inspect(uri, directory)).model_dump_json())
    if found := _usable(kept):
        return kept, found
    return kept, prepare(uri, kept)


def prepare(uri: str, out: Path, precisions: Collection[Made] = ALWAYS) -> Manifest:
    """Make the prepared files of a model in the directory `out`, whole or not at all.

    What was prepared there from the same files stays as it is; of a model of the hub, what was prepared from the same
    URI, without asking the hub: name a revision to have another. Several processes may do so at once.
    Raises ModelError when the model cannot be served or the directory cannot be written.
    """
    try:
        # Before anything is written: what was prepared ahead of time may lie on a volume that cannot be.
        if ready := _ready(uri, out, precisions):
            return ready
        out.parent.mkdir(parents=True, exist_ok=True)
        with _alone(out) as alone:
            if ready := _ready(uri, out, precisions):
                return ready
            work = out.with_name(f".{out.name}.preparing")
            work.mkdir(exist_ok=True)
            if alone:
                _sweep(work)
            try:
                return _prepare(uri, out, precisions, _usable(out), work)
            finally:
                with contextlib.suppress(OSError):  # what was fetched stays for the next, when this one failed
                    work.rmdir()
    except OSError as error:
        full = "no disk space" if error.errno in {errno.ENOSPC, errno.EDQUOT} else "cannot be written"
        raise ModelError(f"{uri}: {full}: {out}: {error.strerror or error}") from error


def _ready(uri: str, out: Path, precisions: Collection[Made]) -> Manifest | None:
    """What was prepared from the same model of the hub, which is not asked whether it has another by now."""
    there = _usable(out) if uri.startswith(hub.PREFIX) else None
    return there if there and there.uri == uri and _has(there, precisions) else None


def _prepare(uri: str, out: Path, precisions: Collection[Made], there: Manifest | None, work: Path) -> Manifest:
    """What `prepare` does once it is alone. `there`: what it finds in `out`; `work`: where it may write meanwhile."""
    fetched = work / FETCHED
    revision: str | None
    if uri.startswith(hub.PREFIX):
        revision, published = hub.fetch(uri, fetched)
    else:
        revision, published = None, locate(uri)
    source = inspect(uri, published)
    made = recipe(source)
    if there and (there.uri, there.recipe) == (uri, made) and _has(there, precisions):
        return there
    with tempfile.TemporaryDirectory(dir=work) as scratch:
        draft = Path(scratch) / "model"
        draft.mkdir()
        shutil.copyfile(source.tokenizer, draft / TOKENIZER)
        described = Manifest(uri=uri, revision=revision, recipe=made, graphs={}, refused={})
        if source.form == "other" or importlib.util.find_spec("sentence_transformers"):
            _copy(source, draft / SOURCE)
        if source.form != "other":
            described = _graphs(source, draft, described, precisions)
        (draft / manifest.FILE).write_text(described.model_dump_json(by_alias=True, indent=2) + "\n")
        _settle(draft)
        _replace(draft, out, Path(scratch) / "before")
    shutil.rmtree(fetched, ignore_errors=True)
    return described


def quantises() -> bool:
    """Whether int8 graphs can be made: what that takes is installed."""
    return all(importlib.util.find_spec(name) for name in ("nncf", "onnx", "onnxruntime"))


def recipe(source: Source) -> Recipe:
    """What the scores of this model depend on."""
    try:
        return Recipe(
            kind=source.described.kind,
            weights=digest(*source.weights),
            config=digest(*source.configuration),
            tokenizer=digest(source.tokenizer),
            max_tokens=source.described.max_tokens,
            graph={"bert": BERT_GRAPH, "onnx": "published", "other": None}[source.form],
        )
    except OSError as error:
        raise ModelError(f"{source.uri}: cannot be read: {error}") from error


def _graphs(source: Source, draft: Path, described: Manifest, precisions: Collection[Made]) -> Manifest:
    """Write the graphs into the draft, and the manifest that names them."""
    _fp32(source, draft / GRAPH)
    graphs = {"fp32": _described(draft / GRAPH, described.recipe.graph or "")}
    described = described.model_copy(update={"graphs": graphs})
    if "int8" not in precisions:
        return described
    if not quantises():
        raise ModelError(f"{source.uri}: int8 needs the library nncf: install ragservice[quantize,service]")
    from rag_service.engine.tokens import Tokeniser  # noqa: PLC0415
    from rag_service.models import quantise  # noqa: PLC0415 (the served image lacks what it imports)

    log.info("%s: quantising, which takes some minutes", source.uri)
    kind = described.recipe.kind
    tokeniser = Tokeniser(draft / TOKENIZER, described.recipe.max_tokens)
    judge = quantise.Judge(draft / GRAPH, tokeniser, kind)
    refused: dict[str, Graph] = {}
    for spared in quantise.SPARED:
        try:
            quantise.quantise(draft / GRAPH, tokeniser, kind, draft / INT8, spared)
        except ModelError as error:
            log.warning("%s: there will be no int8: %s", source.uri, error)
            break
        judged = judge(draft / INT8)
        made = _described(draft / INT8, quantise.maker(spared)).model_copy(update={"fidelity": judged})
        if quantise.passes(judged):
            return described.model_copy(update={"graphs": {**graphs, "int8": made}})
        log.warning(
            "%s: int8 is not kept, its scores are too far from those of fp32: tau %.3f, top-10 %.3f, %.5f between "
            "batches (in fp32 stays: %s)",
            *(source.uri, judged.tau, judged.top10, judged.batch_delta, spared),
        )
        for file in draft.glob(f"{INT8}*"):
            file.unlink()
        refused = {"int8": made}
    return described.model_copy(update={"refused": refused})


def _described(path: Path, maker: str) -> Graph:
    return Graph(file=path.name, digest=digest(*sorted(path.parent.glob(f"{path.name}*"))), maker=maker)


def _fp32(source: Source, path: Path) -> None:
    if source.form == "onnx":
        for file in source.weights:
            shutil.copyfile(file, path.with_name(file.name))
        return
    for library in ("onnx", "safetensors"):
        if importlib.util.find_spec(library) is None:
            raise ModelError(
                f"{source.uri}: to make it ready needs the library {library}: install ragservice[export], or run "
                f"`rag-service model prepare {source.uri} --out DIR` where it is installed and serve file://DIR"
            )
    from rag_service.models.export import export  # noqa: PLC0415 (not every image has what it imports)

    export(source, path)


def _copy(source: Source, into: Path) -> None:
    for name in source.files:
        (into / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source.directory / name, into / name)


def _usable(directory: Path) -> Manifest | None:
    """What is prepared already; what another version of ours prepared is made anew."""
    try:
        return manifest.read(directory)
    except ModelError as error:
        log.warning("%s", error)
        return None


def _has(there: Manifest, precisions: Collection[Made]) -> bool:
    """Whether every graph is there that is wanted and can be had."""
    return not there.graphs or all(precision in {*there.graphs, *there.refused} for precision in precisions)


def _name(of: str) -> str:
    return hashlib.blake2b(of.encode(), digest_size=16).hexdigest()


@contextlib.contextmanager
def _alone(out: Path) -> Iterator[bool]:
    """Wait until no other process prepares this model here. Gives False where the file system knows no locks.

    The lock only saves work: without it, two would make the same files, and each put them in place whole.
    """
    path = out.with_name(f".{out.name}.lock")
    with path.open("w") as file:
        began = time.monotonic()
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() - began > PATIENCE:
                    raise ModelError(f"{out}: another process has been preparing it for {PATIENCE:.0f} s") from None
                time.sleep(0.5)
            except OSError:
                yield False
                return
            else:
                yield True
                return


def _sweep(work: Path) -> None:
    """Remove what killed processes began to write, which nobody else uses while we are alone."""
    for left in work.iterdir():
        if left.name != FETCHED:
            shutil.rmtree(left, ignore_errors=True)


def _settle(draft: Path) -> None:
    """Let everyone read the files, and have them on the disk before they are seen under their name."""
    for path in draft.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    draft.chmod(0o755)


def _replace(draft: Path, out: Path, before: Path) -> None:
    """Move a directory into place; what was prepared there before goes to `before`."""
    if (out / manifest.FILE).is_file():
        out.rename(before)
    elif out.is_dir() and any(out.iterdir()):
        raise OSError(errno.ENOTEMPTY, "the directory holds other files; name an empty or a new one")
    try:
        draft.rename(out)
    except OSError:
        # Where there are no locks, another process may have been faster: its files are as good.
        if manifest.read(out) is None:
            if before.exists():
                before.rename(out)
            raise
