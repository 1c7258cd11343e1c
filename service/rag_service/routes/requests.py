"""What routes that read a body share: its limits, the deadline, and clients that leave."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from fastapi import Request
from starlette.requests import ClientDisconnect

from rag_service.arrival import patience
from rag_service.contract.wire import HEADER_TIMEOUT
from rag_service.problems import RefusedError

Result = TypeVar("Result")


async def read_json(request: Request, most: int) -> bytes:
    """The body, bounded while it is read. Raises RefusedError, and ClientDisconnect when the client leaves."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise RefusedError(
            415, "Validation", f"send the body as Content-Type: application/json, not {kind or 'without'}"
        )
    too_large = RefusedError(413, "Validation", f"the body is larger than {most} bytes: send fewer documents at a time")
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > most:
        raise too_large
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > most:
            raise too_large
    return bytes(body)


def deadline(request: Request, longest: float) -> float:
    """When the request has to be answered, of `time.monotonic`; its client may wait for less than `longest` seconds."""
    try:
        return float(request.state.arrived) + patience(request.headers.get(HEADER_TIMEOUT), longest)
    except ValueError as error:
        raise RefusedError(400, "Validation", f"{HEADER_TIMEOUT}: {error}, or as seconds") from None


@asynccontextmanager
async def within(deadline: float, late: Callable[[], RefusedError]) -> AsyncIterator[None]:
    """Raise `late` at the deadline."""
    try:
        async with asyncio.timeout(deadline - time.monotonic()):
            yield
    except TimeoutError:
        raise late() from None


async def unless_gone(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """The result of some work, which is cancelled when the client leaves first; then raises ClientDisconnect.

    To be called when the body has been read.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.wait((working, leaving))


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
