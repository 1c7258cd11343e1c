"""Models of the Hugging Face hub, or of a mirror of it: `hf://organisation/name[@revision]`.

`HF_TOKEN` and `HF_ENDPOINT` are heeded, as everywhere in that world. Only the files that are needed are fetched, and
checked against what the hub says of them.
"""

import hashlib
import logging
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from rag_service import __version__, quiet
from rag_service.models import ModelError, source

if TYPE_CHECKING:
    from huggingface_hub import HfApi

quiet.libraries()
# No progress bars in logs, and plain HTTP, whose time limits hold, instead of a protocol that no mirror speaks.
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = os.environ["HF_HUB_DISABLE_XET"] = "1"
os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # what becomes of it is said here
os.environ.setdefault("HF_HUB_DOWNLOAD_TIMEOUT", "20")  # seconds without a byte

PREFIX = "hf://"
ANSWER = 60.0  # seconds to wait for what the hub says of a model
SLOWEST = 250_000  # bytes a second, below which a download is given up

_URI = re.compile(r"hf://((?:[\w-][\w.-]*/)?[\w-][\w.-]*)(?:@([\w-][\w./-]*))?", re.ASCII)
_TOKEN = "give a token that may read it: HF_TOKEN, in a RAGService spec.huggingFace.tokenSecretRef"  # noqa: S105 (words)

Result = TypeVar("Result")

log = logging.getLogger(__name__)
for _client in ("httpx", "httpx2"):  # under both names it was released, and tells every request
    logging.getLogger(_client).setLevel(logging.WARNING)


@dataclass(frozen=True)
class _File:
    """A file as the hub describes it. Its digest is a SHA-256, of small files that of git; a mirror may know none."""

    name: str
    size: int
    sha256: str | None
    git: str | None

    @property
    def known(self) -> bool:
        """Whether one can tell this file from another."""
        return bool(self.sha256 or self.git)


def fetch(uri: str, below: Path) -> tuple[str, Path]:
    """Fetch a model's files, those that are not there yet; the commit that they are of, and the directory.

    That is one below `below`, for this commit alone: what was left of another would be taken for a part of this one.
    The settings come first: a model that cannot be served is refused before its weights are fetched.
    Raises ModelError, and OSError when the directory cannot be written.
    """
    repository, revision = parse(uri)
    commit, files = _bounded(uri, ANSWER, lambda: _listed(uri, repository, revision))
    into = below / hashlib.blake2b(f"{repository}@{commit}".encode(), digest_size=8).hexdigest()
    into.mkdir(parents=True, exist_ok=True)
    for other in below.iterdir():
        if other != into:
            shutil.rmtree(other, ignore_errors=True)

    def get(names: Iterable[str]) -> None:
        chosen = [files[name] for name in names]
        _room(uri, chosen, into)
        limit = ANSWER * len(chosen) + sum(file.size for file in chosen) / SLOWEST
        _bounded(uri, limit, lambda: _downloaded(uri, repository, commit, chosen, into))

    get(source.settings(files))
    described = source.describe(uri, into)
    _, names = source.weights(uri, files, described)
    get(names)
    return commit, into


def parse(uri: str) -> tuple[str, str | None]:
    """Repository and revision. Raises ModelError."""
    found = _URI.fullmatch(uri)
    if not found or ".." in uri:
        raise ModelError(f"{uri} names no model of the hub: write hf://organisation/name or …@revision")
    return found[1], found[2]


def _listed(uri: str, repository: str, revision: str | None) -> tuple[str, dict[str, _File]]:
    """The commit that a revision stands for, and its files by name."""
    found = _api().model_info(repository, revision=revision, files_metadata=True, timeout=ANSWER / 4)
    if not found.sha:
        raise ModelError(f"{uri}: {_endpoint()} does not say which commit {revision or 'the newest'} is")
    files = {
        file.rfilename: _File(
            file.rfilename, file.size or 0, file.lfs.sha256 if file.lfs else None, None if file.lfs else file.blob_id
        )
        for file in found.siblings or ()
    }
    return found.sha, files


def _downloaded(uri: str, repository: str, commit: str, files: Sequence[_File], into: Path) -> None:
    api = _api()
    for file in files:
        path = into / file.name
        if file.known:
            if _intact(path, file):
                continue
            # Whatever lies there is not that file, though the library might take it for it.
            path.unlink(missing_ok=True)
        if file.size > 10_000_000:
            log.info("%s: fetching %s, %.0f MB", uri, file.name, file.size / 1e6)
        api.hf_hub_download(repository, file.name, revision=commit, local_dir=into)
        if file.known and not _intact(path, file):
            path.unlink(missing_ok=True)
            raise ModelError(f"{uri}: {file.name} arrived damaged or cut short: run it again, or ask the hub's makers")


def _intact(path: Path, file: _File) -> bool:
    """Whether a file is there and is what the hub says."""
    if not path.is_file() or path.stat().st_size != file.size:
        return False
    if file.sha256:
        with path.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest() == file.sha256
    return _git(path.read_bytes()) == file.git


def _git(content: bytes) -> str:
    """How git names what a file holds."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _room(uri: str, files: Sequence[_File], into: Path) -> None:
    needed = sum(file.size for file in files if not (into / file.name).is_file())
    free = shutil.disk_usage(into).free
    if needed > free:
        raise ModelError(
            f"{uri}: no disk space: its files need {needed / 1e6:.0f} MB, {into} has {free / 1e6:.0f} MB left"
        )


def _bounded(uri: str, seconds: float, work: Callable[[], Result]) -> Result:
    """Talk to the hub, for so long at most: a server that trickles keeps each of the library's own limits.

    What is given up goes on in its thread, which does not keep the process from ending.
    """
    outcome: Future[Result] = Future()

    def run() -> None:
        try:
            outcome.set_result(work())
        except BaseException as error:  # noqa: BLE001 (raised again in the thread that waits)
            outcome.set_exception(error)

    threading.Thread(target=run, name="hub", daemon=True).start()
    try:
        return outcome.result(seconds)
    except ModelError:
        raise
    except Exception as error:
        if not outcome.done():
            raise ModelError(f"{uri}: gave up after {seconds:.0f} s: {_endpoint()} is too slow") from error
        raise _told(uri, error) from error


def _told(uri: str, error: Exception) -> Exception:
    """The library's error in one line that says what to do."""
    from huggingface_hub import errors  # noqa: PLC0415

    status = error.response.status_code if isinstance(error, errors.HfHubHTTPError) else None
    match error:
        case errors.GatedRepoError():
            said = f"its makers let only those in who accept their terms: do so on its page, then {_TOKEN}"
        case errors.RevisionNotFoundError():
            said = f"there is no such revision at {_endpoint()}"
        case errors.RepositoryNotFoundError():
            said = f"{_endpoint()} knows no such model, or hides it: check the name, or {_TOKEN}"
        case errors.HfHubHTTPError() if status in {401, 403}:
            said = f"{_endpoint()} refuses it ({status}): {_TOKEN}"
        case errors.HfHubHTTPError():
            said = f"{_endpoint()} answered {status}: try again later"
        case errors.OfflineModeIsEnabled():
            said = "HF_HUB_OFFLINE forbids to fetch it"
        case OSError() if error.errno is not None and error.filename is not None:
            return error  # of the disk: said by who knows the directory
        case OSError() if "onsistency check" in str(error):
            said = f"a file arrived cut short from {_endpoint()}: run it again"
        case _:
            cause = error.__cause__ or error
            said = f"the connection to {_endpoint()} failed: {_first_line(cause) or type(cause).__name__}"
    return ModelError(f"{uri}: {said}")


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]


def _endpoint() -> str:
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def _api() -> "HfApi":
    from huggingface_hub import HfApi  # noqa: PLC0415 (takes its settings from the environment when imported)

    return HfApi(endpoint=_endpoint(), library_name="ragservice", library_version=__version__)
