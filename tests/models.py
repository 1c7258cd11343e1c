"""Tiny BERT models with reproducible random weights, in the files that a model hub would give.

They cost milliseconds and a few hundred kilobytes, and take the whole way of a real one: tokenizer, export, runtime.
Every letter is a token, so a text's length is its number of letters.
"""

import json
import string
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
HIDDEN, LAYERS, HEADS, POSITIONS = 32, 2, 4, 128

# What the configurations of BERT's kin say otherwise.
FAMILIES: dict[str, dict[str, Any]] = {
    "Bert": {},
    "Roberta": {"model_type": "roberta", "type_vocab_size": 1, "pad_token_id": 1},
    "XLMRoberta": {"model_type": "xlm-roberta", "type_vocab_size": 1, "pad_token_id": 1},
    "Electra": {"model_type": "electra", "embedding_size": HIDDEN // 2},
    "DistilBert": {
        "model_type": "distilbert",
        "dim": HIDDEN,
        "hidden_dim": 2 * HIDDEN,
        "n_layers": LAYERS,
        "n_heads": HEADS,
        "activation": "gelu",
    },
}
_DISTIL = {
    "encoder.layer.": "transformer.layer.",
    "attention.self.query": "attention.q_lin",
    "attention.self.key": "attention.k_lin",
    "attention.self.value": "attention.v_lin",
    "attention.output.dense": "attention.out_lin",
    "attention.output.LayerNorm": "sa_layer_norm",
    "intermediate.dense": "ffn.lin1",
    "output.dense": "ffn.lin2",
    "output.LayerNorm": "output_layer_norm",
    "pooler.dense": "pre_classifier",
}


def cross_encoder(directory: Path, seed: int = 0, family: str = "Bert", **config: Any) -> Path:
    """Write a model that gives one logit for a pair of texts."""
    return _write(directory, f"{family}ForSequenceClassification", seed, config)


def bi_encoder(directory: Path, seed: int = 0, family: str = "Bert", **config: Any) -> Path:
    """Write a model that embeds one text at a time; the mean of its tokens is the text's embedding."""
    return _write(directory, f"{family}Model", seed, config)


def _write(directory: Path, architecture: str, seed: int, config: dict[str, Any]) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    family = architecture.removesuffix("ForSequenceClassification").removesuffix("Model")
    vocabulary = [*SPECIAL, *(prefix + letter for prefix in ("", "##") for letter in string.ascii_lowercase)]
    (directory / "config.json").write_text(
        json.dumps(
            {
                "architectures": [architecture],
                "model_type": "bert",
                "hidden_act": "gelu",
                "hidden_size": HIDDEN,
                "intermediate_size": 2 * HIDDEN,
                "num_hidden_layers": LAYERS,
                "num_attention_heads": HEADS,
                "max_position_embeddings": POSITIONS,
                "type_vocab_size": 2,
                "vocab_size": len(vocabulary),
                "layer_norm_eps": 1e-12,
                "id2label": {"0": "LABEL_0"},
                **FAMILIES[family],
                **config,
            }
        )
    )
    tokenizer(vocabulary).save(str(directory / "tokenizer.json"))
    bert = weights(architecture.replace(family, "Bert"), len(vocabulary), seed)
    save_file(_in_family(family, bert), directory / "model.safetensors")
    return directory


def tokenizer(vocabulary: list[str]) -> Tokenizer:
    """BERT's tokenizer over this vocabulary."""
    made = Tokenizer(models.WordPiece({token: number for number, token in enumerate(vocabulary)}, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, vocabulary.index(token)) for token in ("[CLS]", "[SEP]")],
    )
    made.add_special_tokens(list(SPECIAL))
    return made


def weights(architecture: str, vocabulary: int, seed: int) -> dict[str, np.ndarray]:
    """The state dict. `RandomState`, unlike newer generators, promises the same numbers in every version of numpy."""
    random = np.random.RandomState(seed)

    def tensor(*shape: int, scale: float = 0.25) -> np.ndarray:
        return (random.standard_normal(shape) * scale).astype(np.float32)

    def linear(name: str, outputs: int, inputs: int) -> dict[str, np.ndarray]:
        return {f"{name}.weight": tensor(outputs, inputs), f"{name}.bias": tensor(outputs)}

    def norm(name: str) -> dict[str, np.ndarray]:
        return {f"{name}.weight": 1 + tensor(HIDDEN), f"{name}.bias": tensor(HIDDEN)}

    encoder = {
        "embeddings.word_embeddings.weight": tensor(vocabulary, HIDDEN, scale=1),
        "embeddings.position_embeddings.weight": tensor(POSITIONS, HIDDEN),
        "embeddings.token_type_embeddings.weight": tensor(2, HIDDEN),
        **norm("embeddings.LayerNorm"),
    }
    for number in range(LAYERS):
        layer = f"encoder.layer.{number}"
        for part in ("query", "key", "value"):
            encoder |= linear(f"{layer}.attention.self.{part}", HIDDEN, HIDDEN)
        encoder |= linear(f"{layer}.attention.output.dense", HIDDEN, HIDDEN)
        encoder |= norm(f"{layer}.attention.output.LayerNorm")
        encoder |= linear(f"{layer}.intermediate.dense", 2 * HIDDEN, HIDDEN)
        encoder |= linear(f"{layer}.output.dense", HIDDEN, 2 * HIDDEN)
        encoder |= norm(f"{layer}.output.LayerNorm")
    if architecture == "BertModel":
        return encoder
    encoder |= linear("pooler.dense", HIDDEN, HIDDEN)
    return {f"bert.{name}": value for name, value in encoder.items()} | linear("classifier", 1, HIDDEN)


def _in_family(family: str, bert: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The weights of a BERT under the names of another family, and in its shapes."""
    if family == "Bert":
        return bert
    names = _DISTIL if family == "DistilBert" else {"classifier.": "classifier.out_proj.", "pooler.": "classifier."}
    prefix = f"{family.removeprefix('XLM').lower()}." if "bert.embeddings.LayerNorm.bias" in bert else ""
    made = {}
    for name, tensor in bert.items():
        renamed = name.removeprefix("bert.")
        inside = renamed.startswith(("embeddings.", "encoder."))
        for old, new in names.items():
            renamed = renamed.replace(old, new)
        made[prefix + renamed if inside else renamed] = tensor
    embeddings = f"{prefix}embeddings"
    types = made.pop(f"{embeddings}.token_type_embeddings.weight")
    if family != "DistilBert":
        made[f"{embeddings}.token_type_embeddings.weight"] = types if family == "Electra" else types[:1]
    if family == "Electra":
        for name in [name for name in made if name.startswith(embeddings)]:
            made[name] = np.ascontiguousarray(made[name][..., : HIDDEN // 2])
        random = np.random.RandomState(0)
        made[f"{embeddings}_project.weight"] = random.standard_normal((HIDDEN, HIDDEN // 2)).astype(np.float32)
        made[f"{embeddings}_project.bias"] = random.standard_normal(HIDDEN).astype(np.float32)
    return made


def in_parts(directory: Path, parts: int) -> None:
    """Publish the weights of a model in several files."""
    whole = load_file(directory / "model.safetensors")
    names = sorted(whole)
    for number in range(parts):
        part = {name: whole[name] for name in names[number::parts]}
        save_file(part, directory / f"model-{number + 1:05}-of-{parts:05}.safetensors")
    (directory / "model.safetensors").unlink()
