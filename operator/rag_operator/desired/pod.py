"""What all pods have in common: Kubernetes' restricted Pod Security Standard, and resources."""

from collections.abc import Mapping

from rag_operator.api.v1alpha1 import Resources
from rag_operator.desired.names import Manifest

# The user and group that the project's images declare; any image runs as it, since nothing is written but /tmp.
USER = 65532

CONTAINER_SECURITY: Manifest = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}

POD_SECURITY: Manifest = {
    "runAsNonRoot": True,
    "runAsUser": USER,
    "runAsGroup": USER,
    "fsGroup": USER,
    "seccompProfile": {"type": "RuntimeDefault"},
}

POD_DEFAULTS: Manifest = {
    "automountServiceAccountToken": False,
    "enableServiceLinks": False,
    "securityContext": POD_SECURITY,
}


def resources(wanted: Resources) -> Mapping[str, Mapping[str, str | int]]:
    """Limits, and requests that are the limits where not given."""
    return {"limits": dict(wanted.limits), "requests": {**wanted.limits, **wanted.requests}}
