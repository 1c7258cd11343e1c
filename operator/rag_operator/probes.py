"""HTTP for the kubelet and Prometheus: `/healthz`, `/readyz`, `/metrics`."""

from collections.abc import Callable

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

Check = Callable[[], str | None]
"""None when all is well, else what is wrong."""


async def serve(port: int, healthy: Check, ready: Check, registry: CollectorRegistry) -> web.AppRunner:
    """Serve until the returned runner is cleaned up. Port 0 takes any. Raises OSError when the port is taken."""

    def probe(check: Check) -> Callable[[web.Request], object]:
        async def answer(_: web.Request) -> web.Response:
            wrong = check()
            return web.Response(status=503 if wrong else 200, text=(wrong or "ok") + "\n")

        return answer

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.router.add_get("/healthz", probe(healthy))  # type: ignore[arg-type]
    app.router.add_get("/readyz", probe(ready))  # type: ignore[arg-type]
    app.router.add_get("/metrics", metrics)
    runner = web.AppRunner(app, handle_signals=False, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, port=port).start()
    return runner
