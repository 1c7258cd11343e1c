"""Static int8: made by the real quantiser, judged, kept or not, and run by both runtimes."""

from pathlib import Path

import numpy as np
import pytest

from rag_service.contract.settings import BackendName, FidelityGate
from rag_service.engine import rankers
from rag_service.engine.backends import Variant
from rag_service.engine.pending import padded
from rag_service.models import manifest, quantise
from rag_service.models.prepare import find, prepare
from tests import models

pytestmark = pytest.mark.process  # the quantiser alone takes seconds to import


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantise, "SAMPLES", 16)
    monkeypatch.setattr(quantise, "QUERIES", 20)
    monkeypatch.setattr(quantise, "_GATE", FidelityGate(tau=0.5, top10=0.5))


def test_an_int8_graph_that_is_near_enough_is_kept_and_run_by_both_runtimes(tmp_path: Path) -> None:
    uri = f"file://{models.cross_encoder(tmp_path / 'model', seed=7)}"
    made = prepare(uri, tmp_path / "out", ("fp32", "int8"))
    graph = made.graphs["int8"]
    assert graph.fidelity
    assert graph.fidelity.queries == 20
    assert graph.fidelity.batch_delta <= 0.01
    assert (tmp_path / "out" / graph.file).stat().st_size > 0
    assert made.fingerprint("int8", "onnxruntime") != made.fingerprint("fp32", "onnxruntime")

    texts = [f"{'abc ' * number} word" for number in range(1, 12)]
    scores: dict[BackendName, np.ndarray] = {}
    for backend in ("onnxruntime", "openvino"):
        ranker = rankers.load(*find(f"file://{tmp_path / 'out'}"), Variant(backend, "int8"))
        inputs = [one._replace(ids=one.ids[:16], types=one.types[:16]) for one in ranker.encode("query", texts)]
        together = ranker.backend.run(inputs, 16)
        alone = np.concatenate([ranker.backend.run([one], 16) for one in inputs])
        assert np.abs(together - alone).max() <= 0.01 * together.std()
        scores[backend] = together
    exact = rankers.load(tmp_path / "out", made)
    wanted = np.concatenate([exact.backend.run([one], padded(len(one.ids))) for one in exact.encode("query", texts)])
    for found in scores.values():
        assert found.shape == wanted.shape
    assert np.corrcoef(scores["onnxruntime"][:, 0], scores["openvino"][:, 0])[0, 1] > 0.99


def test_an_int8_graph_that_is_too_far_off_is_not_kept_and_not_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(quantise, "_GATE", FidelityGate(tau=1))
    uri = f"file://{models.bi_encoder(tmp_path / 'model', seed=7, family='Roberta')}"
    made = prepare(uri, tmp_path / "out", ("fp32", "int8"))
    assert list(made.graphs) == ["fp32"]
    assert made.refused["int8"].fidelity
    assert not list((tmp_path / "out").glob("int8*"))
    assert "int8 is not kept, its scores are too far from those of fp32: tau" in caplog.text
    assert manifest.read(tmp_path / "out") == made
    written = (tmp_path / "out" / manifest.FILE).stat().st_mtime_ns
    assert prepare(uri, tmp_path / "out", ("fp32", "int8")) == made
    assert (tmp_path / "out" / manifest.FILE).stat().st_mtime_ns == written
