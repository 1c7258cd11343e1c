"""What runs a model. A backend is any object of this shape; `onnx` is the one there is."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rag_service.engine.tokens import Tokens


class Backend(Protocol):
    """Runs one model; several engine threads call it at the same time."""

    def run(self, batch: Sequence[Tokens], length: int) -> NDArray[np.float32]:
        """One row an input: a cross-encoder's logit or a bi-encoder's embedding. Shape: [len(batch), width].

        Every input is padded to `length` tokens. A row must depend on its own input and on `length` alone, to the
        bit: never on the other inputs of the batch, or on how many there are.
        """
