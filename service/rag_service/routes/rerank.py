"""`POST /rerank`, in the shape of Hugging Face's text-embeddings-inference."""

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import TypeAdapter, ValidationError
from starlette.requests import ClientDisconnect

from rag_service.contract import wire
from rag_service.contract.settings import Limits, ServiceSettings
from rag_service.contract.wire import Document, Problem, Rank, RerankRequest, cache_header
from rag_service.metrics import Meter
from rag_service.problems import RefusedError, SlowAnswerError, SlowBodyError, invalid
from rag_service.rerank import Answer, Reranker
from rag_service.routes.requests import deadline, read_json, unless_gone, within
from rag_service.watch import CLIENT_GONE

RANKS = TypeAdapter(list[Rank])


BODY = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {"$ref": "#/components/schemas/RerankRequest"},
            "example": {
                "query": "How do I reset my password?",
                "texts": ["We ship within two days.", {"id": "faq-7", "text": "Choose Reset in the settings."}],
            },
        }
    },
}
TIMEOUT = {
    "name": wire.HEADER_TIMEOUT,
    "in": "header",
    "description": "how long the client waits: seconds, or a duration such as 1500ms; can only shorten the service's",
    "schema": {"type": "string"},
}
RESPONSES: dict[int | str, dict[str, Any]] = {200: {"model": list[Rank]}}
RESPONSES |= {status: {"model": Problem} for status in (400, 404, 408, 413, 415, 422, 429, 503, 504)}

router = APIRouter()


@router.post(wire.PATH, responses=RESPONSES, openapi_extra={"requestBody": BODY, "parameters": [TIMEOUT]})
async def rerank(request: Request) -> Response:
    """Order documents by their relevance to a query, best first."""
    settings: ServiceSettings = request.app.state.settings
    reranker: Reranker = request.app.state.reranker
    meter: Meter = request.app.state.meter
    until = deadline(request, settings.request_timeout.total_seconds())
    try:
        async with within(until, SlowBodyError):
            wanted = parse(await read_json(request, settings.limits.body_bytes), settings.limits)
        async with within(until, SlowAnswerError):
            answer = await unless_gone(request, reranker.rerank(wanted, until))
    except ClientDisconnect:
        return Response(status_code=CLIENT_GONE)
    meter.ranked(answer.hits, answer.misses)
    return Response(RANKS.dump_json(list(answer.ranks), exclude_none=True), 200, _headers(answer), "application/json")


def parse(body: bytes, limits: Limits) -> RerankRequest:
    """The request in a body. Raises RefusedError on one that is malformed or too large."""
    try:
        wanted = RerankRequest.model_validate_json(body)
    except ValidationError as error:
        raise invalid(error) from None
    if len(wanted.texts) > limits.documents:
        text = f"texts: {len(wanted.texts)} documents, at most {limits.documents} can be ranked at once"
        raise RefusedError(422, "Validation", text)
    texts = {f"texts[{number}]": candidate for number, candidate in enumerate(wanted.texts)}
    for place, candidate in ({"query": wanted.query} | texts).items():
        size = len(candidate.text if isinstance(candidate, Document) else candidate)
        if size > limits.text_characters:
            text = f"{place}: {size} characters, at most {limits.text_characters} are read; split the text"
            raise RefusedError(422, "Validation", text)
    return wanted


def _headers(answer: Answer) -> Mapping[str, str]:
    truncated = {wire.HEADER_TRUNCATED: str(answer.truncated)} if answer.truncated else {}
    return truncated | {
        wire.HEADER_MODEL: answer.model,
        wire.HEADER_CACHE: cache_header(answer.hits, answer.misses),
        "Server-Timing": ", ".join(f"{step};dur={seconds * 1000:.1f}" for step, seconds in answer.seconds.items()),
    }
