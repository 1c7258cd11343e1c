"""What all pods have in common: Kubernetes' restricted Pod Security Standard, and resources."""

from collections.abc import Iterable

from rag_operator.api.v1alpha1 import LocalObjectReference, Resources
from rag_operator.desired.names import Manifest

# The user and group that the project's images declare; any image runs as it, since nothing is written but /tmp.
USER = 65532

CONTAINER_SECURITY: Manifest = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}

CONTAINER_DEFAULTS: Manifest = {
    "securityContext": CONTAINER_SECURITY,
    # A container's last words reach its status, and from there the RAGService's.
    "terminationMessagePolicy": "FallbackToLogsOnError",
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

# The one directory that a container may write to: the images have HOME there.
TMP_MOUNT: Manifest = {"name": "tmp", "mountPath": "/tmp"}  # noqa: S108 - the pod's own


def resources(wanted: Resources) -> Manifest:
    """Limits, and requests that are the limits where not given."""
    return {"limits": dict(wanted.limits), "requests": {**wanted.limits, **wanted.requests}}


def pull_secrets(secrets: Iterable[LocalObjectReference]) -> Manifest:
    """The part of a pod's spec that names its image pull secrets; nothing where there are none."""
    named = [{"name": secret.name} for secret in secrets]
    return {"imagePullSecrets": named} if named else {}
