"""How a document that is too long for a model is read in parts. Pure.

A document is as relevant as its best passage (Dai and Callan, "Deeper Text Understanding for IR with Contextual Neural
Language Modeling", SIGIR 2019: MaxP). Passages overlap, so that what one of them cuts in two is whole in the next.
"""

from collections.abc import Sequence

OVERLAP = 1 / 4  # of a passage
MOST_PASSAGES = 32  # of one document; what comes after is not read
LEAST_ROOM = 1 / 4  # of what the model reads: a longer query leaves too little for passages
RULE = f"max_passage-{MOST_PASSAGES}"  # part of the key of scores made so: change it with anything here


def windows(words: Sequence[int | None], size: int, most: int) -> list[tuple[int, int]]:
    """Start and end of up to `most` passages of up to `size` tokens, given the word that each token is part of.

    A passage begins and ends where a word does, unless a word is as long as the overlap. All of the first tokens, up
    to the end of the last passage, are in one.
    """
    back = max(1, int(size * OVERLAP))
    found = []
    start = 0
    while True:
        end = min(start + size, len(words))
        if end < len(words):
            end = _boundary(words, end, end - back + 1)
        found.append((start, end))
        if end == len(words) or len(found) == most:
            return found
        start = _boundary(words, max(end - back, start + 1), max(end - 2 * back, start) + 1)


def _boundary(words: Sequence[int | None], position: int, least: int) -> int:
    """The last position from `least` to `position` at which a word begins; `position` itself where there is none."""
    for candidate in range(position, least - 1, -1):
        if words[candidate] is None or words[candidate] != words[candidate - 1]:
            return candidate
    return position
