"""All processes of this pod: what each of them counted, and whether it works."""

import asyncio
import contextlib
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from rag_service.metrics import Meter, Snapshot
from rag_service.workers import Worker

LAST_WORDS = 1.0  # seconds for a process without an engine to tell those who wait

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class State:
    """The processes by number: what those counted that answered, and which of the others did not."""

    snapshots: Mapping[int, Snapshot]
    starting: Sequence[int] = ()  # never answered yet
    silent: Sequence[int] = ()  # run, but do not answer

    @property
    def lost(self) -> str | None:
        """Why a process has to be restarted; None while all of them work, or may get over what is wrong."""
        hopeless = [snapshot.trouble for snapshot in self.snapshots.values() if not snapshot.alive]
        return f"{hopeless[0]}: the process has to be restarted" if hopeless else self._silence

    @property
    def trouble(self) -> str | None:
        """Why no requests should be sent here.

        A process that ended is no reason: another one is on its way, and meanwhile the rest take its requests.
        """
        if self.starting:
            return f"process {self.starting[0]} of the pod is starting"
        return next((one.trouble for one in self.snapshots.values() if one.trouble), self._silence)

    @property
    def _silence(self) -> str | None:
        return f"process {self.silent[0]} of the pod does not answer" if self.silent else None


class Pod:
    """The processes that serve this pod's port together; usually it is this one alone."""

    def __init__(self, meter: Meter, worker: Worker | None) -> None:
        """`worker`: which of several processes this is."""
        self._meter = meter
        self._worker = worker
        self._server: asyncio.Server | None = None
        self._giving_up: asyncio.Task[None]

    async def start(self) -> None:
        """Begin to answer the others."""
        if self._worker:
            path = self._worker.path(self._worker.number)
            path.unlink(missing_ok=True)  # of the one that was killed
            self._server = await asyncio.start_unix_server(self._tell, path)
            self._giving_up = asyncio.create_task(self._give_up())

    async def stop(self) -> None:
        """Answer them no longer."""
        if self._server:
            self._server.close()
            self._giving_up.cancel()

    async def look(self, seconds: float) -> State:
        """The state of all processes, given so many seconds to tell it."""
        worker = self._worker
        if not worker:
            return State({0: self._meter.snapshot()})
        others = [number for number in range(worker.count) if number != worker.number]
        answers = await asyncio.gather(*(_ask(worker.path(number), seconds) for number in others))
        found = dict(zip(others, answers, strict=True))
        told = {number: one for number, one in found.items() if isinstance(one, Snapshot)}
        return State(
            dict(sorted({worker.number: self._meter.snapshot(), **told}.items())),
            [number for number, one in found.items() if isinstance(one, FileNotFoundError)],
            [number for number, one in found.items() if isinstance(one, TimeoutError)],
        )

    async def _give_up(self) -> None:
        """End this process when its engine is lost. Its keeper starts another, while the others go on."""
        engine = self._meter.reranker.engine
        await engine.lost.wait()
        await asyncio.sleep(LAST_WORDS)
        log.error("This process ends: %s", engine.trouble)
        os._exit(1)  # whatever threads are stuck

    async def _tell(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            writer.write(self._meter.snapshot().model_dump_json().encode())
            await writer.drain()
        writer.close()


async def _ask(path: Path, seconds: float) -> Snapshot | OSError:
    """What a process counted; FileNotFoundError before its start, TimeoutError when it does not answer."""
    try:
        async with asyncio.timeout(seconds):
            reader, writer = await asyncio.open_unix_connection(path)
            with contextlib.closing(writer):
                return Snapshot.model_validate_json(await reader.read())
    except OSError as error:
        return error
    except ValidationError:  # it ended in the middle
        return ConnectionResetError()
