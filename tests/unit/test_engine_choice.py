"""Which variant serves: what can be tried, and what the measurements of the trials lead to."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_service.contract.settings import FidelityGate
from rag_service.engine import choice
from rag_service.engine.backends import REFERENCE, Variant
from rag_service.engine.choice import Host, Measurement, Row, Verdict
from rag_service.models import ModelError
from rag_service.models.manifest import Fidelity, Graph, Manifest, Recipe

GATE = FidelityGate()
OPENVINO_FP32, BF16, INT8 = (Variant("openvino", precision) for precision in ("fp32", "bf16", "int8"))
TORCH = Variant("sentence-transformers", "fp32")
EVERYTHING = Host(
    installed=frozenset(("onnxruntime", "openvino", "sentence-transformers")),
    bf16=True,
    gpu=False,
    cpu="a CPU",
    versions={},
)


def manifest(*graphs: str, tau: float = 0.95, top10: float = 0.97, delta: float = 0) -> Manifest:
    fidelity = Fidelity(queries=200, tau=tau, top10=top10, batch_delta=delta)
    made = {name: Graph(file=f"{name}.onnx", digest=name, maker="a test") for name in graphs}
    if "int8" in made:
        made["int8"] = made["int8"].model_copy(update={"fidelity": fidelity})
    recipe = Recipe(kind="cross-encoder", weights="w", config="c", tokenizer="t", max_tokens=128, graph="g")
    return Manifest.model_validate({"uri": "file:///m", "recipe": recipe, "graphs": made})


def possible(model: Manifest, source: bool = False, host: Host = EVERYTHING, **settings: Any) -> set[str]:
    known = choice.variants(model, source, host, GATE)
    return {
        str(variant)
        for variant in choice.wanted(known, settings.get("backend", "auto"), settings.get("precision", "auto"))
    }


def test_what_can_be_tried_is_what_is_installed_and_has_a_graph() -> None:
    assert possible(manifest("fp32")) == {"onnxruntime fp32", "openvino fp32", "openvino bf16"}
    assert possible(manifest("fp32", "int8")) == {
        *("onnxruntime fp32", "onnxruntime int8", "openvino fp32", "openvino bf16", "openvino int8")
    }
    lean = EVERYTHING.model_copy(update={"installed": frozenset(["onnxruntime"])})
    assert possible(manifest("fp32"), host=lean) == {"onnxruntime fp32"}


def test_bf16_is_tried_only_where_the_cpu_has_it() -> None:
    old = EVERYTHING.model_copy(update={"bf16": False})
    assert possible(manifest("fp32"), host=old) == {"onnxruntime fp32", "openvino fp32"}
    with pytest.raises(ModelError, match="nothing can run it: openvino bf16: the CPU has no instructions for it"):
        possible(manifest("fp32"), host=old, backend="openvino", precision="bf16")


def test_sentence_transformers_is_for_gpus_and_for_what_has_no_graph() -> None:
    assert possible(manifest(), source=True) == {"sentence-transformers fp32", "sentence-transformers bf16"}
    assert "sentence-transformers fp32" not in possible(manifest("fp32"), source=True)
    gpu = EVERYTHING.model_copy(update={"gpu": True})
    assert "sentence-transformers bf16" in possible(manifest("fp32"), source=True, host=gpu)
    assert "sentence-transformers bf16" not in possible(manifest("fp32"), host=gpu)


def test_settings_narrow_what_is_tried() -> None:
    both = manifest("fp32", "int8")
    assert possible(both, backend="openvino") == {"openvino fp32", "openvino bf16", "openvino int8"}
    assert possible(both, precision="int8") == {"onnxruntime int8", "openvino int8"}
    with pytest.raises(ModelError, match="nothing can run it: onnxruntime has no bf16"):
        possible(both, backend="onnxruntime", precision="bf16")
    with pytest.raises(ModelError, match="nothing can run it: openvino int8: there is no int8 graph"):
        possible(manifest("fp32"), backend="openvino", precision="int8")


@pytest.mark.parametrize("far", [{"tau": 0.92}, {"top10": 0.94}, {"delta": 0.02}])
def test_a_graph_that_was_too_far_off_when_it_was_made_is_not_tried(far: dict[str, float]) -> None:
    assert possible(manifest("fp32", "int8")) - possible(manifest("fp32", "int8", **far)) == {
        *("onnxruntime int8", "openvino int8")
    }


SCORES = tuple(tuple(float(query * 31 + document * 7 % 16) for document in range(16)) for query in range(8))


BEST_SWAPPED = tuple(tuple(score + {max(one): -1, max(one) - 1: 1}.get(score, 0) for score in one) for one in SCORES)


def measured(speed: float, scores: Any = SCORES, again: Any = None) -> Measurement:
    return Measurement(scores=scores, again=scores[:2] if again is None else again, speed=speed)


def judged(trials: dict[Variant, Measurement | str], **more: Any) -> Verdict:
    verdict = choice.judge(trials, more.pop("gate", GATE), **more)
    assert verdict is not None
    return verdict


def serving(verdict: Verdict) -> Variant | None:
    """What serves where settings allow everything."""
    return verdict.best({row.variant for row in verdict.rows})


def row(verdict: Verdict, variant: Variant) -> Row:
    (found,) = (one for one in verdict.rows if one.variant == variant)
    return found


def reversed_in(queries: int) -> tuple[tuple[float, ...], ...]:
    """Scores that rank the documents of so many queries the other way round."""
    return tuple(tuple(-score for score in one) if at < queries else one for at, one in enumerate(SCORES))


def test_the_fastest_that_passes_serves() -> None:
    verdict = judged({REFERENCE: measured(60), OPENVINO_FP32: measured(61), BF16: measured(200)})
    assert serving(verdict) == BF16
    assert row(verdict, BF16).tau == row(verdict, BF16).top10 == 1
    assert [one.fault for one in verdict.rows] == [None] * 3


def test_of_speeds_that_a_trial_cannot_tell_apart_the_nearest_to_the_reference_serves() -> None:
    for speed, serves in ((215, BF16), (225, INT8)):
        verdict = judged({REFERENCE: measured(60), BF16: measured(200), INT8: measured(speed, BEST_SWAPPED)})
        assert serving(verdict) == serves


def test_a_fast_one_that_ranks_otherwise_does_not_serve() -> None:
    verdict = judged({REFERENCE: measured(60), INT8: measured(900, reversed_in(8)), BF16: measured(200)})
    assert serving(verdict) == BF16
    assert row(verdict, INT8).tau == -1
    assert row(verdict, INT8).fault == "tau below 0.93"


def test_what_chance_explains_is_not_held_against_a_variant() -> None:
    """One of eight queries says little about the mean of all, eight of eight say much."""
    noisy = SCORES[0][:-2] + SCORES[0][-2:][::-1]
    verdict = judged({REFERENCE: measured(60), BF16: measured(200, (noisy, *SCORES[1:]))}, gate=FidelityGate(tau=0.999))
    assert serving(verdict) == BF16
    every = tuple(one[:-2] + one[-2:][::-1] for one in SCORES)
    verdict = judged({REFERENCE: measured(60), BF16: measured(200, every)}, gate=FidelityGate(tau=0.999))
    assert serving(verdict) == REFERENCE


def test_scores_that_depend_on_the_batch_do_not_serve() -> None:
    spread = (sum(score**2 for one in SCORES for score in one) / 128 - (sum(map(sum, SCORES)) / 128) ** 2) ** 0.5
    for share, serves in ((0.009, BF16), (0.011, REFERENCE)):
        moved = ((SCORES[0][0] + share * spread, *SCORES[0][1:]), SCORES[1])
        verdict = judged({REFERENCE: measured(60), BF16: measured(200, again=moved)})
        assert serving(verdict) == serves
        assert row(verdict, BF16).batch_delta == pytest.approx(share)


def test_the_reference_serves_whatever_is_said_against_it() -> None:
    verdict = judged({REFERENCE: measured(60, again=((0.0,) * 16,) * 2), BF16: measured(200, reversed_in(8))})
    assert serving(verdict) == REFERENCE


def test_scores_that_are_no_numbers_do_not_serve() -> None:
    bad = ((math.nan, *SCORES[0][1:]), *SCORES[1:])
    verdict = judged({REFERENCE: measured(60), BF16: measured(200, bad)})
    assert serving(verdict) == REFERENCE
    assert row(verdict, BF16).fault == "gave something that is no score"


def test_where_it_is_known_what_is_relevant_a_loss_of_ndcg_counts() -> None:
    gains = [[1.0 if score == max(one) else 0.0 for score in one] for one in SCORES]
    assert serving(judged({REFERENCE: measured(60), BF16: measured(200, BEST_SWAPPED)})) == BF16
    verdict = judged({REFERENCE: measured(60), BF16: measured(200, BEST_SWAPPED)}, gains=gains)
    assert serving(verdict) == REFERENCE
    assert row(verdict, BF16).ndcg_loss == pytest.approx(1 - 1 / math.log2(3))


def test_what_failed_says_why_and_another_is_the_reference() -> None:
    verdict = judged({REFERENCE: "died of SIGILL", OPENVINO_FP32: measured(50), BF16: measured(200, reversed_in(8))})
    assert serving(verdict) == OPENVINO_FP32
    assert row(verdict, REFERENCE).fault == "died of SIGILL"
    assert choice.judge({REFERENCE: "died", BF16: measured(200)}, GATE) is None


def test_the_reference_is_tried_but_serves_only_if_it_may() -> None:
    trials: dict[Variant, Measurement | str] = {REFERENCE: measured(60), OPENVINO_FP32: measured(50)}
    assert judged(trials).best([OPENVINO_FP32]) == OPENVINO_FP32
    trials[OPENVINO_FP32] = measured(50, reversed_in(8))
    assert judged(trials).best([OPENVINO_FP32]) is None


def test_one_verdict_serves_whatever_settings_allow() -> None:
    verdict = judged({REFERENCE: measured(60), OPENVINO_FP32: measured(61), BF16: measured(200)})
    assert verdict.best([OPENVINO_FP32, BF16]) == BF16
    assert verdict.best([REFERENCE, OPENVINO_FP32]) == OPENVINO_FP32
    assert verdict.best([REFERENCE]) == REFERENCE
    assert verdict.best([INT8]) is None


def test_the_table_has_a_line_for_each_variant() -> None:
    verdict = judged({REFERENCE: measured(60), INT8: measured(900, reversed_in(8)), BF16: measured(200)})
    lines = choice.table(verdict, BF16, [Row(variant=TORCH, fault="is not installed")]).splitlines()
    assert [line.split("  ")[0] for line in lines[1:]] == [str(one) for one in (INT8, BF16, REFERENCE, TORCH)]
    assert lines[1].endswith("tau below 0.93")
    assert lines[2].endswith("200  1.000  1.000 0.000000  serves")
    assert lines[4].endswith("-  is not installed")


@given(
    st.dictionaries(
        st.sampled_from([REFERENCE, OPENVINO_FP32, BF16, INT8, TORCH]),
        st.one_of(
            st.just("died"),
            st.builds(measured, st.floats(1, 1000), st.sampled_from([reversed_in(n) for n in (0, 1, 4, 8)])),
        ),
        min_size=1,
    )
)
def test_of_any_measurements_none_that_passed_is_clearly_faster_than_what_serves(
    trials: dict[Variant, Measurement | str],
) -> None:
    verdict = choice.judge(trials, GATE)
    if verdict is None:
        assert all(isinstance(trials.get(variant, ""), str) for variant in choice.REFERENCES)
        return
    assert Verdict.model_validate_json(verdict.model_dump_json(by_alias=True)) == verdict
    best = serving(verdict)
    assert best
    speed = row(verdict, best).speed
    assert speed
    assert all(one.fault or (one.speed or 0) <= speed * choice.LEVEL for one in verdict.rows)
    assert {one.variant for one in verdict.rows} == set(trials)
