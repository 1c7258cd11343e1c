"""Every error that a client can meet, mapped to HTTP once. Bodies are `contract.wire.Problem`."""

from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from pydantic import ValidationError
from starlette.exceptions import HTTPException

from rag_service.contract.model import Location, faults
from rag_service.contract.wire import OBJECT, STRING, Problem
from rag_service.engine.engine import BatchFailedError, BusyError, EngineDownError
from rag_service.engine.tokens import TooLongError, TooMuchError
from rag_service.rerank import UnknownModelError

SHOWN = 3  # errors of one request that its answer lists
MOST = 500  # characters of an error: names that the request made up may be part of it
BROKEN = "Invalid JSON: "  # how pydantic begins to say so


class RefusedError(Exception):
    """An answer other than the one that was asked for. `kind` is text-embeddings-inference's `error_type`."""

    def __init__(self, status: int, kind: str, text: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status, kind, text)
        self.status = status
        self.kind = kind
        self.text = text
        self.headers = headers

    def response(self) -> Response:
        """The refusal in HTTP."""
        text = self.text if len(self.text) <= MOST else f"{self.text[:MOST]}…"
        body = Problem(error=text, error_type=self.kind).model_dump_json()
        return Response(body, self.status, self.headers, "application/json")


class SlowBodyError(RefusedError):
    """The request took all the time that its answer has."""

    def __init__(self) -> None:
        super().__init__(408, "Validation", "the body did not arrive in time")


class SlowAnswerError(RefusedError):
    """The answer was not ready in time."""

    def __init__(self) -> None:
        super().__init__(
            504, "Timeout", "this took longer than the request's or the service's timeout: send fewer documents"
        )


def invalid(error: ValidationError) -> RefusedError:
    """What is wrong with a request's body, and where."""
    found = faults(error)
    if found[0][1].startswith(BROKEN):
        return RefusedError(400, "Validation", f"the body is no JSON: {found[0][1].removeprefix(BROKEN)}")
    said = [f"{_place(location)}: {message}" for location, message in found[:SHOWN]]
    return RefusedError(422, "Validation", "; ".join(said) + _more(found))


def _place(location: Location) -> str:
    """`texts[3].id`: where in the body."""
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in location if part not in (STRING, OBJECT)]
    return "".join(parts).removeprefix(".") or "the body"


def _more(shown: Sequence[object]) -> str:
    return f" and {len(shown) - SHOWN} more" if len(shown) > SHOWN else ""


def _too_long(error: TooLongError) -> RefusedError:
    where = ["the query" if position < 0 else f"texts[{position}]" for position in error.positions]
    return RefusedError(
        422,
        "Tokenizer",
        f"{', '.join(where[:SHOWN])}{_more(where)} would have to be cut to the {error.limit} tokens that the model "
        "reads, and the request forbids it: shorten the text, or choose another of `long_documents`",
    )


def _busy(error: BusyError) -> RefusedError:
    seconds = round(error.wait.total_seconds())
    text = f"more work waits than can be done in time: try again in {seconds} s"
    return RefusedError(429, "Overloaded", text, {"Retry-After": str(seconds)})


def _http(error: HTTPException) -> RefusedError:
    text = f"{HTTPStatus(error.status_code).phrase}: /openapi.json lists what there is"
    return RefusedError(error.status_code, "Validation", text, error.headers)


# What a client gets for each error that a request can end in.
REFUSALS: Mapping[type[Exception], Callable[[Any], RefusedError]] = {
    RefusedError: lambda error: error,
    HTTPException: _http,
    UnknownModelError: lambda error: RefusedError(
        404, "Validation", f"there is no model {error.name!r} here, only {', '.join(error.known)}"
    ),
    TooLongError: _too_long,
    TooMuchError: lambda error: RefusedError(
        413, "Validation", f"the request comes to more than {error.limit} tokens: send fewer documents, or shorter ones"
    ),
    BusyError: _busy,
    EngineDownError: lambda error: RefusedError(503, "Unhealthy", f"{error}: try again, for another replica to answer"),
    BatchFailedError: lambda _: RefusedError(503, "Backend", "the model failed on this request; the log says why"),
    Exception: lambda _: RefusedError(500, "Backend", "something failed that should not; the log says what"),
}


async def answer(_: Request, error: Exception) -> Response:
    """Exception handler."""
    kind = next(kind for kind in type(error).__mro__ if kind in REFUSALS)
    return REFUSALS[kind](error).response()


def install(app: FastAPI) -> None:
    """Answer the errors of an application."""
    for kind in REFUSALS:
        app.add_exception_handler(kind, answer)
