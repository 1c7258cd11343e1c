"""The service's settings: one JSON file that the operator writes into a ConfigMap."""

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, PositiveInt, SecretStr, model_validator

from rag_service.contract.duration import Duration
from rag_service.contract.model import Shape

PORT = 8081
# Where a pod mounts the volume with prepared models; the image searches it, and then its own.
MODELS_DIRECTORY = Path("/var/lib/ragservice/models")

# The part of a model's URI before `://`, and where its files are then found.
MODEL_SCHEMES = {
    "file": "a directory that the container can read",
    "hf": "a repository of the Hugging Face hub",
    "package": "an installed Python package that carries the model",
}


BackendName = Literal["openvino", "onnxruntime", "sentence-transformers"]
Precision = Literal["fp32", "bf16", "int8"]
Share = Annotated[float, Field(ge=0, le=1)]


class ModelSettings(Shape):
    """One rung of the quality ladder."""

    name: str = Field(
        pattern=r"^[!-~]+$", description="what clients call the model: visible ASCII, it goes into a header"
    )
    uri: str = Field(pattern=rf"^({'|'.join(MODEL_SCHEMES)})://.+$", description="where the model's files are")
    backend: BackendName | Literal["auto"] = Field(
        default="auto", description="what runs the model; auto: whatever is fastest on this CPU and passes the gate"
    )
    precision: Precision | Literal["auto"] = Field(
        default="auto", description="what it computes in; auto as for backend"
    )


class FidelityGate(Shape):
    """How near to the fp32 scores a backend has to come for `auto` to choose it."""

    tau: Share = Field(default=0.93, description="least rank correlation, Kendall's tau-b, mean over queries")
    top10: Share = Field(default=0.95, description="least share of the ten best that it finds too, mean over queries")
    ndcg_loss: Share = Field(default=0.01, description="most nDCG@10 that is lost, where it is known what is relevant")
    batch_delta: Share = Field(
        default=0.01,
        description="most by which two scores of a pair differ, in standard deviations of the scores, when other "
        "pairs share its batch",
    )


class RedisSettings(Shape):
    """Where the cache is kept."""

    url: str = Field(description="redis://host:port/db, without credentials")
    password_file: Path | None = Field(default=None, description="file that holds the password")


class CacheSettings(Shape):
    """How long a score is kept."""

    ttl: Duration = Field(description="a score is recomputed after this time, however often it was read")
    redis: RedisSettings | None = Field(default=None, description="without it nothing is cached")


class Limits(Shape):
    """The largest request that is accepted; a larger one gets 413 or 422."""

    body_bytes: PositiveInt = 4 * 1024 * 1024
    documents: PositiveInt = 1000
    text_characters: PositiveInt = 100_000


class ServiceSettings(Shape):
    """Everything that `rag-service serve --config FILE` reads."""

    service: str = Field(min_length=1, description="namespace/name of the RAGService: part of every cache key")
    models: tuple[ModelSettings, ...] = Field(min_length=1, description="best first; the first answers by default")
    gate: FidelityGate = FidelityGate()
    cache: CacheSettings
    request_timeout: Duration = Field(description="a request that takes longer gets 504")
    drain: Duration = Field(
        default=timedelta(seconds=2),
        description="after SIGTERM requests are still taken for this long, and clients asked to connect elsewhere",
    )
    workers: PositiveInt = Field(
        default=1, description="processes that serve the port together; more than one pays where one event loop is full"
    )
    threads: PositiveInt | None = Field(
        default=None,
        description="engine threads of each worker; null: its share of the whole CPUs of the container's limit",
    )
    limits: Limits = Limits()

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [model.name for model in self.models]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"models: more than one is called {', '.join(twice)}")
        return self


def load(path: Path) -> ServiceSettings:
    """Read the file. Raises pydantic.ValidationError that names each wrong field."""
    return ServiceSettings.model_validate_json(path.read_bytes())


def read_password(redis: RedisSettings) -> SecretStr | None:
    """The password, or None where none is set. Raises OSError when the file cannot be read."""
    return SecretStr(redis.password_file.read_text().strip()) if redis.password_file else None
