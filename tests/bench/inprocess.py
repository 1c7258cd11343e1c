"""The engine's batcher without HTTP and cache: what the service could serve if all the rest of it were free.

A process of its own, driven by lines on its standard input: `python -m tests.bench.inprocess MODEL BACKEND PRECISION
THREADS`. Each line holds a JSON object {"seed", "concurrency", "warm_up", "seconds"}; the answer is one line, pairs a
second.
"""

import asyncio
import itertools
import json
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import cast

from rag_service.contract.settings import BackendName, Precision
from rag_service.engine import rankers
from rag_service.engine.backends import Variant
from rag_service.engine.engine import Engine
from rag_service.models import manifest
from tests.bench.texts import REFERENCE, Texts


async def drive(
    engine: Engine,
    ranker: rankers.Ranker,
    texts: Texts,
    *,
    seed: str,
    concurrency: int,
    warm_up: float,
    seconds: float,
) -> float:
    """Keep so many requests in flight; pairs per second that are scored after the warm-up."""
    requests = texts.requests(REFERENCE, seed)
    prepared = [next(requests) for _ in range(round(100 * (warm_up + seconds)))]
    requests = itertools.cycle(prepared)  # nothing is cached here
    began = time.perf_counter()
    start, end = began + warm_up, began + warm_up + seconds
    pairs = 0

    async def user() -> None:
        nonlocal pairs
        while time.perf_counter() < end:
            asked = next(requests)
            scored = await engine.score(ranker, asked.query, asked.documents)
            if start < time.perf_counter() <= end:
                pairs += len(scored.scores)

    await asyncio.gather(*(user() for _ in range(concurrency)))
    return pairs / seconds


async def main(model: Path, variant: Variant, threads: int) -> None:
    """Answer line after line until there are no more."""
    found = manifest.read(model)
    assert found, model
    ranker = rankers.load(model, found, variant, threads)
    engine = Engine(threads, timedelta(minutes=1))
    await engine.start()
    texts = Texts(model / manifest.TOKENIZER)
    print("ready", flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        speed = await drive(engine, ranker, texts, **json.loads(line))
        print(speed, flush=True)
    await engine.stop()


if __name__ == "__main__":
    path, backend, precision, number = sys.argv[1:]
    chosen = Variant(cast(BackendName, backend), cast(Precision, precision))
    asyncio.run(main(Path(path), chosen, int(number)))
