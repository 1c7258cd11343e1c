"""`rag-service model prepare` as processes: beside each other, killed, without room."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rag_service.models import manifest
from rag_service.models.prepare import find, prepare
from tests import models
from tests.service import hub as hubs

NAME = "someone/tiny"
URI = f"hf://{NAME}"

pytestmark = pytest.mark.process


@contextmanager
def preparing(
    uri: str, out: Path, endpoint: str = "", limit: str = "unlimited", more: tuple[str, ...] = ("--no-trial",)
) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [
            *("bash", "-c", f'ulimit -f {limit}; exec "$@"', "bash"),
            *(sys.executable, "-m", "rag_service", "model", "prepare", uri, "--out", out, "--precision", "fp32", *more),
        ],
        env={**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(out.parent)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def left(folder: Path) -> list[str]:
    """Directories that are no model."""
    return [path.name for path in folder.iterdir() if path.is_dir() and path.name.startswith(".")]


def wait_for(condition: Callable[[], object], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_two_at_once_make_one_model(tmp_path: Path) -> None:
    (tmp_path / "volume").mkdir()
    with hubs.serving() as hub:
        hub.repositories[NAME] = models.cross_encoder(tmp_path / "hub")
        with (
            preparing(URI, tmp_path / "volume" / "a", hub.endpoint) as one,
            preparing(URI, tmp_path / "volume" / "a", hub.endpoint) as other,
        ):
            assert one.wait(60) == other.wait(60) == 0
        assert hub.downloads().count("model.safetensors") == 1
    assert manifest.read(tmp_path / "volume" / "a")
    assert left(tmp_path / "volume") == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_one_that_is_killed_leaves_nothing_to_be_served_and_the_next_goes_on(number: int, tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    with hubs.serving() as hub:
        hub.repositories[NAME] = models.cross_encoder(tmp_path / "hub")
        hub.slow = "model.safetensors"
        with preparing(URI, volume / "a", hub.endpoint) as process:
            wait_for(lambda: "model.safetensors" in hub.downloads())
            process.send_signal(number)
            assert process.wait(10) in {-signal.SIGKILL, 128 + signal.SIGTERM}
        assert not (volume / "a").exists()
        hub.slow = ""
        hub.requests.clear()
        with preparing(URI, volume / "a", hub.endpoint) as process:
            assert process.wait(60) == 0
        assert hub.downloads() == ["model.safetensors"]
    assert find(URI, {"RAGSERVICE_MODELS": str(volume)})[0] == volume / "a"
    assert left(volume) == []


def test_the_last_step_is_to_find_out_what_serves_it_best(tmp_path: Path) -> None:
    source = models.cross_encoder(tmp_path / "model")
    with preparing(f"file://{source}", tmp_path / "out", more=()) as process:
        said, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    assert "on this CPU it is served by " in said
    assert len(list((tmp_path / "out" / "verdicts").glob("*.json"))) == 1


def test_what_a_killed_one_had_begun_to_write_is_removed(tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    source = models.cross_encoder(tmp_path / "model")
    begun = volume / ".a.preparing" / "x1y2z3" / "model"
    begun.mkdir(parents=True)
    (begun / "model.onnx").write_bytes(b"half")
    (volume / ".a.b.preparing" / "x1y2z3").mkdir(parents=True)
    prepare(f"file://{source}", volume / "a")
    assert left(volume) == [".a.b.preparing"]


def test_a_volume_without_room_gives_one_line_and_keeps_nothing(tmp_path: Path) -> None:
    source = models.cross_encoder(tmp_path / "model")
    (tmp_path / "volume").mkdir()

    with preparing(f"file://{source}", tmp_path / "volume" / "a", limit="50") as process:
        assert process.wait(60) == 2
        said = process.stderr.read() if process.stderr else ""
    assert "cannot be written" in said
    assert "File too large" in said
    assert said.count("\n") == 1
    assert not (tmp_path / "volume" / "a").exists()
    assert left(tmp_path / "volume") == []


def test_what_another_version_put_on_the_volume_harms_only_itself(tmp_path: Path) -> None:
    uri = f"file://{models.cross_encoder(tmp_path / 'model')}"
    prepare(uri, tmp_path / "volume" / "b")
    (tmp_path / "volume" / "a").mkdir()
    (tmp_path / "volume" / "a" / manifest.FILE).write_text('{"uri": "hf://another/model", "form": 7}')
    assert find(uri, {"RAGSERVICE_MODELS": str(tmp_path / "volume")})[0] == tmp_path / "volume" / "b"
