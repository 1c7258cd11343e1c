"""Steady requests at a service until SIGTERM; then one JSON summary. Runs where the service can be reached.

    python tests/e2e/traffic.py http://10.96.0.5 --users 4 --unique

Every request opens its own connection, as many small clients would, so that kube-proxy spreads them over the pods.
"""

import argparse
import asyncio
import itertools
import json
import signal
from collections import Counter

import httpx

DOCUMENTS = (
    "Reset your password from the sign-in page; the link is valid for one hour.",
    "Invoices are sent on the first day of each month.",
    "Our office is closed on public holidays.",
    "Export your data as CSV from the settings page.",
)


async def drive(url: str, users: int, unique: bool) -> dict[str, dict[str, int]]:
    """Requests by status, by the exception that ended them, and by what the cache said of them."""
    statuses: Counter[str] = Counter()
    errors: Counter[str] = Counter()
    cache: Counter[str] = Counter()
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    numbers = itertools.count()

    async def user(client: httpx.AsyncClient) -> None:
        while not stop.is_set():
            query = f"How do I change password {next(numbers)}?" if unique else "How do I change my password?"
            try:
                answer = await client.post(f"{url}/rerank", json={"query": query, "texts": DOCUMENTS})
            except httpx.HTTPError as error:
                errors[f"{type(error).__name__}: {error}"] += 1
                await asyncio.sleep(0.05)
                continue
            statuses[str(answer.status_code)] += 1
            cache[answer.headers.get("X-Cache", "none").split(";")[0]] += 1
            await asyncio.sleep(0.02)

    limits = httpx.Limits(max_keepalive_connections=0)
    async with httpx.AsyncClient(limits=limits, timeout=30, trust_env=False) as client:
        print("started", flush=True)
        await asyncio.gather(*(user(client) for _ in range(users)))
    return {"statuses": dict(statuses), "errors": dict(errors), "cache": dict(cache)}


def main() -> None:
    """Parse the arguments, drive, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--users", type=int, default=2)
    parser.add_argument("--unique", action="store_true", help="no two queries alike: nothing comes from the cache")
    arguments = parser.parse_args()
    print(json.dumps(asyncio.run(drive(arguments.url, arguments.users, arguments.unique))), flush=True)


if __name__ == "__main__":
    main()
