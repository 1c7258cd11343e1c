"""Models of a hub: the real client against a hub on loopback."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from rag_service.__main__ import main
from rag_service.models import ModelError, manifest
from rag_service.models import hub as client
from rag_service.models.prepare import find, prepare
from tests import models
from tests.service import hub as hubs
from tests.service.hub import COMMIT, Hub

NAME = "someone/tiny-reranker"
URI = f"hf://{NAME}"
NEEDED = {"config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with hubs.serving() as hub:
        hub.repositories[NAME] = models.cross_encoder(tmp_path / "hub")
        (tmp_path / "hub" / "tokenizer_config.json").write_text('{"model_max_length": 64}')
        for unwanted in ("README.md", "pytorch_model.bin", "onnx/model_quint8_avx2.onnx", "train.py"):
            (tmp_path / "hub" / unwanted).parent.mkdir(exist_ok=True)
            (tmp_path / "hub" / unwanted).write_bytes(b"unwanted")
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield hub


def refusal(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that a failing command says."""
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


def test_only_the_needed_files_are_fetched_and_the_commit_is_kept(hub: Hub, tmp_path: Path) -> None:
    made = prepare(URI, tmp_path / "models" / "out")
    assert set(hub.downloads()) == NEEDED
    assert (made.uri, made.revision, made.recipe.max_tokens) == (URI, COMMIT, 64)
    local = prepare(f"file://{hub.repositories[NAME]}", tmp_path / "local")
    assert made.fingerprint("fp32", "onnxruntime") == local.fingerprint("fp32", "onnxruntime")
    assert [path.name for path in (tmp_path / "models").iterdir() if path.is_dir()] == ["out"]


def test_what_was_left_of_another_model_becomes_no_part_of_this_one(hub: Hub, tmp_path: Path) -> None:
    """As where a repository no longer has a file that it had when an earlier attempt was killed."""
    before = client.fetch(URI, tmp_path / "fetched")[1]
    (before / "stale.safetensors").write_bytes(b"of before")
    hub.repositories["acme/other"] = models.bi_encoder(tmp_path / "other")
    _, directory = client.fetch("hf://acme/other", tmp_path / "fetched")
    assert not before.exists()
    assert "stale.safetensors" not in {path.name for path in directory.iterdir()}
    assert list((tmp_path / "fetched").iterdir()) == [directory]


def test_the_second_time_nothing_is_asked(hub: Hub, tmp_path: Path) -> None:
    made = prepare(URI, tmp_path / "out")
    hub.requests.clear()
    hub.status = 500
    assert prepare(URI, tmp_path / "out") == made
    assert find(URI, {"RAGSERVICE_MODELS": str(tmp_path)}) == (tmp_path / "out", made)
    assert hub.requests == []


def test_what_is_prepared_is_found_without_writing_beside_it(hub: Hub, tmp_path: Path) -> None:
    """Pods may share a volume that they can only read."""
    made = prepare(URI, tmp_path / "volume" / "out")
    lock = tmp_path / "volume" / ".out.lock"
    lock.unlink()
    assert prepare(URI, tmp_path / "volume" / "out") == made
    assert not lock.exists()


def test_the_first_use_fetches_into_the_cache(hub: Hub, tmp_path: Path) -> None:
    environment = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    found = find(URI, environment)
    assert set(hub.downloads()) == NEEDED
    assert find(URI, environment) == found
    assert len(hub.downloads()) == len(NEEDED)


def test_a_mirror_that_tells_no_digests_will_do(hub: Hub, tmp_path: Path) -> None:
    hub.terse = True
    assert prepare(URI, tmp_path / "out").revision == COMMIT
    assert set(hub.downloads()) == NEEDED


def test_another_revision_is_another_model(hub: Hub, tmp_path: Path) -> None:
    prepare(URI, tmp_path / "out")
    models.cross_encoder(hub.repositories[NAME], seed=1)
    hub.commit = "f" * 40
    made = prepare(f"{URI}@v2", tmp_path / "out")
    assert (made.uri, made.revision) == (f"{URI}@v2", hub.commit)
    assert manifest.read(tmp_path / "out") == made


def test_a_model_in_parts_is_the_same_model(hub: Hub, tmp_path: Path) -> None:
    whole = prepare(URI, tmp_path / "whole")
    models.in_parts(hub.repositories[NAME], 3)
    hub.commit = "a" * 40
    parts = prepare(URI, tmp_path / "parts")
    assert len([name for name in hub.downloads() if name.startswith("model-")]) == 3
    assert parts.graphs["fp32"].digest == whole.graphs["fp32"].digest


def test_a_published_graph_is_fetched_where_there_are_no_weights(hub: Hub, tmp_path: Path) -> None:
    root = hub.repositories[NAME]
    prepare(f"file://{root}", tmp_path / "made")
    (root / "model.safetensors").unlink()
    for file in (tmp_path / "made").glob("model.onnx*"):
        file.rename(root / "onnx" / file.name)
    assert prepare(URI, tmp_path / "out").recipe.graph == "published"
    assert {name for name in hub.downloads() if "onnx" in name} == {"onnx/model.onnx", "onnx/model.onnx.data"}


def test_the_token_opens_what_is_closed(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.token = "hf_right"
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    said = refusal(["model", "prepare", URI, "--out", str(tmp_path / "out")], capsys)
    assert "knows no such model, or hides it: check the name, or give a token" in said
    assert "HF_TOKEN, in a RAGService spec.huggingFace.tokenSecretRef" in said
    assert "hf_wrong" not in said
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    assert prepare(URI, tmp_path / "out").revision == COMMIT


def gate(hub: Hub) -> None:
    hub.gated = True


def cut(hub: Hub) -> None:
    hub.cut["model.safetensors"] = 1000


def damage(hub: Hub) -> None:
    hub.damaged.add("model.safetensors")


def down(hub: Hub) -> None:
    hub.status = 503


def forbid(hub: Hub) -> None:
    hub.status = 403


def another(hub: Hub) -> None:
    path = hub.repositories[NAME] / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "architectures": ["LlamaForCausalLM"]}))


def no_tokenizer(hub: Hub) -> None:
    (hub.repositories[NAME] / "tokenizer.json").unlink()


def no_weights(hub: Hub) -> None:
    (hub.repositories[NAME] / "model.safetensors").unlink()


def corrupt(hub: Hub) -> None:
    path = hub.repositories[NAME] / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-500])


FAULTS: dict[str, tuple[Callable[[Hub], None], str]] = {
    "gated": (gate, "accept their terms: do so on its page, then give a token"),
    "forbidden": (forbid, "refuses it (403): give a token"),
    "down": (down, "answered 503: try again later"),
    "another architecture": (another, "LlamaForCausalLM cannot be served"),
    "no tokenizer": (no_tokenizer, "tokenizer.json is missing"),
    "no weights": (no_weights, "neither model.safetensors nor model.onnx is there"),
    "damaged on the way": (damage, "model.safetensors arrived damaged or cut short"),
    "published broken": (corrupt, "are they complete?"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_a_fault_gives_one_clear_line(case: str, hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    breaking, message = FAULTS[case]
    breaking(hub)
    said = refusal(["model", "prepare", URI, "--out", str(tmp_path / "out")], capsys)
    assert message in said
    assert URI in said
    assert not (tmp_path / "out").exists()
    if case in {"another architecture", "no tokenizer", "no weights"}:
        assert "model.safetensors" not in hub.downloads()


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("hf://someone/other", "knows no such model, or hides it"),
        (f"{URI}@nowhere", "there is no such revision"),
        ("hf://a/b/c", "names no model of the hub"),
        ("hf://../etc", "names no model of the hub"),
    ],
)
def test_a_name_that_leads_nowhere(
    uri: str, message: str, hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in refusal(["model", "prepare", uri, "--out", str(tmp_path / "out")], capsys)


def test_no_network(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    said = refusal(["model", "prepare", URI, "--out", str(tmp_path / "out")], capsys)
    assert "the connection to http://127.0.0.1:9 failed" in said


def test_a_download_that_breaks_off_is_taken_up_again(hub: Hub, tmp_path: Path) -> None:
    cut(hub)
    hub.cuts = 1
    assert prepare(URI, tmp_path / "out").revision == COMMIT
    assert hub.downloads().count("model.safetensors") == 2


def test_a_server_that_never_ends_is_given_up(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(client, "ANSWER", 0.1)
    monkeypatch.setattr(client, "SLOWEST", 1e6)
    hub.trickle = 0.05
    said = refusal(["model", "prepare", URI, "--out", str(tmp_path / "out")], capsys)
    assert "too slow" in said


def test_a_truncated_file_is_given_up_and_the_next_run_fetches_only_that(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut(hub)
    said = refusal(["model", "prepare", URI, "--out", str(tmp_path / "out")], capsys)
    assert "peer closed connection without sending complete message body (received 1000 bytes" in said
    hub.cut.clear()
    hub.requests.clear()
    prepare(URI, tmp_path / "out")
    assert hub.downloads() == ["model.safetensors"]


def test_no_room(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rag_service.models.hub.shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(ModelError, match=r"no disk space: its files need 0 MB, .* has 0 MB left"):
        prepare(URI, tmp_path / "out")
