"""What the cluster, the operator and people read of this pod: probes, metrics, load, statistics."""

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from rag_service import metrics as counted
from rag_service.contract import load
from rag_service.contract.load import LoadReport, merged
from rag_service.contract.wire import Problem
from rag_service.metrics import Exposition, Stats
from rag_service.pod import State
from rag_service.problems import RefusedError

# Seconds that another process of the pod may take to answer: less than a probe or the operator waits, but long enough
# for one that is only kept from its CPU.
PROBES, READERS = 4.0, 1.5

router = APIRouter()


async def _state(request: Request, seconds: float) -> State:
    state: State = await request.app.state.pod.look(seconds)
    return state


@router.get("/healthz", response_class=Response, responses={503: {"model": Problem}})
async def healthz(request: Request) -> Response:
    """Whether the pod works, or may still come round by itself; if not, restart it."""
    if lost := (await _state(request, PROBES)).lost:
        raise RefusedError(503, "Unhealthy", lost)
    return Response("ok\n", media_type="text/plain")


@router.get("/readyz", response_class=Response, responses={503: {"model": Problem}})
async def readyz(request: Request) -> Response:
    """Whether requests should be sent here. There is no server before the models are loaded."""
    if request.app.state.drain.begun:
        raise RefusedError(503, "Unhealthy", "the server is about to stop")
    if trouble := (await _state(request, PROBES)).trouble:
        raise RefusedError(503, "Unhealthy", trouble)
    return Response("ok\n", media_type="text/plain")


@router.get("/metrics", response_class=Response)
async def metrics(request: Request) -> Response:
    """Everything that is counted, for Prometheus. Of several processes each series says whose it is."""
    snapshots = (await _state(request, READERS)).snapshots
    several = request.app.state.settings.workers > 1
    text = generate_latest(Exposition(snapshots, several, request.app.state.reranker))
    return Response(text, headers={"Content-Type": CONTENT_TYPE_LATEST})


@router.get(load.PATH, response_model=LoadReport, responses={503: {"model": Problem}})
async def load_report(request: Request) -> Response:
    """Counters for the operator's scaling decision, over all processes of the pod."""
    state = await _state(request, READERS)
    if state.silent:  # half of the load would look like less load
        raise RefusedError(503, "Unhealthy", f"process {state.silent[0]} of the pod does not answer")
    report = merged([snapshot.load for snapshot in state.snapshots.values()])
    return Response(report.model_dump_json(by_alias=True), media_type="application/json")


@router.get("/stats", response_model=Stats)
async def stats(request: Request) -> Stats:
    """Totals since the process started, for people."""
    snapshots = (await _state(request, READERS)).snapshots
    return counted.stats(list(snapshots.values()), request.app.state.meter.models())
