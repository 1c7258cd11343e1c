"""uvicorn's HTTP, with a bound to what it keeps of a request before the application sees it."""

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MOST = 64 * 1024  # bytes of a request that are not its body: its line, headers and trailers, the frames of its chunks


class Protocol(HttpToolsProtocol):
    """One connection. uvicorn would collect headers without end; a request with more than `MOST` of them gets 400."""

    _bytes = 0  # of the request that comes in, but for its body

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self._bytes += len(data)
        super().data_received(data)
        if self._bytes > MOST and not self.transport.is_closing():
            self.send_400_response(f"The request's headers are larger than {MOST} bytes.")

    def on_body(self, body: bytes) -> None:
        """Part of a body has come."""
        self._bytes -= len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request's end has come."""
        self._bytes = 0
        super().on_message_complete()
