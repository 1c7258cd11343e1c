"""The process: how it starts, how it refuses to, how it ends."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest

from rag_service.__main__ import main
from tests import models
from tests.service.running import InProcess, ServiceProcess, drain, until

pytestmark = pytest.mark.process


def refused(config: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Serve, which should fail; the line that it says."""
    assert main(["serve", "--config", str(config)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


def settings(path: Path, **changes: object) -> Path:
    wanted = {
        "service": "default/faq",
        "models": [{"name": "m", "uri": "file:///nowhere"}],
        "cache": {"ttl": "1h"},
        "requestTimeout": "10s",
    }
    path.write_text(json.dumps(wanted | changes))
    return path


def test_a_missing_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert str(tmp_path / "none.json") in refused(tmp_path / "none.json", capsys)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"models": []}, "models: "),
        ({"models": [{"name": "a", "uri": "ftp://x"}]}, "models.0.uri: "),
        ({"models": [{"name": "ä", "uri": "file:///x"}]}, "models.0.name: "),
        ({"models": [{"name": "a", "uri": "file:///x"}] * 2}, "more than one is called a"),
        ({"requestTimeout": "10"}, "is not a duration"),
        ({"requestTimeuot": "10s"}, "requestTimeuot: "),
        ({"models": [{"name": "m", "uri": "file:///nowhere"}]}, "there is no directory /nowhere"),
        ({"models": [{"name": "m", "uri": "package://nowhere"}]}, "no Python package nowhere"),
    ],
)
def test_wrong_settings_are_named_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, object], words: str
) -> None:
    assert words in refused(settings(tmp_path / "config.json", **changes), capsys)


def test_the_process_itself_ends_with_that_line_and_that_code(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "rag_service", "serve", "--config", str(settings(tmp_path / "config.json"))]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (ended.returncode, ended.stderr) == (2, "rag-service: file:///nowhere: there is no directory /nowhere\n")


def test_a_wrong_address_of_redis_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], tiny: dict[str, str]
) -> None:
    models_ = [{"name": "m", "uri": tiny["best"]}]
    config = settings(tmp_path / "c.json", models=models_, cache={"ttl": "1h", "redis": {"url": "http://x"}})
    assert "redis://" in refused(config, capsys)
    file = {"url": "redis://127.0.0.1:1/0", "passwordFile": str(tmp_path / "none")}
    config = settings(tmp_path / "c.json", models=models_, cache={"ttl": "1h", "redis": file})
    assert str(tmp_path / "none") in refused(config, capsys)


def test_a_model_is_prepared_at_its_first_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    uri = f"file://{models.bi_encoder(tmp_path / 'model')}"
    with InProcess({"m": uri}) as service:
        assert service.rerank("q", ["a"]).status_code == 200
    assert len(list((tmp_path / "cache").rglob("model.onnx"))) == 1


def test_a_server_with_prepared_models_writes_nothing(
    tmp_path: Path, tiny: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No cache, and no identity that a library would report under."""
    home = tmp_path / "home"
    home.mkdir()
    for name in ("HOME", "XDG_CACHE_HOME", "TMPDIR"):
        monkeypatch.setenv(name, str(home))
    with ServiceProcess(tmp_path, tiny) as service:
        assert service.rerank("q", ["a"]).status_code == 200
        assert service.stop() == 0
    assert not list(home.rglob("*"))


def test_sigterm_ends_it_before_it_listens(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    os.mkfifo(config)
    command = [sys.executable, "-m", "rag_service", "serve", "--config", str(config)]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        with config.open("wb"):  # as soon as the process reads its settings
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
        assert process.stderr
        assert process.stderr.read() == b""


def test_sigterm_lets_requests_in_hand_finish(tmp_path: Path, tiny: dict[str, str]) -> None:
    texts = ["abcdefghij " * 10 + str(number) for number in range(900)]
    with ServiceProcess(tmp_path, tiny) as service:
        answers: list[httpx.Response] = []
        asking = threading.Thread(target=lambda: answers.append(service.rerank("a long request", texts)))
        asking.start()
        until(lambda: service.load()["queuedTokens"] > 0)
        assert service.stop() == 0
        asking.join()
        assert answers[0].status_code == 200
        assert len(answers[0].json()) == 900


def test_before_it_ends_the_server_is_not_ready_and_sends_clients_elsewhere(
    tmp_path: Path, tiny: dict[str, str]
) -> None:
    with ServiceProcess(tmp_path, tiny, drain="2s") as service:
        assert service.client.get("/readyz").headers.get("Connection") != "close"
        service.process.send_signal(signal.SIGTERM)
        until(lambda: service.client.get("/readyz").status_code == 503)
        answer = service.rerank("still", ["answered"])
        assert (answer.status_code, answer.headers["Connection"]) == (200, "close")
        assert service.client.get("/healthz").status_code == 200
        assert service.process.wait(30) == 0


def test_no_request_fails_while_the_server_drains(tmp_path: Path, tiny: dict[str, str]) -> None:
    """Clients that keep connections open, and go elsewhere when told to, lose nothing."""
    with ServiceProcess(tmp_path, tiny, drain="1s") as service:
        drained = drain(service, clients=4)
        assert drained.told
        assert not drained.failed
        assert set(drained.answered) == {200}
        assert service.process.wait(30) == 0


def test_a_second_signal_ends_it_at_once(tmp_path: Path, tiny: dict[str, str]) -> None:
    with ServiceProcess(tmp_path, tiny, drain="1h") as service:
        service.process.send_signal(signal.SIGTERM)
        until(lambda: service.client.get("/readyz").status_code == 503)
        time.sleep(0.1)
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(30) == 0
