"""From text to tokens."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tokenizers import Tokenizer

from rag_service.engine.passages import windows
from rag_service.models import ModelError

# Characters in one call of the library, some ten milliseconds of work: others wait for no more than that. It keeps what
# it cuts, too, in a hundred bytes a token: of four megabytes of text at once, a quarter of a gigabyte.
TOGETHER = 8_192


class Tokens(NamedTuple):
    """One input of a model: token numbers, and for each whether it belongs to the first (0) or second (1) text."""

    ids: Sequence[int]
    types: Sequence[int]


class Read(NamedTuple):
    """What the model reads of one document: its inputs, and whether they leave something out."""

    inputs: Sequence[Tokens]
    cut: bool


class TooLongError(Exception):
    """Texts have more tokens than the model reads, and were not to be cut. `positions`: which ones."""

    def __init__(self, positions: Sequence[int], limit: int) -> None:
        super().__init__(positions, limit)
        self.positions = positions
        self.limit = limit

    def after(self, documents: int) -> "TooLongError":
        """The same, where so many documents went before."""
        positions = [position + documents if position >= 0 else position for position in self.positions]
        return TooLongError(positions, self.limit)


class TooMuchError(Exception):
    """A request has more tokens in all than one request may. `limit`: how many those are."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.limit = limit


class Tokeniser:
    """A model's tokenizer. Texts go in batches: a call gives up the interpreter's lock while it works."""

    def __init__(self, path: Path, limit: int) -> None:
        """Inputs are cut to `limit` tokens. Raises ModelError when the file is not a tokenizer's."""
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises nothing more special
            raise ModelError(f"{path} cannot be loaded: {error}") from error
        # The file may hold settings of its own; all-MiniLM-L6-v2's would cut at 128 tokens what its makers cut at 256.
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(limit, strategy="longest_first")
        self.limit = limit

    def __call__(self, inputs: Sequence[str] | Sequence[tuple[str, str]]) -> list[Read]:
        """Texts, or pairs of texts, as one input each, cut where they are too long."""
        return [
            Read((Tokens(encoding.ids, encoding.type_ids),), bool(encoding.overflowing))
            for encoding in self._tokenizer.encode_batch_fast(inputs)
        ]

    def readable(self, text: str) -> str:
        """The part of a text that the model can read: every input that the text begins has the same tokens with it."""
        if len(text) <= self.limit:
            return text
        tokens = self._tokenizer.encode(text, add_special_tokens=False)
        return text[: tokens.offsets[-1][1]] if tokens.overflowing else text

    def room(self, query: str | None) -> int:
        """The tokens that a document may have so that the model reads all of it, beside the query or alone."""
        if query is None:
            return self.limit - self._tokenizer.num_special_tokens_to_add(False)
        tokens = self._tokenizer.encode(query, add_special_tokens=False)
        if tokens.overflowing:
            return 0
        return self.limit - len(tokens.ids) - self._tokenizer.num_special_tokens_to_add(True)

    def passages(self, text: str, room: int, most: int) -> tuple[Sequence[str], bool]:
        """Parts of a text that overlap and begin and end with words, and whether `most` of them leave something out.

        Each is as long as `room` tokens allow.
        """
        whole = self._tokenizer.encode(text, add_special_tokens=False)
        pieces = (whole, *whole.overflowing)
        offsets = [offset for piece in pieces for offset in piece.offsets]
        words = [word for piece in pieces for word in piece.word_ids]
        found = windows(words, room, most)
        texts = [text[offsets[start][0] : offsets[end - 1][1]] for start, end in found]
        return texts, found[-1][1] < len(words)


def together(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """The texts in groups that are worth one call: of up to `TOGETHER` characters, or one longer text."""
    start = size = 0
    for end, text in enumerate(texts):
        if end > start and size + len(text) > TOGETHER:
            yield texts[start:end]
            start, size = end, 0
        size += len(text)
    if start < len(texts):
        yield texts[start:]
