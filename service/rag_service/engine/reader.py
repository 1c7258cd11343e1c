"""What a model reads of documents, and of those that are too long for it."""

from collections.abc import Sequence

from rag_service.contract.wire import LongDocuments
from rag_service.engine.passages import LEAST_ROOM, MOST_PASSAGES
from rag_service.engine.tokens import Read, Tokeniser, TooLongError


class Reader:
    """Turns documents into inputs of a model, beside a query or alone; `first`: inputs that go before theirs."""

    def __init__(
        self, tokeniser: Tokeniser, long: LongDocuments, query: str | None, first: Sequence[Read] = ()
    ) -> None:
        """`query`: what every document is read with. `first`: what is read once, and has to be whole as well."""
        if long != "truncate" and any(read.cut for read in first):
            raise TooLongError([-1], tokeniser.limit)
        self.first = [tokens for read in first for tokens in read.inputs]
        self._tokeniser = tokeniser
        self._long = long
        self._query = query
        self._cut = any(read.cut for read in first)

    def read(self, documents: Sequence[str]) -> list[Read]:
        """Each document's inputs. Raises TooLongError, with positions of documents, or -1 for the query."""
        made = self._whole(documents)
        cut = [position for position, read in enumerate(made) if read.cut]
        if cut and self._long == "reject":
            raise TooLongError(cut, self._tokeniser.limit)
        if cut and self._long == "max_passage":
            for position in cut:
                made[position] = self._passages(documents[position])
        return [Read(read.inputs, True) for read in made] if self._cut else made

    def _whole(self, documents: Sequence[str]) -> list[Read]:
        if self._query is None:
            return self._tokeniser(documents)
        return self._tokeniser([(self._query, document) for document in documents])

    def _passages(self, document: str) -> Read:
        room = self._tokeniser.room(self._query)
        if room < self._tokeniser.limit * LEAST_ROOM:
            raise TooLongError([-1], self._tokeniser.limit)
        texts, cut = self._tokeniser.passages(document, room, MOST_PASSAGES)
        return Read([tokens for read in self._whole(texts) for tokens in read.inputs], cut)
