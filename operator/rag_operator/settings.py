"""The operator's settings: environment variables, as the chart sets them."""

import socket
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from rag_operator.cluster import ConfigError
from rag_operator.status import Images
from rag_service.contract import duration

REDIS_IMAGE = "redis:8.2"


@dataclass(frozen=True)
class Settings:
    """What may be set. Times in seconds."""

    images: Images
    """RAG_SERVICE_IMAGE (required) and RAG_REDIS_IMAGE (redis:8.2): images where a RAGService names none."""
    scrape_period: float
    """RAG_SCRAPE_PERIOD: how often the load of the pods is read. A duration from 1s to 1m."""
    scrape_timeout: float
    """RAG_SCRAPE_TIMEOUT: how long a pod may take to tell its load. A duration from 100ms to 30s."""
    sweep_period: float
    """RAG_SWEEP_PERIOD: how often everything is looked at, whether or not it changed. A duration from 1s to 1h."""
    lease_namespace: str | None
    """RAG_LEASE_NAMESPACE: where the Lease is for which several operators compete; without it this one works alone."""
    identity: str
    """POD_NAME: what tells this operator from others."""
    workers: int = 8
    """Reconciliations at the same time."""


def read(environment: Mapping[str, str]) -> Settings:
    """Read the environment. Raises ConfigError that names the variable."""
    service_image = environment.get("RAG_SERVICE_IMAGE")
    if not service_image:
        raise ConfigError("RAG_SERVICE_IMAGE is not set: name the image that reranker pods run, with its tag")
    return Settings(
        images=Images(service=service_image, redis=environment.get("RAG_REDIS_IMAGE") or REDIS_IMAGE),
        scrape_period=_seconds(environment, "RAG_SCRAPE_PERIOD", "5s", "1s", "1m"),
        scrape_timeout=_seconds(environment, "RAG_SCRAPE_TIMEOUT", "2s", "100ms", "30s"),
        sweep_period=_seconds(environment, "RAG_SWEEP_PERIOD", "5m", "1s", "1h"),
        lease_namespace=environment.get("RAG_LEASE_NAMESPACE") or None,
        identity=f"{environment.get('POD_NAME') or socket.gethostname()}_{uuid.uuid4().hex[:8]}",
    )


def _seconds(environment: Mapping[str, str], name: str, default: str, low: str, high: str) -> float:
    try:
        value = duration.parse(environment.get(name) or default)
    except ValueError as error:
        raise ConfigError(f"{name}: {error}") from error
    if not duration.parse(low) <= value <= duration.parse(high):
        raise ConfigError(f"{name} is {environment[name]}, but must be between {low} and {high}")
    return value / timedelta(seconds=1)
