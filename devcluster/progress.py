"""A line that shows that long work goes on."""

import sys
import time
from types import TracebackType

_SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """One line, rewritten in place on a terminal, printed every ten seconds elsewhere."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._terminal = sys.stderr.isatty()
        self._started = self._printed = time.monotonic()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._terminal:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def update(self, text: str) -> None:
        """Say how far the work is; call as often as you like."""
        now = time.monotonic()
        line = f"{self._what}: {text} ({now - self._started:.0f} s)"
        if self._terminal:
            sys.stderr.write(f"\r\x1b[K{line[:100]}")
        elif now - self._printed >= _SECONDS_BETWEEN_LINES:
            self._printed = now
            sys.stderr.write(line + "\n")
        sys.stderr.flush()
