"""What the cluster, the operator and people read: probes, metrics, load, statistics."""

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from rag_service.contract import load
from rag_service.contract.load import LoadReport
from rag_service.contract.wire import Problem
from rag_service.metrics import Meter, Stats
from rag_service.problems import RefusedError

router = APIRouter()


@router.get("/healthz", response_class=Response, responses={503: {"model": Problem}})
async def healthz(request: Request) -> Response:
    """Whether the process works, or may still come round by itself; if not, restart it."""
    engine = request.app.state.reranker.engine
    if not engine.alive:
        raise RefusedError(503, "Unhealthy", f"{engine.trouble}: the process has to be restarted")
    return Response("ok\n", media_type="text/plain")


@router.get("/readyz", response_class=Response, responses={503: {"model": Problem}})
async def readyz(request: Request) -> Response:
    """Whether requests should be sent here. There is no server before the models are loaded."""
    if request.app.state.drain.begun:
        raise RefusedError(503, "Unhealthy", "the server is about to stop")
    if trouble := request.app.state.reranker.engine.trouble:
        raise RefusedError(503, "Unhealthy", trouble)
    return Response("ok\n", media_type="text/plain")


@router.get("/metrics", response_class=Response)
async def metrics(request: Request) -> Response:
    """Everything that is counted, for Prometheus."""
    return Response(generate_latest(request.app.state.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})


@router.get(load.PATH, response_model=LoadReport)
async def load_report(request: Request) -> Response:
    """Counters for the operator's scaling decision."""
    meter: Meter = request.app.state.meter
    return Response(meter.load().model_dump_json(by_alias=True), media_type="application/json")


@router.get("/stats", response_model=Stats)
async def stats(request: Request) -> Stats:
    """Totals since the process started, for people."""
    meter: Meter = request.app.state.meter
    return meter.stats()
