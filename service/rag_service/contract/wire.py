"""Requests and answers of `POST /rerank`, in the shape of Hugging Face's text-embeddings-inference.

Beyond that shape, a document may be an object with an `id` and `metadata` that come back with its rank, and
`model` and `top_n` choose the rung and the number of results.
"""

import math
import re
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    FailFast,
    Field,
    JsonValue,
    Tag,
    model_validator,
)

PATH = "/rerank"
HEADER_MODEL = "X-Model"
HEADER_CACHE = "X-Cache"
HEADER_TRUNCATED = "X-Truncated"  # how many of the request's documents the model did not read to their end
HEADER_TIMEOUT = "X-Request-Timeout"  # of a request: how long its client waits, where that is less than the service's

LongDocuments = Literal["truncate", "max_passage", "reject"]


def _finite(value: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """Refuse numbers that could be read but not written back: JSON has neither NaN nor infinity."""
    waiting: list[JsonValue] = [value]
    while waiting:
        match waiting.pop():
            case dict() as members:
                waiting.extend(members.values())
            case list() as items:
                waiting.extend(items)
            case float() as number if not math.isfinite(number):
                raise ValueError(f"{number} is no JSON number")
    return value


Text = Annotated[str, Field(min_length=1)]
Metadata = Annotated[dict[str, JsonValue], AfterValidator(_finite)]

_CACHE = re.compile(r"(?:hit|partial|miss); hits=([0-9]+); misses=([0-9]+)")


def cache_header(hits: int, misses: int) -> str:
    """Value of X-Cache: pairs of the request whose score came from the cache, and pairs that had to be scored.

    `hit; hits=5; misses=0`: the first word, `hit`, `partial` or `miss`, is for people.
    """
    word = "hit" if not misses else "partial" if hits else "miss"
    return f"{word}; hits={hits}; misses={misses}"


def parse_cache_header(value: str) -> tuple[int, int] | None:
    """(hits, misses) as `cache_header` wrote them; None for anything else, such as another proxy's X-Cache."""
    match = _CACHE.fullmatch(value)
    return (int(match[1]), int(match[2])) if match else None


class Document(BaseModel):
    """A candidate to rank."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    text: Text = Field(description="the text that is scored")
    id: str | None = Field(default=None, description="returned with the document's rank")
    metadata: Metadata | None = Field(default=None, description="returned with the document's rank, unread")


# The tags stand in the place of an error: `texts[3].object.id`.
STRING, OBJECT = "string", "object"


def _form(candidate: Any) -> str:
    return OBJECT if isinstance(candidate, dict | Document) else STRING


Candidate = Annotated[
    Annotated[Text, Tag(STRING)] | Annotated[Document, Tag(OBJECT)],
    Discriminator(_form),
]


class RerankRequest(BaseModel):
    """A query and the documents to order by their relevance to it."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    query: Text
    texts: Annotated[tuple[Candidate, ...], Field(min_length=1, strict=False), FailFast()]
    model: str | None = Field(default=None, description="name of a model of this service; the best one by default")
    top_n: int | None = Field(default=None, ge=1, description="return only the n best; all by default")
    raw_scores: bool = Field(default=False, description="the model's own output, without activation")
    return_text: bool = Field(default=False, description="return each document's text with its rank")
    long_documents: LongDocuments | None = Field(
        default=None,
        description="documents that are longer than the model can read: `truncate` (the default) cuts them, "
        "`max_passage` reads them in overlapping passages of which the best one counts, `reject` refuses the request "
        "with 422",
    )
    truncate: bool | None = Field(
        default=None, description="`true` and `false` say `truncate` and `reject` in text-embeddings-inference's words"
    )

    @model_validator(mode="after")
    def _says_one_thing(self) -> Self:
        if self.truncate is not None and self.long_documents and self.truncate == (self.long_documents == "reject"):
            raise ValueError(f"truncate {str(self.truncate).lower()} contradicts long_documents {self.long_documents}")
        return self

    @property
    def long(self) -> LongDocuments:
        """What is to be done with documents that are too long."""
        return self.long_documents or ("reject" if self.truncate is False else "truncate")


class Rank(BaseModel):
    """One document's place in the answer, best first."""

    model_config = ConfigDict(frozen=True)

    index: int = Field(description="position of the document in the request")
    score: float
    truncated: Literal[True] | None = Field(
        default=None, description="the model did not read the document, or the query, to its end; absent if it did"
    )
    text: str | None = None
    id: str | None = None
    metadata: dict[str, JsonValue] | None = None


class Problem(BaseModel):
    """Every error's body: what is wrong, in words, and what kind of error it is."""

    model_config = ConfigDict(frozen=True)

    error: str
    error_type: str
