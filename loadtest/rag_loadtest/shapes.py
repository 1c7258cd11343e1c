"""What is asked, and when: reproducible from a seed, without any clock or I/O."""

import itertools
from collections.abc import Iterator, Sequence
from random import Random
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from rag_service.contract.wire import Document, RerankRequest

# English prose under the WordPiece vocabulary of BERT: abstracts, questions and help texts all have 0.80 to 0.85 words
# a token. Languages that write without spaces have to bring documents of the right size.
WORDS_PER_TOKEN = 0.8

Text = Annotated[str, StringConstraints(pattern=r"\S")]


class CorpusDocument(Document):
    """A document with at least one word."""

    text: Text


class Corpus(BaseModel):
    """Documents that are ranked, and queries that are asked, the most frequent first."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    documents: tuple[Text | CorpusDocument, ...] = Field(min_length=1)
    queries: tuple[Text, ...] = Field(min_length=1)


class Workload:
    """An endless stream of requests for each user.

    Queries follow Zipf's law with exponent 1: the k-th most frequent is asked 1/k as often as the first. There are
    more of them than the corpus holds, `distinct` in all, because a real stream has a long tail of queries that are
    hardly ever repeated, and without it everything would soon come from the cache. The tail is made of the corpus'
    queries, each with a case number in front.

    A query's candidates are always the same documents, as a retriever would give them.
    """

    def __init__(self, corpus: Corpus, documents: int, tokens: int, distinct: int, seed: int) -> None:
        """Raises ValueError when a request needs more `documents`, each of about `tokens` tokens, than there are."""
        if documents > len(corpus.documents):
            raise ValueError(f"a request needs {documents} different documents, the corpus has {len(corpus.documents)}")
        self._queries = corpus.queries
        self._texts = sized([d if isinstance(d, str) else d.text for d in corpus.documents], tokens)
        self._documents = documents
        self._weights = list(itertools.accumulate(1 / rank for rank in range(1, distinct + 1)))
        self._seed = seed

    def requests(self, user: int) -> Iterator[RerankRequest]:
        """What this user asks, one after the other."""
        random = Random(f"{self._seed}/user/{user}")  # noqa: S311
        while True:
            [rank] = random.choices(range(len(self._weights)), cum_weights=self._weights)
            yield self.request(rank)

    def request(self, rank: int) -> RerankRequest:
        """The query of this rank, from 0, the most frequent, with its candidates."""
        round_, number = divmod(rank, len(self._queries))
        query = f"Case {rank}: {self._queries[number]}" if round_ else self._queries[number]
        candidates = Random(f"{self._seed}/candidates/{rank}").sample(self._texts, self._documents)  # noqa: S311
        return RerankRequest(query=query, texts=tuple(candidates))


def sized(texts: Sequence[str], tokens: int) -> list[str]:
    """Every text cut, or filled up with the texts that follow it, to about as many tokens."""
    words = [text.split() for text in texts]
    count = max(1, round(tokens * WORDS_PER_TOKEN))
    return [
        " ".join(itertools.islice(itertools.chain.from_iterable(itertools.cycle(words[start:] + words[:start])), count))
        for start in range(len(words))
    ]


def intended_starts(user: int, users: int, pace: float) -> Iterator[float]:
    """Seconds at which this user means to ask: every `pace` seconds, users evenly spread over one pace."""
    return (pace * (user / users + number) for number in itertools.count())
