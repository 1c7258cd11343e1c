"""Static int8: every activation's scale is fixed here, once, so that a score cannot depend on what shares its batch.

NNCF's post-training quantisation with SmoothQuant (Xiao et al., "SmoothQuant: Accurate and Efficient Post-Training
Quantization for Large Language Models", 2023) on the ONNX graph, so that every backend runs the same file.
"""

import contextlib
import importlib.metadata
import io
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from numpy.typing import NDArray

from rag_service.contract.settings import FidelityGate
from rag_service.engine.backends import graph
from rag_service.engine.pending import padded
from rag_service.engine.tokens import Tokeniser
from rag_service.models import ModelError, calibration, fidelity
from rag_service.models.manifest import Fidelity, Kind

SAMPLES = 256  # texts to learn scales from; with half of them tau was .005 lower
SMOOTH = 0.95  # how much of an activation's range SmoothQuant moves into the weights; less was worse
QUERIES, DOCUMENTS = 200, 20  # to judge by: fifty queries cannot tell a tau of .94 from one of .95
BATCH, AGAIN = 512, 10  # padded tokens in a batch; queries whose pairs are scored once more, each alone

_GATE = FidelityGate()

Spared = Literal["nothing", "sensitive"]
"""What of a graph's layers stays in 32-bit floats: the second way is slower than the first, and nearer to fp32."""
SPARED: tuple[Spared, ...] = ("nothing", "sensitive")
_HEAD = re.compile(r"(?:pooler|classifier|pre_classifier)\.")
_LAST = re.compile(r"(?<!attention)\.output\.dense\.matrix$")

Rows = NDArray[np.float64]


def maker(spared: Spared = "nothing") -> str:
    """Names what this module does to a graph, and with which version of its library."""
    made = f"static-int8-2 smooth={SMOOTH} samples={SAMPLES} nncf={importlib.metadata.version('nncf')}"
    return made if spared == "nothing" else f"{made} spared={spared}"


def quantise(path: Path, tokeniser: Tokeniser, kind: Kind, out: Path, spared: Spared) -> None:
    """Write the int8 form of a graph, its large tensors beside it in `<out>.data`. Raises ModelError."""
    import nncf  # noqa: PLC0415 (takes seconds, and few environments have it)

    pairs = calibration.pairs("learn", SAMPLES)
    texts = pairs if kind == "cross-encoder" else [document for _, document in pairs]
    model = onnx.load(str(path))
    inputs = {given.name for given in model.graph.input}
    left = nncf.IgnoredScope(names=_spared(model.graph, spared))
    feeds = [
        {
            name: value
            for name, value in graph.pad([one], padded(len(one.ids), tokeniser.limit)).items()
            if name in inputs
        }
        for read in tokeniser(texts)
        for one in read.inputs
    ]
    logging.getLogger("nncf").setLevel(logging.ERROR)  # its own way to say so silences everybody
    smooth = nncf.AdvancedSmoothQuantParameters(matmul=SMOOTH)
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # progress bars
            made = nncf.quantize(
                model,
                nncf.Dataset(feeds),
                preset=nncf.QuantizationPreset.MIXED,
                model_type=nncf.ModelType.TRANSFORMER,
                subset_size=len(feeds),
                fast_bias_correction=True,
                ignored_scope=left,
                advanced_parameters=nncf.AdvancedQuantizationParameters(smooth_quant_alphas=smooth),
            )
    except Exception as error:  # as many kinds as a published graph can be odd
        raise ModelError(f"{path} cannot be quantised: {str(error).strip().partition(chr(10))[0]}") from error
    onnx.save_model(made, str(out), save_as_external_data=True, location=f"{out.name}.data", size_threshold=1024)


def _spared(made: onnx.GraphProto, spared: Spared) -> list[str]:
    """Names of the products that stay as they are.

    Always a cross-encoder's head: it reads one token a pair, so it costs nothing, and rounding it moves every score.
    """
    constants = {tensor.name for tensor in made.initializer}
    for node in made.node:
        node.name = node.name or node.output[0]
    products = [node for node in made.node if node.op_type == "MatMul"]
    found = [node.name for node in products if _HEAD.match(node.input[1])]
    if spared == "sensitive":  # attention's own products, of two activations, and each layer's last
        found += [node.name for node in products if constants.isdisjoint(node.input) or _LAST.search(node.input[1])]
    return found


class Judge:
    """Compares graphs' scores with those of the fp32 graph.

    On this CPU and one runtime: what others make of a graph is for the trial to tell, on fewer queries.
    """

    def __init__(self, reference: Path, tokeniser: Tokeniser, kind: Kind) -> None:
        self._tokeniser = tokeniser
        self._kind = kind
        self._requests = calibration.requests("judge", QUERIES, DOCUMENTS)
        self._wanted = _scores(_Runner(reference), tokeniser, kind, self._requests, BATCH)

    def __call__(self, path: Path) -> Fidelity:
        """How near a graph comes."""
        runner = _Runner(path)
        found = _scores(runner, self._tokeniser, self._kind, self._requests, BATCH)
        again = _scores(runner, self._tokeniser, self._kind, self._requests[:AGAIN], batch=1)
        return Fidelity(
            queries=QUERIES,
            tau=round(fidelity.tau(self._wanted, found), 4),
            top10=round(fidelity.top10(self._wanted, found), 4),
            batch_delta=round(fidelity.delta(found[:AGAIN], again), 5),
        )


def passes(found: Fidelity) -> bool:
    """Whether a graph is near enough to be served."""
    return found.tau >= _GATE.tau and found.top10 >= _GATE.top10 and found.batch_delta <= _GATE.batch_delta


def _scores(
    runner: "_Runner", tokeniser: Tokeniser, kind: Kind, requests: Sequence[calibration.Request], batch: int
) -> fidelity.Scores:
    """Shape: [queries, documents]."""
    if kind == "cross-encoder":
        pairs = [(request.query, document) for request in requests for document in request.documents]
        return runner(tokeniser, pairs, batch)[:, 0].reshape(len(requests), -1)
    texts = list(dict.fromkeys(text for request in requests for text in (request.query, *request.documents)))
    place = {text: number for number, text in enumerate(texts)}
    rows = runner(tokeniser, texts, batch)
    return np.array([rows[[place[text] for text in one.documents]] @ rows[place[one.query]] for one in requests])


class _Runner:
    """Computes a graph on all CPUs."""

    def __init__(self, path: Path) -> None:
        import onnxruntime  # noqa: PLC0415 (whoever only writes a graph does without it)

        options = onnxruntime.SessionOptions()
        options.enable_mem_pattern = False  # it plans memory for one shape; every length is another
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._inputs = [given.name for given in self._session.get_inputs()]
        self._output = graph.output(path, [given.name for given in self._session.get_outputs()])

    def __call__(self, tokeniser: Tokeniser, texts: Sequence[str] | Sequence[tuple[str, str]], budget: int) -> Rows:
        """One row a text or pair of texts. Batches hold `budget` padded tokens, or one input."""
        tokens = [one for read in tokeniser(texts) for one in read.inputs]
        lengths: dict[int, list[int]] = {}
        for number, one in enumerate(tokens):
            lengths.setdefault(padded(len(one.ids), tokeniser.limit), []).append(number)
        rows: dict[int, NDArray[np.float32]] = {}
        for length, numbers in lengths.items():
            size = max(1, budget // length)
            for start in range(0, len(numbers), size):
                batch = numbers[start : start + size]
                given = graph.pad([tokens[number] for number in batch], length)
                (found,) = self._session.run([self._output], {name: given[name] for name in self._inputs})
                rows.update(zip(batch, found, strict=True))
        return np.array([rows[number] for number in range(len(tokens))], np.float64)
