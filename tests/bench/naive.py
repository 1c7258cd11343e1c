"""What teams write first: FastAPI, sentence-transformers' CrossEncoder, a pool of four threads.

Runs in the peers' environment: `python naive.py MODEL PORT`.
"""

import asyncio
import sys
from concurrent.futures import ThreadPoolExecutor

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from sentence_transformers import CrossEncoder

model = CrossEncoder(sys.argv[1], device="cpu")
pool = ThreadPoolExecutor(4)
app = FastAPI()


class Request(BaseModel):
    query: str
    documents: list[str]


@app.get("/health")
def health() -> str:
    return "ok"


@app.post("/rerank")
async def rerank(request: Request) -> list[dict[str, float]]:
    pairs = [(request.query, document) for document in request.documents]
    loop = asyncio.get_running_loop()
    scores = await loop.run_in_executor(pool, lambda: model.predict(pairs, show_progress_bar=False))
    best_first = sorted(range(len(pairs)), key=lambda index: -scores[index])
    return [{"index": index, "score": float(scores[index])} for index in best_first]


uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="warning")
