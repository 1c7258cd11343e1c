"""The Redis that holds the cache: one pod whose memory is the cache, nothing on disk."""

import binascii
import re
from base64 import b64decode, b64encode

from rag_operator.api.v1alpha1 import RAGService
from rag_operator.desired import names, quantity
from rag_operator.desired.config import REDIS_PORT, digest
from rag_operator.desired.names import Component, Manifest
from rag_operator.desired.pod import CONTAINER_DEFAULTS, POD_DEFAULTS, TMP_MOUNT, pull_secrets, resources

PASSWORD_KEY = "password"  # noqa: S105 - the name of the key
CONFIG_KEY = "redis.conf"
DIRECTORY = "/etc/redis-config"

# The rest of the container's limit is for clients' buffers, replication of nothing, and fragmentation.
MEMORY_SHARE = (3, 4)


# What `secrets.token_urlsafe(32)` makes, and nothing that would need quoting in redis.conf.
_PASSWORD = re.compile(r"[A-Za-z0-9_-]{32,128}")


def existing_password(secret: Manifest | None) -> str | None:
    """The password in the Secret; None where there is none that can be kept, so that a new one must be made."""
    encoded = ((secret or {}).get("data") or {}).get(PASSWORD_KEY, "")
    try:
        password = b64decode(encoded, validate=True).decode("ascii")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return password if _PASSWORD.fullmatch(password) else None


def configuration(rag: RAGService, password: str) -> str:
    """redis.conf. The password stands in this file and nowhere on a command line."""
    numerator, denominator = MEMORY_SHARE
    maxmemory = int(quantity.parse(rag.spec.redis.resources.limits["memory"])) * numerator // denominator
    return "\n".join(
        [
            f"port {REDIS_PORT}",
            f"requirepass {password}",
            f"maxmemory {maxmemory}",
            "maxmemory-policy allkeys-lru",
            'save ""',
            "appendonly no",
            "dir /tmp",
            "",
        ]
    )


def secret(rag: RAGService, password: str) -> Manifest:
    """The Secret with the password, and with Redis' configuration, which holds it too."""
    data = {PASSWORD_KEY: password, CONFIG_KEY: configuration(rag, password)}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": names.metadata(rag, names.redis(rag.metadata.name), Component.REDIS),
        "type": "Opaque",
        "data": {key: b64encode(value.encode()).decode() for key, value in data.items()},
    }


def service(rag: RAGService) -> Manifest:
    """The Service under which the reranker pods find Redis."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": names.metadata(rag, names.redis(rag.metadata.name), Component.REDIS),
        "spec": {
            "type": "ClusterIP",
            "sessionAffinity": "None",
            "selector": names.selector(rag, Component.REDIS),
            "ports": [{"name": "redis", "port": REDIS_PORT, "targetPort": "redis", "protocol": "TCP"}],
        },
    }


def deployment(rag: RAGService, image: str, password: str) -> Manifest:
    """The Deployment: one pod. Recreate, because two of them would answer with half of the cache each."""
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": names.metadata(rag, names.redis(rag.metadata.name), Component.REDIS),
        "spec": {
            "replicas": 1,
            "revisionHistoryLimit": 2,
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": names.selector(rag, Component.REDIS)},
            "template": {
                "metadata": {
                    "labels": names.labels(rag, Component.REDIS),
                    "annotations": {names.CONFIG_HASH: digest(configuration(rag, password))},
                },
                "spec": {
                    **POD_DEFAULTS,
                    **pull_secrets(rag.spec.redis.image_pull_secrets),
                    "serviceAccountName": rag.metadata.name,
                    "terminationGracePeriodSeconds": 5,
                    "containers": [_container(rag, image)],
                    "volumes": [
                        {
                            "name": "config",
                            "secret": {
                                "secretName": names.redis(rag.metadata.name),
                                "defaultMode": 0o440,
                                "items": [{"key": CONFIG_KEY, "path": CONFIG_KEY}],
                            },
                        },
                        {"name": "tmp", "emptyDir": {"sizeLimit": "16Mi"}},
                    ],
                },
            },
        },
    }


def _container(rag: RAGService, image: str) -> Manifest:
    connect = {"tcpSocket": {"port": "redis"}}
    # Without a password Redis answers PING with an error, which shows as well that it is alive.
    ping = {"exec": {"command": ["redis-cli", "-p", str(REDIS_PORT), "ping"]}}
    return {
        "name": "redis",
        "image": image,
        "command": ["redis-server", f"{DIRECTORY}/{CONFIG_KEY}"],
        "ports": [{"name": "redis", "containerPort": REDIS_PORT, "protocol": "TCP"}],
        "resources": resources(rag.spec.redis.resources),
        **CONTAINER_DEFAULTS,
        "startupProbe": {**connect, "periodSeconds": 1, "failureThreshold": 60},
        "readinessProbe": {**connect, "periodSeconds": 5},
        "livenessProbe": {**ping, "periodSeconds": 20, "timeoutSeconds": 5, "failureThreshold": 3},
        "volumeMounts": [
            {"name": "config", "mountPath": DIRECTORY, "readOnly": True},
            TMP_MOUNT,
        ],
    }
