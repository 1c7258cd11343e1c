"""`rag-service` whose backends do what a file says: nothing unless it is there, hang while it says so, or die."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rag_service.engine import rankers
from rag_service.engine.backends import Backend
from rag_service.engine.tokens import Tokens

HANG, DIE = "hang", "die"


class Troubled:
    """A real backend in trouble."""

    def __init__(self, backend: Backend, order: Path) -> None:
        self._backend = backend
        self._order = order

    def run(self, batch: Sequence[Tokens], length: int) -> NDArray[np.float32]:
        """See `Backend`."""
        while self._said() == HANG:
            time.sleep(0.01)
        if self._said() == DIE:
            raise SystemExit("the thread dies")
        return self._backend.run(batch, length)

    def _said(self) -> str:
        return self._order.read_text() if self._order.exists() else ""


if __name__ == "__main__":
    from rag_service.__main__ import main

    order = Path(sys.argv[1])
    load = rankers.load

    def troubled(*given: object, **named: object) -> rankers.Ranker:
        ranker = load(*given, **named)  # type: ignore[arg-type]
        ranker.backend = Troubled(ranker.backend, order)
        return ranker

    rankers.load = troubled
    sys.exit(main(sys.argv[2:]))
