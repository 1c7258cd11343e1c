"""A proxy between the operator and the API server that fails on demand: statuses, broken connections, silence."""

import asyncio
import json
import random
import ssl
from collections.abc import Callable
from pathlib import Path

import aiohttp
from aiohttp import web

Fault = Callable[[web.Request], str | None]
"""What happens to a request: an HTTP status, `drop`, `stall`, `cut` (a watch, after a while), or None."""

HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "content-encoding", "host"}


class Proxy:
    """Plain HTTP on the loopback interface in front of an API server."""

    def __init__(self, kubeconfig: Path) -> None:
        """`kubeconfig` says where the API server is; who asks is said by each request."""
        config = json.loads(kubeconfig.read_text())
        self._config = config
        self._server = config["clusters"][0]["cluster"]["server"]
        self._fault: Fault | None = None
        self.failed: dict[str, int] = {}
        self.passed = 0

    async def start(self, directory: Path) -> Path:
        """Serve; returns a kubeconfig that leads here."""
        # The test is about what comes back, not about who answers: the certificate is not checked.
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=context, limit=0), timeout=aiohttp.ClientTimeout(total=None)
        )
        app = web.Application(client_max_size=2**24)
        app.router.add_route("*", "/{path:.*}", self._pass)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        port = self._runner.addresses[0][1]
        config = json.loads(json.dumps(self._config))
        for cluster in config["clusters"]:
            cluster["cluster"] = {"server": f"http://127.0.0.1:{port}"}
        path = directory / "proxy-kubeconfig"
        path.write_text(json.dumps(config))
        return path

    async def stop(self) -> None:
        """End all connections."""
        await self._runner.cleanup()
        await self._session.close()

    def fail(self, fault: Fault | None) -> None:
        """From now on, requests meet this fault."""
        self._fault = fault

    async def _pass(self, request: web.Request) -> web.StreamResponse:
        fault = self._fault(request) if self._fault else None
        if fault:
            self.failed[fault] = self.failed.get(fault, 0) + 1
        else:
            self.passed += 1
        if fault == "stall":
            await asyncio.sleep(3600)
        if fault == "drop":
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        if fault and fault != "cut":
            status = {
                "kind": "Status",
                "apiVersion": "v1",
                "status": "Failure",
                "message": "injected",
                "code": int(fault),
            }
            headers = {"Retry-After": "1"} if fault == "429" else {}
            return web.json_response(status, status=int(fault), headers=headers)
        headers = {name: value for name, value in request.headers.items() if name.lower() not in HOP_BY_HOP}
        async with self._session.request(
            request.method, f"{self._server}{request.rel_url}", data=await request.read() or None, headers=headers
        ) as answer:
            kept = {name: value for name, value in answer.headers.items() if name.lower() not in HOP_BY_HOP}
            response = web.StreamResponse(status=answer.status, headers=kept)
            await response.prepare(request)
            try:
                async with asyncio.timeout(random.uniform(0.1, 1.5) if fault == "cut" else None):
                    async for chunk in answer.content.iter_any():
                        await response.write(chunk)
            except TimeoutError:
                assert request.transport is not None
                request.transport.abort()
            except (aiohttp.ClientError, ConnectionError):
                pass  # one of the two went away
            return response
