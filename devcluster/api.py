"""A minimal client of the cluster's API server, for what the cluster itself needs."""

import http.client
import json
import ssl
from typing import Any

from devcluster.errors import DevclusterError
from devcluster.paths import ClusterPaths


class Api:
    """Speaks as the administrator to the API server on the host's loopback. No proxy is asked."""

    def __init__(self, paths: ClusterPaths, port: int) -> None:
        context = ssl.create_default_context(cafile=str(paths.pki / "ca.crt"))
        context.load_cert_chain(paths.pki / "admin.crt", paths.pki / "admin.key")
        self._port = port
        self._context = context

    def get(self, path: str) -> tuple[int, bytes]:
        """Status and body; status 0 where the server can't be reached."""
        try:
            return self._request("GET", path)
        except (OSError, http.client.HTTPException) as error:
            return 0, str(error).encode()

    def apply(self, path: str, manifest: dict[str, Any]) -> None:
        """Server-side apply of one object at its full path, whose last part is the object's name."""
        named = manifest | {"metadata": manifest.get("metadata", {}) | {"name": path.rpartition("/")[2]}}
        status, body = self._request(
            "PATCH", f"{path}?fieldManager=devcluster&force=true", json.dumps(named), "application/apply-patch+yaml"
        )
        if status not in {200, 201}:
            raise DevclusterError(f"the API server refused {path}: {body.decode(errors='replace')[:300]}")

    def _request(self, method: str, path: str, body: str | None = None, kind: str = "") -> tuple[int, bytes]:
        client = http.client.HTTPSConnection("127.0.0.1", self._port, timeout=10, context=self._context)
        try:
            client.request(method, path, body, {"Content-Type": kind} if kind else {})
            response = client.getresponse()
            return response.status, response.read()
        finally:
            client.close()
