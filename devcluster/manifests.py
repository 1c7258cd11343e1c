"""API objects that the node's DNS and metrics server need: permissions, and the registration of the metrics API."""

import base64
from pathlib import Path
from typing import Any

from devcluster import network

COREDNS_USER = "devcluster:coredns"
METRICS_SERVER_USER = "devcluster:metrics-server"
METRICS_SERVER_HOST = "metrics-server.kube-system.svc"
METRICS_SERVER_PORT = 4443
_RBAC = "/apis/rbac.authorization.k8s.io/v1"
_SYSTEM = "/namespaces/kube-system"
Manifest = tuple[str, dict[str, Any]]


def node_manifests(authority: Path) -> list[Manifest]:
    """Path and object of each, in the order in which they are applied."""
    read = ["get", "list", "watch"]
    return [
        _role("system:coredns", [_rule("", ["endpoints", "services", "pods", "namespaces"], read),
                                 _rule("discovery.k8s.io", ["endpointslices"], read)]),
        _binding("system:coredns", "system:coredns", COREDNS_USER),
        _role("system:metrics-server", [_rule("", ["nodes/metrics"], ["get"]), _rule("", ["pods", "nodes"], read)]),
        _binding("system:metrics-server", "system:metrics-server", METRICS_SERVER_USER),
        # It asks the API server who its own callers are and what they may do.
        _binding("metrics-server:system:auth-delegator", "system:auth-delegator", METRICS_SERVER_USER),
        (
            f"{_RBAC}{_SYSTEM}/rolebindings/metrics-server-auth-reader",
            {
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "RoleBinding",
                "roleRef": _reference("Role", "extension-apiserver-authentication-reader"),
                "subjects": [_user(METRICS_SERVER_USER)],
            },
        ),
        # Whoever may view a namespace may see what its pods use.
        _role(
            "system:aggregated-metrics-reader",
            [_rule("metrics.k8s.io", ["pods", "nodes"], read)],
            labels={f"rbac.authorization.k8s.io/aggregate-to-{role}": "true" for role in ("view", "edit", "admin")},
        ),
        (
            f"/api/v1{_SYSTEM}/services/metrics-server",
            {
                "apiVersion": "v1",
                "kind": "Service",
                # No selector: the server is a process on the node, not a pod.
                "spec": {"ports": [{"name": "https", "port": 443, "targetPort": METRICS_SERVER_PORT}]},
            },
        ),
        (
            f"/apis/discovery.k8s.io/v1{_SYSTEM}/endpointslices/metrics-server",
            {
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {
                    "labels": {
                        "kubernetes.io/service-name": "metrics-server",
                        "endpointslice.kubernetes.io/managed-by": "devcluster",
                    }
                },
                "addressType": "IPv4",
                "endpoints": [{"addresses": [network.NODE_ADDRESS], "conditions": {"ready": True}}],
                "ports": [{"name": "https", "port": METRICS_SERVER_PORT, "protocol": "TCP"}],
            },
        ),
        (
            "/apis/apiregistration.k8s.io/v1/apiservices/v1beta1.metrics.k8s.io",
            {
                "apiVersion": "apiregistration.k8s.io/v1",
                "kind": "APIService",
                "spec": {
                    "group": "metrics.k8s.io",
                    "version": "v1beta1",
                    "groupPriorityMinimum": 100,
                    "versionPriority": 100,
                    "caBundle": base64.b64encode(authority.read_bytes()).decode(),
                    "service": {"name": "metrics-server", "namespace": "kube-system", "port": 443},
                },
            },
        ),
    ]  # fmt: skip


def _role(name: str, rules: list[dict[str, Any]], labels: dict[str, str] | None = None) -> Manifest:
    role = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"labels": labels or {}},
        "rules": rules,
    }
    return f"{_RBAC}/clusterroles/{name}", role


def _rule(group: str, resources: list[str], verbs: list[str]) -> dict[str, Any]:
    return {"apiGroups": [group], "resources": resources, "verbs": verbs}


def _binding(name: str, role: str, user: str) -> Manifest:
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "roleRef": _reference("ClusterRole", role),
        "subjects": [_user(user)],
    }
    return f"{_RBAC}/clusterrolebindings/{name}", binding


def _reference(kind: str, name: str) -> dict[str, str]:
    return {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name}


def _user(name: str) -> dict[str, str]:
    return {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": name}
