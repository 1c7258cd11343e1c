"""From text to tokens."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tokenizers import Tokenizer

from rag_service.models import ModelError

# Inputs in one call of the library. It keeps what it cuts, too, in a hundred bytes a token: of four megabytes of text
# at once, a quarter of a gigabyte.
TOGETHER = 8


class Tokens(NamedTuple):
    """One input of a model: token numbers, and for each whether it belongs to the first (0) or second (1) text."""

    ids: Sequence[int]
    types: Sequence[int]


class TooLongError(Exception):
    """Texts have more tokens than the model reads, and were not to be cut. `positions`: which ones."""

    def __init__(self, positions: Sequence[int], limit: int) -> None:
        super().__init__(positions, limit)
        self.positions = positions
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

    def __call__(self, inputs: Sequence[str] | Sequence[tuple[str, str]], cut: bool = True) -> list[Tokens]:
        """Tokens of texts, or of pairs of texts. Raises TooLongError where something has to be cut and must not be."""
        made: list[Tokens] = []
        long: list[int] = []
        for start in range(0, len(inputs), TOGETHER):
            for encoding in self._tokenizer.encode_batch_fast(inputs[start : start + TOGETHER]):
                if not cut and encoding.overflowing:
                    long.append(len(made))
                made.append(Tokens(encoding.ids, encoding.type_ids))
        if long:
            raise TooLongError(long, self.limit)
        return made

    def readable(self, text: str) -> str:
        """The part of a text that the model can read: every input that the text begins has the same tokens with it."""
        if len(text) <= self.limit:
            return text
        tokens = self._tokenizer.encode(text, add_special_tokens=False)
        return text[: tokens.offsets[-1][1]] if tokens.overflowing else text
