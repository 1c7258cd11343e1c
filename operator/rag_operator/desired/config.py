"""The service's settings, in a ConfigMap, and their hash, by which pods restart when and only when they change."""

import hashlib
import json
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

from rag_operator.api.v1alpha1 import Backend, Model, Precision, RAGService
from rag_operator.desired import names
from rag_operator.desired.names import Component, Manifest
from rag_service.contract import settings as contract
from rag_service.contract.settings import CacheSettings, ModelSettings, RedisSettings, ServiceSettings

DIRECTORY = Path("/etc/ragservice")
FILE = "config.json"
PASSWORD_FILE = "redis/password"  # noqa: S105 - a path
REDIS_PORT = 6379
# How long the service still takes requests after SIGTERM, while it asks clients to connect elsewhere.
DRAIN = timedelta(seconds=2)

_BACKENDS: Mapping[Backend, contract.BackendName] = {
    Backend.OPENVINO: "openvino",
    Backend.ONNX_RUNTIME: "onnxruntime",
    Backend.SENTENCE_TRANSFORMERS: "sentence-transformers",
}
_PRECISIONS: Mapping[Precision, contract.Precision] = {
    Precision.FP32: "fp32",
    Precision.BF16: "bf16",
    Precision.INT8: "int8",
}


def settings(rag: RAGService) -> ServiceSettings:
    """What `rag-service serve` reads; how many threads its CPUs are good for it knows from the container's limit."""
    workers = rag.spec.pod.workers
    return ServiceSettings(
        service=f"{rag.metadata.namespace}/{rag.metadata.name}",
        models=tuple(map(_model, rag.spec.models)),
        cache=CacheSettings(
            ttl=rag.spec.cache.ttl,
            redis=RedisSettings(
                url=f"redis://{names.redis(rag.metadata.name)}:{REDIS_PORT}/0",
                password_file=DIRECTORY / PASSWORD_FILE,
            ),
        ),
        request_timeout=rag.spec.slo.timeout,
        drain=DRAIN,
        **({"workers": workers} if workers > 1 else {}),
    )


def _model(model: Model) -> ModelSettings:
    """A model's settings; what is left to the service is not written, as in `text`."""
    chosen = {"backend": _BACKENDS.get(model.backend), "precision": _PRECISIONS.get(model.precision)}
    set_here = {name: value for name, value in chosen.items() if value}
    return ModelSettings.model_validate({"name": model.name, "uri": model.uri, **set_here})


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
