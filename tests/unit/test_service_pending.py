"""The inputs that wait, and the batches they are taken in."""

from hypothesis import given
from hypothesis import strategies as st

from rag_service.engine.pending import Batch, Pending, padded

SIZES = st.lists(st.integers(1, 300), min_size=1, max_size=20)


def test_inputs_of_one_length_run_together_up_to_the_budget() -> None:
    pending: Pending[str, str] = Pending()
    pending.add("a", "model", [8, 7, 100, 6])
    pending.add("b", "model", [5, 98])
    assert pending.take(24) == Batch("model", 8, (("a", 0), ("a", 1), ("a", 3)))
    assert pending.take(1000) == Batch("model", 104, (("a", 2), ("b", 1)))
    assert pending.take(1000) == Batch("model", 8, (("b", 0),))
    assert pending.take(1000) is None


def test_models_share_no_batch() -> None:
    pending: Pending[str, str] = Pending()
    pending.add("a", "first", [8])
    pending.add("b", "second", [8])
    batches = [pending.take(1000), pending.take(1000)]
    assert [batch.model for batch in batches if batch] == ["first", "second"]


def test_an_input_longer_than_the_budget_runs_alone() -> None:
    pending: Pending[str, str] = Pending()
    pending.add("a", "model", [512, 512])
    assert pending.take(8) == Batch("model", 512, (("a", 0),))


@given(st.lists(st.tuples(SIZES, st.sampled_from(["x", "y"])), max_size=8), st.integers(1, 600), st.data())
def test_every_input_is_taken_once_unless_its_job_was_dropped(
    jobs: list[tuple[list[int], str]], budget: int, data: st.DataObject
) -> None:
    pending: Pending[int, str] = Pending()
    for number, (sizes, model) in enumerate(jobs):
        pending.add(number, model, sizes)
    dropped = data.draw(st.sets(st.sampled_from(range(len(jobs))))) if jobs else set()
    for number in dropped:
        pending.drop(number)
    kept = [(number, sizes) for number, (sizes, _) in enumerate(jobs) if number not in dropped]
    assert pending.tokens == sum(sum(sizes) for _, sizes in kept)
    taken = []
    while batch := pending.take(budget):
        assert len(batch.inputs) == 1 or len(batch.inputs) * batch.length <= budget
        for number, index in batch.inputs:
            assert padded(jobs[number][0][index]) == batch.length
            assert jobs[number][1] == batch.model
        taken.extend(batch.inputs)
    assert sorted(taken) == [(number, index) for number, sizes in kept for index in range(len(sizes))]
    assert pending.tokens == 0


@given(st.lists(SIZES, min_size=1, max_size=8))
def test_the_input_that_waited_longest_is_in_the_next_batch(jobs: list[list[int]]) -> None:
    pending: Pending[int, str] = Pending()
    for number, sizes in enumerate(jobs):
        pending.add(number, "model", sizes)
    left = [number for number, sizes in enumerate(jobs) for _ in sizes]
    while batch := pending.take(64):
        assert batch.inputs[0][0] == left[0]
        for number, _ in batch.inputs:
            left.remove(number)
