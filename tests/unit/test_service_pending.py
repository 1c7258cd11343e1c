"""The inputs that wait, and the batches they are taken in."""

from hypothesis import given
from hypothesis import strategies as st

from rag_service.engine.pending import Batch, Pending, padded

SIZES = st.lists(st.integers(1, 300), min_size=1, max_size=20)
DEADLINES = st.integers(0, 5)


def test_inputs_of_one_length_run_together_up_to_the_budget() -> None:
    pending: Pending[str, str] = Pending()
    pending.add("a", "model", [8, 7, 100, 6], 1)
    pending.add("b", "model", [5, 98], 1)
    assert pending.take(lambda _: 16) == Batch("model", 8, (("a", 0), ("a", 1)))
    assert pending.take(lambda _: 1000) == Batch("model", 8, (("a", 3), ("b", 0)))
    assert pending.take(lambda _: 1000) == Batch("model", 112, (("a", 2), ("b", 1)))
    assert pending.take(lambda _: 1000) is None


def test_the_lengths_are_few_and_padding_little() -> None:
    assert [padded(tokens) for tokens in (1, 8, 9, 57, 64, 65, 128, 129, 256, 257, 512)] == [
        8, 8, 16, 64, 64, 80, 128, 160, 256, 320, 512,
    ]  # fmt: skip
    assert len({padded(tokens) for tokens in range(1, 513)}) == 20
    assert all(tokens <= padded(tokens) < tokens + max(8, tokens / 4) for tokens in range(1, 10_000))
    assert padded(200, longest=200) == 200  # a model has no positions beyond


@given(st.integers(1, 100), st.integers(1, 2000))
def test_batches_have_powers_of_two_inputs(waiting: int, budget: int) -> None:
    pending: Pending[str, str] = Pending()
    pending.add("a", "model", [30] * waiting, 1)
    taken = []
    while batch := pending.take(lambda _: budget):
        taken.append(len(batch.inputs))
    assert sum(taken) == waiting
    assert taken == sorted(taken, reverse=True)
    assert all(size & (size - 1) == 0 for size in taken)


def test_models_share_no_batch() -> None:
    pending: Pending[str, str] = Pending()
    pending.add("a", "first", [8], 1)
    pending.add("b", "second", [8], 1)
    budgets = {"first": 8, "second": 16}
    pending.add("c", "second", [8], 1)
    batches = [pending.take(budgets.__getitem__), pending.take(budgets.__getitem__)]
    assert [(batch.model, len(batch.inputs)) for batch in batches if batch] == [("first", 1), ("second", 2)]


def test_an_input_longer_than_the_budget_runs_alone() -> None:
    pending: Pending[str, str] = Pending()
    pending.add("a", "model", [512, 512], 1)
    assert pending.take(lambda _: 8) == Batch("model", 512, (("a", 0),))


def test_who_has_to_be_answered_first_goes_first_and_takes_others_along() -> None:
    pending: Pending[str, str] = Pending()
    pending.add("patient", "model", [8, 100], 9)
    pending.add("urgent", "model", [8], 2)
    pending.add("between", "model", [104], 5)
    assert pending.take(lambda _: 16) == Batch("model", 8, (("urgent", 0), ("patient", 0)))
    assert pending.take(lambda _: 512) == Batch("model", 112, (("between", 0), ("patient", 1)))


def test_what_has_more_time_is_not_ahead() -> None:
    pending: Pending[str, str] = Pending()
    pending.add("urgent", "model", [8, 100], 2)
    pending.add("patient", "model", [8] * 50, 9)
    assert [pending.ahead(deadline) for deadline in (1, 2, 5, 9)] == [0, 108, 108, 508]


def test_everything_is_forgotten_at_once() -> None:
    pending: Pending[str, str] = Pending()
    pending.add("a", "model", [8, 100], 2)
    pending.clear()
    assert pending.tokens == 0
    assert pending.take(lambda _: 512) is None


def test_an_input_without_tokens_has_a_length_all_the_same() -> None:
    pending: Pending[str, str] = Pending()
    pending.add("empty", "model", [0], 1)
    assert pending.take(lambda _: 512) == Batch("model", 8, (("empty", 0),))


def test_jobs_are_overdue_from_their_deadline_on() -> None:
    pending: Pending[str, str] = Pending()
    pending.add("early", "model", [8, 100], 2)
    pending.add("late", "model", [8, 100], 3)
    assert pending.overdue(1.9) == set()
    assert pending.overdue(2) == {"early"}
    assert pending.overdue(3) == {"early", "late"}
    pending.drop("early")
    assert pending.overdue(2) == set()


@given(st.lists(st.tuples(SIZES, st.sampled_from(["x", "y"]), DEADLINES), max_size=8), st.integers(1, 600), st.data())
def test_every_input_is_taken_once_unless_its_job_was_dropped(
    jobs: list[tuple[list[int], str, int]], budget: int, data: st.DataObject
) -> None:
    pending: Pending[int, str] = Pending()
    for number, (sizes, model, deadline) in enumerate(jobs):
        pending.add(number, model, sizes, deadline)
    dropped = data.draw(st.sets(st.sampled_from(range(len(jobs))))) if jobs else set()
    for number in dropped:
        pending.drop(number)
    kept = [(number, sizes) for number, (sizes, _, _) in enumerate(jobs) if number not in dropped]
    assert pending.tokens == sum(sum(sizes) for _, sizes in kept)
    taken = []
    while batch := pending.take(lambda _: budget):
        assert len(batch.inputs) == 1 or batch.tokens <= budget
        for number, index in batch.inputs:
            assert padded(jobs[number][0][index]) == batch.length
            assert jobs[number][1] == batch.model
        taken.extend(batch.inputs)
    assert sorted(taken) == [(number, index) for number, sizes in kept for index in range(len(sizes))]
    assert pending.tokens == 0


@given(st.lists(st.tuples(SIZES, DEADLINES), min_size=1, max_size=8), st.integers(0, 7))
def test_the_most_urgent_input_is_in_the_next_batch(jobs: list[tuple[list[int], int]], left: int) -> None:
    pending: Pending[int, str] = Pending()
    for number, (sizes, deadline) in enumerate(jobs):
        pending.add(number, "model", sizes, deadline)
    pending.drop(left)
    waiting = [(deadline, number) for number, (sizes, deadline) in enumerate(jobs) for _ in sizes if number != left]
    while batch := pending.take(lambda _: 64):
        assert batch.inputs[0][0] == min(waiting)[1]
        for number, _ in batch.inputs:
            waiting.remove((jobs[number][1], number))
    assert not waiting
