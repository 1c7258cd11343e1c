"""How a need becomes the bounds of a HorizontalPodAutoscaler."""

from hypothesis import given
from hypothesis import strategies as st

from rag_operator.api.v1alpha1 import Scaling
from rag_operator.scaling import actuate


def test_with_resource_metrics_the_need_is_the_minimum_and_cpu_may_add() -> None:
    bounds = actuate.bounds(4, Scaling(min_replicas=1, max_replicas=10), resource_metrics=True)
    assert (bounds.min, bounds.max, bounds.cpu_target) == (4, 10, True)


def test_without_them_the_need_is_both_bounds() -> None:
    bounds = actuate.bounds(4, Scaling(min_replicas=1, max_replicas=10), resource_metrics=False)
    assert (bounds.min, bounds.max, bounds.cpu_target) == (4, 4, False)


@given(st.integers(1, 1000), st.integers(1, 1000), st.booleans())
def test_the_minimum_is_the_need_and_never_above_the_maximum(need: int, most: int, works: bool) -> None:
    bounds = actuate.bounds(need, Scaling(min_replicas=1, max_replicas=most), resource_metrics=works)
    assert bounds.min == need <= bounds.max
