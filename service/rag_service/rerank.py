"""The pipeline: cache, score what is missing, store, rank."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter

from rag_service.cache import Cache
from rag_service.canonical import canonical
from rag_service.contract.wire import Document, Rank, RerankRequest
from rag_service.engine.engine import Engine
from rag_service.engine.rankers import Ranker


class UnknownModelError(Exception):
    """The request names a model that this service does not have."""

    def __init__(self, name: str, known: Sequence[str]) -> None:
        super().__init__(name, known)
        self.name = name
        self.known = known


@dataclass(frozen=True)
class Answer:
    """Documents in order of their scores, best first; of how many of them the score was known; seconds by step."""

    ranks: Sequence[Rank]
    model: str
    hits: int
    misses: int
    seconds: Mapping[str, float]


class Reranker:
    """Ranks documents with the models of one service."""

    def __init__(self, rankers: Mapping[str, Ranker], engine: Engine, cache: Cache) -> None:
        """`rankers` by the names that clients use, the one that answers by default first."""
        self.rankers = rankers
        self.engine = engine
        self.cache = cache

    async def rerank(self, request: RerankRequest) -> Answer:
        """Rank the request's documents.

        Raises UnknownModelError, TooLongError where the request forbids to cut, and what `Engine.score` raises.
        """
        name = next(iter(self.rankers)) if request.model is None else request.model
        if (ranker := self.rankers.get(name)) is None:
            raise UnknownModelError(name, list(self.rankers))
        # Canonically equal texts are the same text: one spelling is both what is scored and what is looked up.
        query = canonical(request.query)
        texts = [canonical(_text(candidate)) for candidate in request.texts]
        if not request.truncate:
            await self.engine.check(ranker, query, texts)
        scores, hits, seconds = await self._scores(ranker, query, texts)
        best_first = sorted(range(len(texts)), key=lambda index: -scores[texts[index]])
        ranks = [
            _rank(request, index, score if request.raw_scores else ranker.activate(score))
            for index in best_first[: request.top_n]
            for score in (scores[texts[index]],)
        ]
        return Answer(ranks, name, hits, len(texts) - hits, seconds)

    async def _scores(
        self, ranker: Ranker, query: str, texts: Sequence[str]
    ) -> tuple[Mapping[str, float], int, Mapping[str, float]]:
        """The raw score of each text, how many texts had a known one, and seconds by step."""
        began = perf_counter()
        fingerprint = ranker.fingerprint
        distinct = list(dict.fromkeys(texts))
        found = zip(distinct, await self.cache.lookup(fingerprint, query, distinct), strict=True)
        known = {text: score for text, score in found if score is not None}
        seconds = {"cache": perf_counter() - began}
        hits = sum(text in known for text in texts)
        missing = [text for text in distinct if text not in known]
        if not missing:
            return known, hits, seconds
        scored = await self.engine.score(ranker, query, missing)
        fresh = dict(zip(missing, scored.scores, strict=True))
        self.cache.store(fingerprint, query, fresh)
        return known | fresh, hits, {**seconds, **scored.seconds}


def _text(candidate: str | Document) -> str:
    return candidate.text if isinstance(candidate, Document) else candidate


def _rank(request: RerankRequest, index: int, score: float) -> Rank:
    candidate = request.texts[index]
    text = _text(candidate) if request.return_text else None
    if isinstance(candidate, Document):
        return Rank(index=index, score=score, text=text, id=candidate.id, metadata=candidate.metadata)
    return Rank(index=index, score=score, text=text)
