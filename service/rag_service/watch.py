"""Around every request: when it arrived, how it ended, and that a server about to stop says so."""

import time
from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rag_service.arrival import waited
from rag_service.contract import wire
from rag_service.metrics import Meter, Outcome

CLIENT_GONE = 499  # nginx' status for it; no client ever reads it


@dataclass
class Drain:
    """Whether the server is about to stop. Set once."""

    begun: bool = False


class Watch:
    """ASGI middleware. Leaves the time of arrival, of `time.monotonic`, in the request's state as `arrived`."""

    def __init__(self, app: ASGIApp, meter: Meter, drain: Drain, longest: float) -> None:
        """`longest`: seconds that a request can have waited in front of this server."""
        self._app = app
        self._meter = meter
        self._drain = drain
        self._longest = longest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or the lifespan."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        stamp = Headers(scope=scope).get("x-request-start")
        arrived = time.monotonic() - waited(stamp, time.time(), self._longest)
        scope.setdefault("state", {})["arrived"] = arrived
        measured = scope["path"] == wire.PATH and scope["method"] == "POST"
        status = CLIENT_GONE

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if self._drain.begun:
                    MutableHeaders(raw=message["headers"])["Connection"] = "close"
            await send(message)

        self._meter.in_flight += measured
        try:
            await self._app(scope, receive, watched)
        except Exception:
            status = 500
            raise
        finally:
            self._meter.in_flight -= measured
            if measured:
                self._meter.ended(outcome(status), time.monotonic() - arrived)


def outcome(status: int) -> Outcome:
    """How a request ended that was answered with this status."""
    if status < 400:
        return Outcome.ANSWERED
    if status == 429:
        return Outcome.REJECTED
    if status == CLIENT_GONE:
        return Outcome.ABANDONED
    return Outcome.FAILED if status >= 500 else Outcome.INVALID
