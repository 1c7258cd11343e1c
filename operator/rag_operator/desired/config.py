"""The service's settings, in a ConfigMap, and their hash, by which pods restart when and only when they change."""

import hashlib
import json
from datetime import timedelta
from pathlib import Path

from rag_operator.api.v1alpha1 import RAGService
from rag_operator.desired import names, quantity
from rag_operator.desired.names import Component, Manifest
from rag_service.contract.settings import CacheSettings, ModelSettings, RedisSettings, ServiceSettings

DIRECTORY = Path("/etc/ragservice")
FILE = "config.json"
PASSWORD_FILE = "redis/password"  # noqa: S105 - a path
REDIS_PORT = 6379
# How long the service still takes requests after SIGTERM, while it asks clients to connect elsewhere.
DRAIN = timedelta(seconds=2)


def settings(rag: RAGService) -> ServiceSettings:
    """What `rag-service serve` reads."""
    return ServiceSettings(
        service=f"{rag.metadata.namespace}/{rag.metadata.name}",
        models=tuple(ModelSettings(name=model.name, uri=model.uri) for model in rag.spec.models),
        cache=CacheSettings(
            ttl=rag.spec.cache.ttl,
            redis=RedisSettings(
                url=f"redis://{names.redis(rag.metadata.name)}:{REDIS_PORT}/0",
                password_file=DIRECTORY / PASSWORD_FILE,
            ),
        ),
        request_timeout=rag.spec.slo.timeout,
        drain=DRAIN,
        threads=max(1, int(quantity.parse(rag.spec.pod.resources.limits["cpu"]))),
    )


def text(rag: RAGService) -> str:
    """The settings as JSON: only what is set here, so that a newer operator writes the same for an older service."""
    return json.dumps(settings(rag).model_dump(mode="json", by_alias=True, exclude_unset=True), indent=2) + "\n"


def digest(*parts: str) -> str:
    """A short hash of the parts."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def config_map(rag: RAGService) -> Manifest:
    """The ConfigMap that holds the settings."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": names.metadata(rag, names.config(rag.metadata.name), Component.RERANKER),
        "data": {FILE: text(rag)},
    }
