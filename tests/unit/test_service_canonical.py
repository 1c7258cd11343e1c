"""Canonically equal texts are one text."""

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from rag_service.canonical import canonical

ABOVE, BELOW = "\u0301", "\u0327"
SPELLINGS = ["a", "é", "ü", "각", " ", "\x00", "\u1100", "\u1161", "\u0344", ABOVE, BELOW]


@given(st.text(st.sampled_from(SPELLINGS)))
def test_every_spelling_of_a_text_becomes_the_same_one(text: str) -> None:
    composed = unicodedata.normalize("NFC", text)
    assert canonical(text) == canonical(unicodedata.normalize("NFD", text)) == composed


def test_any_number_of_marks_on_a_letter_is_sorted() -> None:
    """With an algorithm that takes the square of their number, this would not end within hours."""
    count = 500_000
    assert canonical("x" + ABOVE * count + BELOW * count) == "x" + BELOW * count + ABOVE * count
