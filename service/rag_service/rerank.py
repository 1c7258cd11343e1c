"""The pipeline: cache, score what is missing, store, rank."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter

from rag_service.cache import Cache, Score
from rag_service.canonical import canonical
from rag_service.contract.wire import Document, LongDocuments, Rank, RerankRequest
from rag_service.engine.engine import Engine
from rag_service.engine.passages import RULE
from rag_service.engine.rankers import Ranker
from rag_service.engine.tokens import TooLongError


class UnknownModelError(Exception):
    """The request names a model that this service does not have."""

    def __init__(self, name: str, known: Sequence[str]) -> None:
        super().__init__(name, known)
        self.name = name
        self.known = known


@dataclass(frozen=True)
class Answer:
    """Documents in order of their scores, best first, and what clients are told about them; seconds by step."""

    ranks: Sequence[Rank]
    model: str
    truncated: int  # documents that were cut
    hits: int  # documents whose score was known
    misses: int
    seconds: Mapping[str, float]


class Reranker:
    """Ranks documents with the models of one service."""

    def __init__(self, rankers: Mapping[str, Ranker], engine: Engine, cache: Cache) -> None:
        """`rankers` by the names that clients use, the one that answers by default first."""
        self.rankers = rankers
        self.engine = engine
        self.cache = cache

    async def rerank(self, request: RerankRequest, deadline: float = math.inf) -> Answer:
        """Rank the request's documents before a deadline, of `time.monotonic`.

        Raises UnknownModelError, TooLongError where the request forbids to cut, and what `Engine.score` raises.
        """
        name = next(iter(self.rankers)) if request.model is None else request.model
        if (ranker := self.rankers.get(name)) is None:
            raise UnknownModelError(name, list(self.rankers))
        # Canonically equal texts are the same text: one spelling is both what is scored and what is looked up.
        query = canonical(request.query)
        texts = [canonical(_text(candidate)) for candidate in request.texts]
        scores, hits, seconds = await self._scores(ranker, query, texts, request.long, deadline)
        best_first = sorted(range(len(texts)), key=lambda index: -scores[texts[index]].value)
        ranks = [
            _rank(request, index, score.value if request.raw_scores else ranker.activate(score.value), score.cut)
            for index in best_first[: request.top_n]
            for score in (scores[texts[index]],)
        ]
        truncated = sum(scores[text].cut for text in texts)
        return Answer(ranks, name, truncated, hits, len(texts) - hits, seconds)

    async def _scores(
        self, ranker: Ranker, query: str, texts: Sequence[str], long: LongDocuments, deadline: float
    ) -> tuple[Mapping[str, Score], int, Mapping[str, float]]:
        """The raw score of each text, how many texts had a known one, and seconds by step."""
        began = perf_counter()
        # Scores of whole documents are the same, cut or refused. The best of passages is another score.
        kept_under = f"{ranker.fingerprint}-{RULE}" if long == "max_passage" else ranker.fingerprint
        distinct = list(dict.fromkeys(texts))
        found = zip(distinct, await self.cache.lookup(kept_under, query, distinct), strict=True)
        # A score of a text that was cut is none where it must not be: the engine then says what is too long.
        known = {text: score for text, score in found if score is not None and not (score.cut and long == "reject")}
        seconds = {"cache": perf_counter() - began}
        hits = sum(text in known for text in texts)
        missing = [text for text in distinct if text not in known]
        if not missing:
            return known, hits, seconds
        try:
            scored = await self.engine.score(ranker, query, missing, long, deadline)
        except TooLongError as error:
            long_ones = {missing[position] for position in error.positions if position >= 0}
            positions = [position for position, text in enumerate(texts) if text in long_ones]
            raise TooLongError([-1] * (-1 in error.positions) + positions, error.limit) from None
        fresh = dict(zip(missing, map(Score, scored.scores, scored.cut), strict=True))
        self.cache.store(kept_under, query, fresh)
        return known | fresh, hits, {**seconds, **scored.seconds}


def _text(candidate: str | Document) -> str:
    return candidate.text if isinstance(candidate, Document) else candidate


def _rank(request: RerankRequest, index: int, score: float, cut: bool) -> Rank:
    candidate = request.texts[index]
    text = _text(candidate) if request.return_text else None
    truncated = True if cut else None
    if isinstance(candidate, Document):
        return Rank(
            index=index, score=score, truncated=truncated, text=text, id=candidate.id, metadata=candidate.metadata
        )
    return Rank(index=index, score=score, truncated=truncated, text=text)
