"""Finds out which variant of a model serves best here, and remembers it."""

import contextlib
import fcntl
import hashlib
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from rag_service.contract.settings import BackendName, FidelityGate, Precision
from rag_service.engine import choice, host, trial
from rag_service.engine.backends import REFERENCE, Variant
from rag_service.engine.choice import Host, Measurement, Row, Verdict
from rag_service.models import ModelError
from rag_service.models.manifest import SOURCE, Manifest

FOLDER = "verdicts"
METHOD = "2"  # raise it whenever a trial may come to another verdict than before

log = logging.getLogger(__name__)


def choose(
    directory: Path,
    manifest: Manifest,
    gate: FidelityGate,
    backend: BackendName | Literal["auto"] = "auto",
    precision: Precision | Literal["auto"] = "auto",
) -> Variant:
    """The variant of a prepared model that serves here: the only one that settings allow, or the best of a trial.

    A trial takes some seconds a variant, once for each kind of CPU. Raises ModelError when nothing can run the model.
    """
    here = host.read()
    known = choice.variants(manifest, (directory / SOURCE).is_dir(), here, gate)
    try:
        possible = choice.wanted(known, backend, precision)
    except ModelError as error:
        raise ModelError(f"{manifest.uri}: {error}") from error
    if len(possible) == 1:
        return possible[0]
    # Everything that could serve is tried, whatever these settings allow: others may be set for the next pod.
    candidates = [variant for variant, obstacle in known.items() if obstacle is None]
    name = _name(here, manifest, gate, candidates)
    with _alone(name, directory):
        verdict = _recall(name, directory)
        if verdict:
            log.info("%s: a trial on such a CPU has been made before", manifest.uri)
        else:
            log.info("%s: trying %s", manifest.uri, ", ".join(map(str, candidates)))
            measured = {variant: trial.run(directory, variant) for variant in candidates}
            verdict = choice.judge(measured, gate)
            if verdict is None:
                return _unjudged(manifest, possible, measured)
            if not any(isinstance(found, trial.PassingFault) for found in measured.values()):
                _remember(name, directory, verdict)
    refused = [Row(variant=variant, fault=why) for variant, why in known.items() if why]
    served = verdict.best(possible)
    table = choice.table(verdict, served, refused)
    if served is None:
        log.error("%s: nothing that settings allow may serve it\n%s", manifest.uri, table)
        faults = "; ".join(f"{row.variant}: {row.fault}" for row in verdict.rows if row.variant in possible)
        raise ModelError(f"{manifest.uri}: nothing that settings allow passes the gate: {faults}")
    log.info("%s: %s serves\n%s", manifest.uri, served, table)
    return served


def _unjudged(
    manifest: Manifest, possible: Sequence[Variant], measured: Mapping[Variant, Measurement | str]
) -> Variant:
    """What serves when there was nothing to judge by: the reference, if it may."""
    why = "; ".join(f"{variant}: {found}" for variant, found in measured.items() if isinstance(found, str))
    if REFERENCE not in possible:
        raise ModelError(f"{manifest.uri}: no trial came to an end: {why}")
    log.warning("%s: no trial came to an end, so %s serves: %s", manifest.uri, REFERENCE, why)
    return REFERENCE


def _name(here: Host, manifest: Manifest, gate: FidelityGate, candidates: Sequence[Variant]) -> str:
    """Names a verdict by everything that it depends on."""
    graphs = {precision: graph.digest for precision, graph in sorted(manifest.graphs.items())}
    depends = (METHOD, here.cpu, sorted(here.versions.items()), manifest.recipe.model_dump_json(), graphs)
    text = repr((*depends, gate.model_dump_json(), sorted(candidates)))
    return f"{hashlib.blake2b(text.encode(), digest_size=16).hexdigest()}.json"


def _folders(directory: Path, environment: Mapping[str, str] = os.environ) -> Iterator[Path]:
    """Where verdicts are kept: with the model, and where that cannot be written, in the user's cache."""
    yield directory / FOLDER
    yield Path(environment.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ragservice" / FOLDER


@contextlib.contextmanager
def _alone(name: str, directory: Path) -> Iterator[None]:
    """Let other processes that want the same verdict wait for it: trials beside each other would measure each other."""
    with contextlib.ExitStack() as stack:
        for folder in _folders(directory):
            with contextlib.suppress(OSError):
                folder.mkdir(parents=True, exist_ok=True)
                lock = stack.enter_context((folder / f".{name}.lock").open("w"))
                fcntl.flock(lock, fcntl.LOCK_EX)
                break
        yield


def _recall(name: str, directory: Path) -> Verdict | None:
    for folder in _folders(directory):
        try:
            return Verdict.model_validate_json((folder / name).read_bytes())
        except OSError:
            continue
        except ValidationError:
            log.warning("%s is not a verdict of this version: the model is tried again", folder / name)
    return None


def _remember(name: str, directory: Path, verdict: Verdict) -> None:
    """Keep it, whole or not at all: other pods may read the same volume."""
    for folder in _folders(directory):
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile("w", dir=folder, delete=False) as draft:
                draft.write(verdict.model_dump_json(by_alias=True, indent=2) + "\n")
            Path(draft.name).chmod(0o644)
            Path(draft.name).replace(folder / name)
            return
    log.warning("The verdict cannot be kept anywhere: the next start tries again")
