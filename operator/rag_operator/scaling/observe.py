"""I/O: read the load of every pod."""

import asyncio
import logging
import time
from collections.abc import Collection, Mapping

import aiohttp
import pydantic

from rag_operator.scaling.estimate import Sample
from rag_operator.scaling.target import Target
from rag_service.contract import load
from rag_service.contract.load import LoadReport
from rag_service.contract.settings import PORT

log = logging.getLogger(__name__)

# A report is some 2 kB; more than this is not one.
MAX_BYTES = 64 * 1024


class Scraper:
    """Reads load reports, from so many pods at the same time at the most."""

    def __init__(self, *, timeout: float = 2.0, concurrency: int = 64) -> None:
        """`timeout`: seconds for one pod, from connect to the last byte."""
        self._timeout = aiohttp.ClientTimeout(total=timeout)
        self._limit = asyncio.Semaphore(concurrency)
        self._session: aiohttp.ClientSession | None = None

    async def scrape(self, targets: Collection[Target]) -> Mapping[str, Sample | None]:
        """The load of each pod; None for one that did not answer with a load report in time."""
        samples = await asyncio.gather(*(self._read(target) for target in targets))
        return {target.pod: sample for target, sample in zip(targets, samples, strict=True)}

    async def close(self) -> None:
        """Close the connections."""
        if self._session:
            await self._session.close()

    async def _read(self, target: Target) -> Sample | None:
        host = f"[{target.address}]" if ":" in target.address else target.address
        async with self._limit:
            try:
                body = await self._get(f"http://{host}:{PORT}{load.PATH}")
                # A newer service may tell more than is known here.
                return Sample(time.monotonic(), LoadReport.model_validate_json(body, extra="ignore"))
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                log.debug("no load from pod %s at %s: %r", target.pod, target.address, error)
            except pydantic.ValidationError as error:
                log.debug("pod %s at %s does not tell its load: %s", target.pod, target.address, error)
        return None

    async def _get(self, url: str) -> bytes:
        if self._session is None:
            # Pods come and go: a connection is kept for a few scrapes, and none goes through a proxy.
            connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=60)
            self._session = aiohttp.ClientSession(connector=connector, timeout=self._timeout)
        async with self._session.get(url, allow_redirects=False) as response:
            response.raise_for_status()
            body = bytearray()
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > MAX_BYTES:
                    raise aiohttp.ClientPayloadError(f"more than {MAX_BYTES} bytes")
            return bytes(body)
