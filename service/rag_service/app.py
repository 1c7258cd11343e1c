"""The application: routes over one reranker."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from rag_service import __version__, cpus, problems
from rag_service.cache import Cache
from rag_service.contract.settings import ServiceSettings
from rag_service.contract.wire import RerankRequest
from rag_service.engine.engine import Engine
from rag_service.engine.rankers import Ranker
from rag_service.metrics import Meter
from rag_service.pod import Pod
from rag_service.rerank import Reranker
from rag_service.routes import observe, rerank
from rag_service.watch import Drain, Watch
from rag_service.workers import Worker


def create(
    settings: ServiceSettings, rankers: Mapping[str, Ranker], cache: Cache, drain: Drain, worker: Worker | None = None
) -> FastAPI:
    """The application. `rankers`: loaded models by name, the one that answers by default first.

    `worker`: which of several processes it is that serve together.
    """
    engine = Engine(cpus.threads_of(settings), settings.request_timeout)
    reranker = Reranker(rankers, engine, cache)
    meter = Meter(reranker)
    pod = Pod(meter, worker)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await engine.start()
        await cache.start()
        await pod.start()
        yield
        await pod.stop()
        await cache.stop()
        await engine.stop()

    app = FastAPI(
        title="ragservice",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,  # its page loads scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.settings = settings
    app.state.reranker = reranker
    app.state.meter = meter
    app.state.pod = pod
    app.state.drain = drain
    app.include_router(rerank.router)
    app.include_router(observe.router)
    app.add_middleware(Watch, meter=meter, drain=drain, longest=settings.request_timeout.total_seconds())
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    problems.install(app)
    return app


def _openapi(app: FastAPI) -> dict[str, Any]:
    """The description of the API, with the bodies that routes read by themselves."""
    if not app.openapi_schema:
        made = get_openapi(title=app.title, version=app.version, routes=app.routes)
        template = "#/components/schemas/{model}"
        _, bodies = models_json_schema([(RerankRequest, "validation")], ref_template=template)
        made["components"]["schemas"] |= bodies["$defs"]
        app.openapi_schema = made
    return app.openapi_schema
