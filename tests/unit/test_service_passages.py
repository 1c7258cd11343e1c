"""How long documents are read in parts."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from rag_service.engine.passages import OVERLAP, windows


def test_passages_overlap_by_a_quarter() -> None:
    assert windows(range(20), 8, 99) == [(0, 8), (6, 14), (12, 20)]


def test_what_fits_is_one_passage() -> None:
    assert windows(range(8), 8, 99) == [(0, 8)]


def test_passages_begin_and_end_with_words() -> None:
    words = [number // 3 for number in range(60)]
    found = windows(words, 20, 99)
    assert found == [(0, 18), (12, 30), (24, 42), (36, 54), (48, 60)]


def test_there_are_no_more_than_asked_for() -> None:
    assert windows(range(1000), 8, 3) == [(0, 8), (6, 14), (12, 20)]


@given(st.lists(st.integers(1, 12), min_size=1, max_size=60), st.integers(1, 40), st.integers(1, 1000))
def test_every_token_is_in_a_passage_and_passages_go_on(lengths: list[int], size: int, most: int) -> None:
    words = [number for number, length in enumerate(lengths) for _ in range(length)]
    found = windows(words, size, most)
    assert 1 <= len(found) <= most
    assert all(0 < end - start <= size for start, end in found)
    assert found[0][0] == 0
    for (start, end), (after, further) in itertools.pairwise(found):
        assert start < after <= end < further
        short = max(lengths[words[after] : words[end - 1] + 1], default=1) <= max(1, int(size * OVERLAP))
        if short and size > 4:
            assert words[after] != words[after - 1]
    if len(found) < most:
        assert found[-1][1] == len(words)


@given(st.lists(st.none(), min_size=1, max_size=100), st.integers(1, 40))
def test_tokenizers_that_know_no_words_are_read_token_by_token(words: list[None], size: int) -> None:
    assert windows(words, size, 1000)[-1][1] == len(words)
