"""BERT and its kin as ONNX graphs, written from their weights: no torch takes part.

The encoder is that of Devlin et al., "BERT: Pre-training of Deep Bidirectional Transformers" (2019), as Hugging
Face's `modeling_bert` computes it. Two liberties that change no more than rounding: query, key and value are one
product, and attention's 1/sqrt(d) is multiplied into the query's weights. RoBERTa, XLM-RoBERTa, ELECTRA and DistilBERT
differ from it in the names of their weights, in their first layer and in their last.

Inputs `input_ids`, `attention_mask` and, of those that tell two texts apart, `token_type_ids`: int64 [batch, length],
with padding behind the tokens. Output of a cross-encoder `logits`:
float32 [batch, 1]; of a bi-encoder `sentence_embedding`: float32 [batch, hidden], of length one.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from pydantic import BaseModel, PositiveFloat, PositiveInt, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from rag_service.models import ModelError
from rag_service.models.manifest import Kind
from rag_service.models.source import CONFIG, Pooling, Source

OPSET, IR = 20, 9  # the first with Gelu, and the format that goes with it: ONNX Runtime 1.17 and newer read both
INPUTS = ("input_ids", "attention_mask", "token_type_ids")


class _Family(NamedTuple):
    """How a kind of model differs from BERT."""

    prefix: str  # of its encoder's weights, in a model with a head
    types: bool  # whether an embedding tells the first text from the second
    skipped: int  # rows of the table of positions before the first token's
    head: tuple[str, str, str]  # of a cross-encoder: its inner layer, that one's activation, its last layer


def _family(name: str, config: Mapping[str, Any]) -> _Family:
    """The family of models of a configuration's `model_type`."""
    match name:
        case "roberta" | "xlm-roberta":
            # Positions are counted from behind the padding's number.
            padding = config.get("pad_token_id")
            skipped = 1 + (1 if padding is None else int(padding))
            return _Family("roberta.", False, skipped, ("classifier.dense", "Tanh", "classifier.out_proj"))
        case "electra":
            return _Family("electra.", True, 0, ("classifier.dense", "Gelu", "classifier.out_proj"))
        case "distilbert":
            return _Family("distilbert.", False, 0, ("pre_classifier", "Relu", "classifier"))
    return _Family("bert.", True, 0, ("pooler.dense", "Tanh", "classifier"))


# DistilBERT's names for what BERT has too: of the settings, and of the weights.
_SETTINGS = {
    "dim": "hidden_size",
    "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads",
    "activation": "hidden_act",
}
_PARTS = {
    "transformer.layer.": "encoder.layer.",
    ".attention.q_lin.": ".attention.self.query.",
    ".attention.k_lin.": ".attention.self.key.",
    ".attention.v_lin.": ".attention.self.value.",
    ".attention.out_lin.": ".attention.output.dense.",
    ".sa_layer_norm.": ".attention.output.LayerNorm.",
    ".ffn.lin1.": ".intermediate.dense.",
    ".ffn.lin2.": ".output.dense.",
    ".output_layer_norm.": ".output.LayerNorm.",
}

_ACTIVATIONS: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "gelu": ("Gelu", {"approximate": "none"}),
    "gelu_new": ("Gelu", {"approximate": "tanh"}),
    "gelu_pytorch_tanh": ("Gelu", {"approximate": "tanh"}),
    "relu": ("Relu", {}),
}
_MASKED = -1e9  # far enough below every logit that its exponential is exactly zero

Array = NDArray[np.float32]


class Config(BaseModel):
    """The part of `config.json` that shapes the graph."""

    hidden_size: PositiveInt
    num_hidden_layers: PositiveInt
    num_attention_heads: PositiveInt
    layer_norm_eps: PositiveFloat
    hidden_act: Literal["gelu", "gelu_new", "gelu_pytorch_tanh", "relu"]
    position_embedding_type: Literal["absolute"] = "absolute"


def export(source: Source, path: Path) -> None:
    """Write the graph, its large tensors beside it in `<path>.data`. Raises ModelError on weights that do not fit."""
    try:
        weights = {name: tensor for path in source.weights for name, tensor in load_file(path).items()}
    except (SafetensorError, OSError, TypeError, KeyError) as error:
        raise ModelError(
            f"{source.uri}: the weights in {source.directory} cannot be read, are they complete? ({error})"
        ) from error
    try:
        family = _family(str(source.config.get("model_type")), source.config)
        if family.prefix == "distilbert.":
            weights = {_renamed(name): tensor for name, tensor in weights.items()}
        graph = _Graph(_config(source.config), family, weights)
        model = graph.build(source.described.kind, source.described.pooling)
        # Tensors in a file of their own are mapped, not read: only those rows of the embedding table that are used
        # take memory.
        onnx.save_model(model, str(path), save_as_external_data=True, location=f"{path.name}.data", size_threshold=1024)
        onnx.checker.check_model(str(path), full_check=True)  # by its path, since large ones cannot be checked whole
    except ValidationError as error:
        said = "; ".join(f"{one['loc'][0]}: {one['msg']}" for one in error.errors(include_url=False))
        raise ModelError(f"{source.uri}: {CONFIG}: {said}") from error
    except KeyError as error:
        raise ModelError(f"{source.uri}: the weights lack {error}") from error
    except (ValueError, onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ModelError(f"{source.uri}: the weights do not fit: {str(error).splitlines()[0]}") from error
    tokens, rows = Tokenizer.from_file(str(source.tokenizer)).get_vocab_size(), graph.vocabulary
    if tokens > rows:
        raise ModelError(f"{source.uri}: the tokenizer knows {tokens} tokens, the model only {rows}")


def _config(config: Mapping[str, Any]) -> Config:
    return Config.model_validate({"layer_norm_eps": 1e-12, **{_SETTINGS.get(key, key): config[key] for key in config}})


def _renamed(name: str) -> str:
    for theirs, ours in _PARTS.items():
        name = name.replace(theirs, ours)
    return name


class _Graph:
    """Collects nodes and constants; every method adds what it is named after and returns its output's name."""

    def __init__(self, config: Config, family: _Family, weights: Mapping[str, NDArray[Any]]) -> None:
        self._config = config
        self._family = family
        self._weights = {name.removeprefix(family.prefix): tensor for name, tensor in weights.items()}
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}
        self._hidden = config.hidden_size
        self._heads = config.num_attention_heads
        self.vocabulary = len(self._weights["embeddings.word_embeddings.weight"])

    def build(self, kind: Kind, pooling: Pooling) -> onnx.ModelProto:
        """The whole model."""
        hidden = self._embeddings()
        mask = self._node("Cast", "attention_mask", to=TensorProto.FLOAT)
        bias = self._node("Unsqueeze", mask, self._constant("axes_1_2", np.array([1, 2])))
        bias = self._node("Mul", self._node("Sub", self._number("one", 1), bias), self._number("masked", _MASKED))
        for layer in range(self._config.num_hidden_layers):
            hidden = self._layer(f"encoder.layer.{layer}", hidden, bias)
        if kind == "cross-encoder":
            name, output, width = "logits", self._logits(hidden), 1
        else:
            pooled = self._mean(hidden, mask) if pooling == "mean" else self._first(hidden)
            name, output, width = "sentence_embedding", self._direction(pooled), self._hidden
        self._nodes.append(helper.make_node("Identity", [output], [name]))
        inputs = INPUTS if self._family.types else INPUTS[:2]
        graph = helper.make_graph(
            self._nodes,
            "bert",
            [helper.make_tensor_value_info(given, TensorProto.INT64, ["batch", "length"]) for given in inputs],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", width])],
            list(self._constants.values()),
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)

    def _embeddings(self) -> str:
        rows = self._tensor("embeddings.position_embeddings.weight")[self._family.skipped :]
        table = self._constant("positions", rows)
        start = self._constant("start", np.array([0]))
        positions = self._node("Slice", table, start, self._node("Shape", "input_ids", start=1, end=2))
        hidden = self._node("Gather", self._weight("embeddings.word_embeddings.weight"), "input_ids")
        if self._family.types:
            types = self._node("Gather", self._weight("embeddings.token_type_embeddings.weight"), "token_type_ids")
            hidden = self._node("Add", hidden, types)
        elif "embeddings.token_type_embeddings.weight" in self._weights:
            hidden = self._node(
                "Add", hidden, self._constant("type", self._tensor("embeddings.token_type_embeddings.weight")[0])
            )
        hidden = self._norm("embeddings.LayerNorm", self._node("Add", hidden, positions))
        return self._linear("embeddings_project", hidden) if "embeddings_project.weight" in self._weights else hidden

    def _layer(self, name: str, hidden: str, bias: str) -> str:
        attended = self._attention(f"{name}.attention.self", hidden, bias)
        attended = self._linear(f"{name}.attention.output.dense", attended)
        hidden = self._norm(f"{name}.attention.output.LayerNorm", self._node("Add", attended, hidden))
        operator, attributes = _ACTIVATIONS[self._config.hidden_act]
        inner = self._node(operator, self._linear(f"{name}.intermediate.dense", hidden), **attributes)
        return self._norm(
            f"{name}.output.LayerNorm", self._node("Add", self._linear(f"{name}.output.dense", inner), hidden)
        )

    def _attention(self, name: str, hidden: str, bias: str) -> str:
        scale = 1 / math.sqrt(self._hidden // self._heads)
        matrices = [self._tensor(f"{name}.{part}.weight").T for part in ("query", "key", "value")]
        vectors = [self._tensor(f"{name}.{part}.bias") for part in ("query", "key", "value")]
        joined = self._affine(
            f"{name}.joined",
            hidden,
            np.concatenate([matrices[0] * scale, *matrices[1:]], axis=1),
            np.concatenate([vectors[0] * scale, *vectors[1:]]),
        )
        query, key, value = self._nodes_of("Split", 3, joined, axis=-1, num_outputs=3)
        split = self._constant("heads", np.array([0, 0, self._heads, self._hidden // self._heads]))
        query, value = (
            self._node("Transpose", self._node("Reshape", part, split), perm=[0, 2, 1, 3]) for part in (query, value)
        )
        key = self._node("Transpose", self._node("Reshape", key, split), perm=[0, 2, 3, 1])
        logits = self._node("Add", self._node("MatMul", query, key), bias)
        mixed = self._node("MatMul", self._node("Softmax", logits, axis=-1), value)
        join = self._constant("join", np.array([0, 0, self._hidden]))
        return self._node("Reshape", self._node("Transpose", mixed, perm=[0, 2, 1, 3]), join)

    def _logits(self, hidden: str) -> str:
        # The first token decides. The second is carried along because the runtime rounds a product with a single
        # row otherwise than one with several: a pair alone would score differently from the same pair in a batch.
        two, one, zero, axis = (
            self._constant(name, np.array([number]))
            for name, number in (("two", 2), ("one_index", 1), ("start", 0), ("axis_1", 1))
        )
        first = self._node("Slice", hidden, zero, two, axis)
        inner, activation, last = self._family.head
        pooled = self._node(activation, self._linear(inner, first))
        if (labels := self._tensor(f"{last}.weight").shape[0]) != 1:
            raise ValueError(f"a cross-encoder has one label, this model has {labels}")
        both = self._linear(last, pooled)
        return self._node("Squeeze", self._node("Slice", both, zero, one, axis), axis)

    def _mean(self, hidden: str, mask: str) -> str:
        # As a product per text, because the runtime's ReduceSum adds in another order when the batch holds one text.
        axis = self._constant("axis_1", np.array([1]))
        total = self._node("Squeeze", self._node("MatMul", self._node("Unsqueeze", mask, axis), hidden), axis)
        return self._node("Div", total, self._node("ReduceSum", mask, axis, keepdims=1))

    def _first(self, hidden: str) -> str:
        first = self._node("Gather", hidden, self._constant("start", np.array([0])), axis=1)
        return self._node("Squeeze", first, self._constant("axis_1", np.array([1])))

    def _direction(self, vector: str) -> str:
        axis = self._constant("axis_1", np.array([1]))
        norm = self._node("Max", self._node("ReduceL2", vector, axis, keepdims=1), self._number("tiny", 1e-12))
        return self._node("Div", vector, norm)

    def _norm(self, name: str, value: str) -> str:
        weight, bias = self._weight(f"{name}.weight"), self._weight(f"{name}.bias")
        return self._node("LayerNormalization", value, weight, bias, axis=-1, epsilon=self._config.layer_norm_eps)

    def _linear(self, name: str, value: str) -> str:
        return self._affine(name, value, self._tensor(f"{name}.weight").T, self._tensor(f"{name}.bias"))

    def _affine(self, name: str, value: str, matrix: Array, vector: Array) -> str:
        product = self._node("MatMul", value, self._constant(f"{name}.matrix", matrix))
        return self._node("Add", product, self._constant(f"{name}.vector", vector))

    def _tensor(self, name: str) -> Array:
        return self._weights[name].astype(np.float32)

    def _weight(self, name: str) -> str:
        return self._constant(name, self._tensor(name))

    def _number(self, name: str, value: float) -> str:
        return self._constant(name, np.array(value, np.float32))

    def _constant(self, name: str, value: NDArray[Any]) -> str:
        if name not in self._constants:
            self._constants[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)
        return name

    def _node(self, operator: str, *inputs: str, **attributes: Any) -> str:
        return self._nodes_of(operator, 1, *inputs, **attributes)[0]

    def _nodes_of(self, operator: str, count: int, *inputs: str, **attributes: Any) -> list[str]:
        outputs = [f"{operator}_{len(self._nodes)}_{number}" for number in range(count)]
        self._nodes.append(helper.make_node(operator, list(inputs), outputs, **attributes))
        return outputs
