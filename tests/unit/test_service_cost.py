"""What batches cost, learned from those that ran."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_service.engine.cost import FEWEST, MOST, Cost


def learned(fixed: float, per_token: float, batches: int = 300, seed: int = 1, noise: float = 0.0) -> Cost:
    random, cost = Random(seed), Cost()
    for _ in range(batches):
        tokens = random.choice((64, 128, 256, 500, 512, 1000))
        cost.learn(tokens, (fixed + per_token * tokens) * (1 + noise * random.uniform(-1, 1)))
    return cost


def test_before_the_first_measurement_nothing_is_known_but_a_budget() -> None:
    assert Cost().seconds(100) is None
    assert FEWEST < Cost().budget < MOST


@given(st.floats(1e-5, 1e-1), st.floats(1e-7, 1e-3))
def test_the_line_is_found(fixed: float, per_token: float) -> None:
    cost = learned(fixed, per_token)
    for tokens in (64, 512, 1000):
        assert cost.seconds(tokens) == pytest.approx(fixed + per_token * tokens, rel=0.2)


def test_a_backend_with_a_large_fixed_part_gets_large_batches_and_one_without_small_ones() -> None:
    budgets = [learned(fixed, 30e-6, noise=0.1).budget for fixed in (0.0, 0.6e-3, 2e-3, 50e-3)]
    assert budgets == sorted(budgets)
    assert budgets[0] == FEWEST
    assert 150 < budgets[1] < 330  # 20 tokens' worth: 220
    assert 550 < budgets[2] < 900  # 67 tokens' worth: 733
    assert budgets[3] == MOST


def test_of_batches_of_one_size_the_cost_is_known_and_the_prior_says_the_rest() -> None:
    cost = Cost()
    for _ in range(100):
        cost.learn(256, 0.01)
    assert cost.seconds(256) == pytest.approx(0.01, rel=0.01)
    assert cost.seconds(512) == pytest.approx(0.0185, rel=0.1)
    assert cost.budget == pytest.approx(Cost().budget, rel=0.1)


def test_batches_that_waited_for_their_cpu_do_not_decide() -> None:
    random, cost = Random(3), Cost()
    for _ in range(400):
        tokens = random.choice((128, 256, 512))
        held_up = random.random() < 0.05
        cost.learn(tokens, 1e-3 + 30e-6 * tokens + (0.5 if held_up else 0))
    assert cost.seconds(256) == pytest.approx(1e-3 + 30e-6 * 256, rel=0.2)
    assert cost.budget <= 2 * learned(1e-3, 30e-6).budget


@pytest.mark.parametrize("change", [0.1, 10.0])
def test_a_speed_that_really_changed_is_followed(change: float) -> None:
    cost = learned(1e-3, 30e-6)
    random = Random(2)
    for _ in range(500):
        tokens = random.choice((64, 128, 256, 500))
        cost.learn(tokens, change * (1e-3 + 30e-6 * tokens))
    assert cost.seconds(256) == pytest.approx(change * (1e-3 + 30e-6 * 256), rel=0.2)


@given(st.lists(st.tuples(st.integers(1, 100_000), st.floats(0, 1e4)), min_size=1, max_size=50))
def test_whatever_was_measured_costs_are_positive_and_the_budget_within_its_bounds(
    batches: list[tuple[int, float]],
) -> None:
    cost = Cost()
    for tokens, seconds in batches:
        cost.learn(tokens, seconds)
    assert FEWEST <= cost.budget <= MOST
    found = [cost.seconds(tokens) for tokens in (1, 100, 10_000)]
    assert all(one is None for one in found) or 0 < found[0] < found[1] < found[2]
