"""All requests to the API server. Objects are the API's own JSON, as dictionaries."""

import json
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

import aiohttp
from kubernetes.aio import client, config

from rag_operator.api.v1alpha1 import API_VERSION, KIND, PLURAL
from rag_operator.desired.names import MANAGER, Manifest

Object = dict[str, Any]

# The autoscaler owns the replicas of a running Deployment. Whoever once applied a field and then leaves it out resets
# it, so the first number is applied by a manager of its own, which never applies anything else.
SCALE_MANAGER = f"{MANAGER}-scale"

# Seconds for one request; the API server itself gives up after 60.
TIMEOUT = 20.0
PAGE = 500


@dataclass(frozen=True)
class Kind:
    """A kind of the API, and where it is found."""

    api_version: str
    kind: str
    plural: str

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        """The path of one object, of all in a namespace, or of all."""
        parts = ["apis" if "/" in self.api_version else "api", self.api_version]
        parts += ["namespaces", namespace] if namespace else []
        return "/" + "/".join([*parts, self.plural, *filter(None, (name, subresource))])


RAG_SERVICE = Kind(API_VERSION, KIND, PLURAL)
DEPLOYMENT = Kind("apps/v1", "Deployment", "deployments")
SECRET = Kind("v1", "Secret", "secrets")
POD = Kind("v1", "Pod", "pods")
HPA = Kind("autoscaling/v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers")
LEASE = Kind("coordination.k8s.io/v1", "Lease", "leases")
EVENT = Kind("events.k8s.io/v1", "Event", "events")
POD_METRICS = Kind("metrics.k8s.io/v1beta1", "PodMetrics", "pods")

# Everything that a RAGService may consist of: these are watched, listed and pruned.
CHILDREN = (
    Kind("v1", "ServiceAccount", "serviceaccounts"),
    Kind("v1", "ConfigMap", "configmaps"),
    SECRET,
    Kind("v1", "Service", "services"),
    DEPLOYMENT,
    HPA,
)


class ClusterError(Exception):
    """A request failed. `status` is the HTTP status, None where there was no answer."""

    def __init__(
        self, what: str, status: int | None, message: str, *, retry_after: float | None = None, cause: str | None = None
    ) -> None:
        super().__init__(f"{what}: {message}" if status is None else f"{what}: {message} ({status})")
        self.status = status
        self.cause = cause
        self.message = message
        self.retry_after = retry_after

    @property
    def retryable(self) -> bool:
        """Whether the same request may succeed soon: no answer, a conflict, too many requests, a broken server."""
        return self.status is None or self.status in {408, 409, 429} or self.status >= 500

    @property
    def terminating(self) -> bool:
        """Whether the namespace is on its way out, and takes nothing any more."""
        return self.cause == "NamespaceTerminating"


class Cluster:
    """A connection to one API server."""

    def __init__(self, configuration: client.Configuration) -> None:
        self._configuration = configuration
        self._api = client.ApiClient(configuration)

    @classmethod
    async def connect(cls, environment: Mapping[str, str]) -> Self:
        """Use the kubeconfig that KUBECONFIG names, the pod's service account, or ~/.kube/config: the first there is.

        Raises ConfigError when there is none.
        """
        configuration = client.Configuration()
        try:
            kubeconfig = environment.get("KUBECONFIG")
            if not kubeconfig and "KUBERNETES_SERVICE_HOST" in environment:
                config.load_incluster_config(client_configuration=configuration)
            else:
                await config.load_kube_config(kubeconfig, client_configuration=configuration, persist_config=False)
        except (config.ConfigException, OSError, ssl.SSLError) as error:
            raise ConfigError(
                f"no way to a cluster: {error}; set KUBECONFIG to the path of a kubeconfig, or run in a pod"
            ) from error
        return cls(configuration)

    async def close(self) -> None:
        """Close the connections."""
        await self._api.close()

    async def credentials(self) -> Mapping[str, Any]:
        """Server, CA and credentials as `kopf.ConnectionInfo` takes them; the token is as fresh as its file."""
        header = await self._configuration.get_api_key_with_prefix("BearerToken")
        return {
            "server": self._configuration.host,
            "ca_path": self._configuration.ssl_ca_cert,
            "insecure": not self._configuration.verify_ssl,
            "certificate_path": self._configuration.cert_file,
            "private_key_path": self._configuration.key_file,
            "scheme": "Bearer" if header else None,
            "token": header.split(" ")[-1] if header else None,
        }

    async def get(self, kind: Kind, namespace: str, name: str) -> Object | None:
        """One object, or None when it does not exist."""
        try:
            return await self._request("GET", kind.path(namespace, name))
        except ClusterError as error:
            if error.status == 404:
                return None
            raise

    async def list(self, kind: Kind, namespace: str | None = None, labels: str | None = None) -> list[Object]:
        """All objects of a kind, in one namespace or in all, that a label selector matches."""
        return [item async for item in self._pages(kind, namespace, labels)]

    async def apply(self, kind: Kind, manifest: Manifest, *, manager: str = MANAGER) -> Object:
        """Server-side apply, which takes fields over from other managers; returns the object as it then is.

        With a `uid` in the manifest: status 409 when there is no such object, or another of its name.
        """
        metadata = manifest["metadata"]
        return await self._request(
            "PATCH",
            kind.path(metadata["namespace"], metadata["name"]),
            query={"fieldManager": manager, "force": "true"},
            body=manifest,
            content_type="application/apply-patch+yaml",
        )

    async def apply_status(self, kind: Kind, manifest: Manifest) -> Object:
        """Server-side apply of the status."""
        metadata = manifest["metadata"]
        return await self._request(
            "PATCH",
            kind.path(metadata["namespace"], metadata["name"], "status"),
            query={"fieldManager": MANAGER, "force": "true"},
            body=manifest,
            content_type="application/apply-patch+yaml",
        )

    async def create(self, kind: Kind, manifest: Manifest) -> Object:
        """Create an object; status 409 when it exists."""
        return await self._request("POST", kind.path(manifest["metadata"]["namespace"]), body=manifest)

    async def replace(self, kind: Kind, manifest: Manifest) -> Object:
        """Replace an object; status 409 when it is not the version that the manifest was read from."""
        metadata = manifest["metadata"]
        return await self._request("PUT", kind.path(metadata["namespace"], metadata["name"]), body=manifest)

    async def delete(self, kind: Kind, item: Object) -> None:
        """Delete this very object, and what it owns in the background; one that is gone already is fine."""
        metadata = item["metadata"]
        try:
            await self._request(
                "DELETE",
                kind.path(metadata["namespace"], metadata["name"]),
                body={"propagationPolicy": "Background", "preconditions": {"uid": metadata["uid"]}},
            )
        except ClusterError as error:
            if error.status not in {404, 409}:
                raise

    async def scale(self, kind: Kind, namespace: str, name: str, replicas: int) -> None:
        """Set the replicas through the scale subresource."""
        await self._request(
            "PATCH",
            kind.path(namespace, name, "scale"),
            query={"fieldManager": SCALE_MANAGER},
            body={"spec": {"replicas": replicas}},
            content_type="application/merge-patch+json",
        )

    async def _pages(self, kind: Kind, namespace: str | None, labels: str | None) -> AsyncIterator[Object]:
        query = {"limit": str(PAGE)} | ({"labelSelector": labels} if labels else {})
        while True:
            page = await self._request("GET", kind.path(namespace), query=query)
            for item in page["items"]:
                # Lists leave out what all their items share.
                yield {"apiVersion": kind.api_version, "kind": kind.kind} | item
            if not page["metadata"].get("continue"):
                return
            query["continue"] = page["metadata"]["continue"]

    async def _request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Manifest | None = None,
        content_type: str = "application/json",
    ) -> Object:
        what = f"{method} {path}"
        headers = {"Accept": "application/json", "Content-Type": content_type}
        try:
            request = await self._api.param_serialize(
                method,
                path,
                query_params=list((query or {}).items()),
                header_params=headers,
                body=body,
                auth_settings=["BearerToken"],  # without it a token is never sent; certificates always are
            )
            answer = await self._api.call_api(*request, _request_timeout=aiohttp.ClientTimeout(total=TIMEOUT))
            data = await answer.read()
        except TimeoutError as error:
            raise ClusterError(what, None, f"no answer within {TIMEOUT:.0f}s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise ClusterError(what, None, str(error) or type(error).__name__) from error
        if answer.status >= 400:
            raise _failure(what, answer.status, data, answer.getheader("Retry-After"))
        return _object(what, data)


class ConfigError(Exception):
    """The operator cannot start as it is configured."""


def _failure(what: str, status: int, data: bytes, retry_after: str | None) -> ClusterError:
    """The error that the API server's Status object describes, or whatever a proxy on the way wrote."""
    try:
        told = json.loads(data)
        message = str(told["message"])
        causes = [one.get("reason") for one in (told.get("details") or {}).get("causes") or []]
    except (ValueError, TypeError, KeyError, AttributeError):
        message, causes = data[:200].decode(errors="replace").strip() or "no message", []
    seconds = float(retry_after) if retry_after and retry_after.isdigit() else None
    return ClusterError(what, status, message, retry_after=seconds, cause=causes[0] if causes else None)


def _object(what: str, data: bytes) -> Object:
    try:
        parsed = json.loads(data)
    except ValueError as error:
        raise ClusterError(what, None, "the answer is not JSON") from error
    if not isinstance(parsed, dict):
        raise ClusterError(what, None, "the answer is not an object")
    return parsed
