"""Many small requests, and clients that leave: memory stays flat, nothing hangs, every answer is right.

`SOAK_DOCUMENTS=100000` makes it last for some minutes.
"""

import json
import os
import socket
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

import httpx
import pytest

from tests.service.running import ServiceProcess, until

DOCUMENTS = int(os.environ.get("SOAK_DOCUMENTS", "10000"))
EACH = 5  # documents of a request
LEAVE = 0.1  # share of the clients that leave in the middle
CLIENTS = 8
ROUNDS = 10
GROWTH = 1.10

WORDS = ["abc", "de", "fghij", "k", "lmno", "pqrstuv", "wx", "yz"]


def resident(pid: int) -> int:
    """RSS in bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def leave(port: int, body: bytes, random: Random) -> None:
    """Send a request, or part of it, and go without waiting for the answer; every other one with a reset."""
    head = b"POST /rerank HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        if random.random() < 0.5:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        whole = head % len(body) + body
        connection.sendall(whole[: random.choice((len(whole), len(whole) - 3, 40))])


@pytest.mark.process
def test_memory_stays_flat_over_many_small_requests(tmp_path: Path, tiny: dict[str, str]) -> None:
    with ServiceProcess(tmp_path, {"m": tiny["best"]}, threads=2) as service:
        port = int(service.url.rpartition(":")[2])
        pool = [" ".join(Random(seed).choices(WORDS, k=seed % 28 + 1)) for seed in range(200)]
        expected = {query: dict(zip(pool, service.scores(query, pool), strict=True)) for query in ("one", "two")}

        def work(seed: int) -> int:
            """One client's share of a round; how many documents it had ranked."""
            random, ranked = Random(seed), 0
            with httpx.Client(base_url=service.url, timeout=60) as client:
                while ranked < DOCUMENTS / ROUNDS / CLIENTS:
                    query, texts = random.choice(("one", "two")), random.choices(pool, k=EACH)
                    body = json.dumps({"query": query, "texts": texts, "raw_scores": True}).encode()
                    if random.random() < LEAVE:
                        leave(port, body, random)
                        continue
                    answer = client.post("/rerank", content=body, headers={"Content-Type": "application/json"})
                    assert answer.status_code == 200
                    found = {texts[rank["index"]]: rank["score"] for rank in answer.json()}
                    assert found == {text: expected[query][text] for text in texts}
                    ranked += EACH
            return ranked

        sizes, ranked = [], 0
        with ThreadPoolExecutor(CLIENTS) as clients:
            for number in range(ROUNDS):
                ranked += sum(clients.map(work, range(number * CLIENTS, (number + 1) * CLIENTS)))
                sizes.append(resident(service.process.pid))
        assert ranked >= DOCUMENTS
        until(lambda: service.load()["inFlight"] == 0)
        report = service.load()
        assert (report["queuedTokens"], report["requests"]["failed"]) == (0, 0)
        print(f"{ranked} documents, MiB: {[size >> 20 for size in sizes]}")
        # The first rounds warm up: every shape of a batch has run once by then.
        assert max(sizes[2:]) <= GROWTH * sizes[1]
