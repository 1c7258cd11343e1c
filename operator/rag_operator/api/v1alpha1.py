"""RAGService, version v1alpha1: the one source of the CRD, of `kubectl explain`, and of what the operator reads.

Defaults and rules are enforced by the API server (structural schema and CEL), so a resource that the operator
sees is valid; it is parsed into these types once, at the border.
"""

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, PositiveInt, StringConstraints, WithJsonSchema

from rag_service.contract import duration
from rag_service.contract.model import Shape
from rag_service.contract.settings import MODEL_SCHEMES

GROUP = "ragservice.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "RAGService"
PLURAL = "ragservices"

# A Service, a label and child names with a suffix (`-reranker`) are made from the name.
NAME_MAX_LENGTH = 50
DURATION_MAX_LENGTH = 28  # four parts of five digits and a two-letter unit


def rules(*pairs: tuple[str, str]) -> dict[str, Any]:
    """Schema extra for CEL rules, each an (expression, message that `kubectl apply` shows when it does not hold)."""
    return {"x-kubernetes-validations": [{"rule": expression, "message": message} for expression, message in pairs]}


def _within(low: str, high: str) -> AfterValidator:
    lower, upper = duration.parse(low), duration.parse(high)

    def check(value: timedelta) -> timedelta:
        if not lower <= value <= upper:
            raise ValueError(f"must be between {low} and {high}")
        return value

    return AfterValidator(check)


def _duration_schema(low: str, high: str) -> WithJsonSchema:
    bounds = f"duration(self) >= duration('{low}') && duration(self) <= duration('{high}')"
    return WithJsonSchema(
        {
            "type": "string",
            "pattern": duration.PATTERN,
            "maxLength": DURATION_MAX_LENGTH,
            **rules((bounds, f"must be between {low} and {high}")),
        }
    )


Latency = Annotated[duration.Duration, _within("1ms", "10m"), _duration_schema("1ms", "10m")]
Window = Annotated[duration.Duration, _within("0s", "24h"), _duration_schema("0s", "24h")]
TimeToLive = Annotated[duration.Duration, _within("1s", "8760h"), _duration_schema("1s", "8760h")]

Percentage = Annotated[
    str,
    StringConstraints(pattern=r"^(100(\.0{1,4})?|[0-9]{1,2}(\.[0-9]{1,4})?)$", max_length=7),
]
Quantity = Annotated[
    str | int,
    WithJsonSchema(
        {
            "x-kubernetes-int-or-string": True,
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "maxLength": 32,
            "pattern": r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|[eE][0-9]+)?$",
        }
    ),
]
ResourceList = Annotated[dict[str, Quantity], Field(max_length=16)]
Opaque = Annotated[dict[str, Any], WithJsonSchema({"type": "object", "x-kubernetes-preserve-unknown-fields": True})]
Labels = Annotated[dict[str, str], Field(max_length=64)]


class ReferenceRequest(Shape):
    """The request for which the SLO is meant."""

    documents: int = Field(default=10, ge=1, le=1000, description="Documents to rank in one request.")
    tokens: int = Field(default=60, ge=1, le=8192, description="Tokens in one document.")


class SLO(Shape):
    """The service level objective: the one target that scaling, alerts and the load check share."""

    p95: Latency = Field(
        description="95 of 100 answers arrive within this time, from arrival to the last byte, for requests of the "
        "reference size. A duration from 1ms to 10m, such as 300ms."
    )
    availability: Percentage = Field(
        default="99.9",
        description="Share of requests that must be answered, in percent (0 to 100), as a decimal string. Rejected and "
        "failed requests count against it.",
    )
    request: ReferenceRequest = Field(
        default=ReferenceRequest(),
        description="Size of the request that p95 is meant for. Default: 10 documents of 60 tokens.",
    )
    timeout: Latency = Field(
        default=duration.parse("30s"),
        description="A request that takes longer than this is given up with status 504. A duration from 1ms to 10m.",
    )


class Model(Shape):
    """One model of the service."""

    name: str = Field(
        pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
        max_length=63,
        description="What clients call the model, in the request's `model` field and the answer's X-Model header.",
    )
    uri: str = Field(
        pattern=rf"^({'|'.join(MODEL_SCHEMES)})://.+$",
        max_length=512,
        description="Where the model's files are: package://NAME for an installed Python package that carries a model, "
        "file:///DIRECTORY for a directory of the image.",
    )


class Scaling(Shape):
    """Bounds of the number of reranker pods."""

    min_replicas: int = Field(default=1, ge=1, le=1000, description="Never fewer pods than this (1 to 1000).")
    max_replicas: int = Field(default=10, ge=1, le=1000, description="Never more pods than this (1 to 1000).")
    scale_down_window: Window = Field(
        default=duration.parse("5m"),
        description="Pods are removed only when they were not needed for this long. A duration from 0s to 24h.",
    )


class Cache(Shape):
    """The cache of scores, in Redis."""

    ttl: TimeToLive = Field(
        default=duration.parse("1h"),
        description="A score is computed again after this time, however often it was used. A duration from 1s to "
        "8760h (a year).",
    )


class Resources(Shape):
    """Compute resources of a container."""

    limits: ResourceList = Field(default={}, description="The most that the container may use, such as cpu: 500m.")
    requests: ResourceList = Field(
        default={}, description="What the scheduler sets aside for the container. Default: the limits."
    )


class LocalObjectReference(Shape):
    """The name of an object in the same namespace."""

    name: str = Field(min_length=1, max_length=253, description="Name of the object.")


class EnvVar(Shape):
    """An environment variable."""

    name: str = Field(min_length=1, max_length=256, description="Name of the variable.")
    value: str = Field(default="", max_length=32768, description="Its value.")


class TolerationOperator(StrEnum):
    """How a toleration compares."""

    EXISTS = "Exists"
    EQUAL = "Equal"


class Toleration(Shape):
    """A taint that the pods put up with."""

    key: str | None = Field(default=None, max_length=316, description="Key of the taint; all keys when empty.")
    operator: TolerationOperator = Field(default=TolerationOperator.EQUAL, description="Exists or Equal.")
    value: str | None = Field(default=None, max_length=63, description="Value of the taint, for Equal.")
    effect: str | None = Field(
        default=None, pattern="^(NoSchedule|PreferNoSchedule|NoExecute)$", description="Effect of the taint."
    )
    toleration_seconds: int | None = Field(
        default=None, ge=0, description="Seconds to stay after a NoExecute taint; for ever when empty."
    )


class Pod(Shape):
    """What may be set on the reranker pods: a list of what is safe to leave to whoever may create a RAGService."""

    resources: Resources = Field(
        default=Resources(limits={"cpu": "1", "memory": "1Gi"}),
        description="Compute resources of the reranker. Default: one CPU and 1Gi of memory.",
    )
    labels: Labels = Field(default={}, description="More labels for the pods.")
    annotations: Labels = Field(default={}, description="More annotations for the pods.")
    env: Annotated[list[EnvVar], Field(max_length=64)] = Field(
        default=[], description="More environment variables for the reranker.", json_schema_extra={"listMapKey": "name"}
    )
    image_pull_secrets: Annotated[list[LocalObjectReference], Field(max_length=8)] = Field(
        default=[], description="Secrets for the image registry.", json_schema_extra={"listMapKey": "name"}
    )
    node_selector: Labels = Field(default={}, description="Labels that a node must have.")
    tolerations: Annotated[list[Toleration], Field(max_length=32)] = Field(
        default=[], description="Taints that the pods put up with."
    )
    affinity: Opaque = Field(default={}, description="Affinity as in a pod's spec.affinity.")
    topology_spread_constraints: Annotated[list[Opaque], Field(max_length=8)] = Field(
        default=[], description="Spread as in a pod's spec.topologySpreadConstraints."
    )
    priority_class_name: str | None = Field(default=None, max_length=253, description="PriorityClass of the pods.")
    runtime_class_name: str | None = Field(default=None, max_length=253, description="RuntimeClass of the pods.")


class Redis(Shape):
    """The Redis that the operator runs for the cache."""

    image: str | None = Field(
        default=None, min_length=1, max_length=512, description="Redis image, 6.2 or newer. Default: the operator's."
    )
    resources: Resources = Field(
        default=Resources(limits={"cpu": "500m", "memory": "256Mi"}),
        description="Compute resources of Redis. Scores take up to three quarters of the memory limit; then those "
        "that were not used for longest make room. Default: half a CPU and 256Mi.",
    )


class LoadCheck(Shape):
    """The load at which the SLO is verified."""

    users: int = Field(default=50, ge=1, le=100_000, description="Requests in flight at the same time (1 to 100000).")


class RAGServiceSpec(Shape):
    """What the user wants."""

    slo: SLO = Field(description="The service level objective.")
    models: Annotated[list[Model], Field(min_length=1, max_length=8)] = Field(
        description="Models, best first. The first one answers unless a request names another.",
        json_schema_extra={"listMapKey": "name"},
    )
    scaling: Scaling = Field(default=Scaling(), description="How many reranker pods there may be.")
    cache: Cache = Field(default=Cache(), description="The cache of scores.")
    redis: Redis = Field(default=Redis(), description="The Redis that holds the cache.")
    load_check: LoadCheck = Field(default=LoadCheck(), description="The load at which the SLO is verified.")
    image: str | None = Field(
        default=None,
        min_length=1,
        max_length=512,
        description="Image of the service. Default: the operator's, as it was when this RAGService was created.",
    )
    pod: Pod = Field(default=Pod(), description="Settings of the reranker pods.")
    paused: bool = Field(default=False, description="While true, the operator leaves everything as it is.")


class ConditionStatus(StrEnum):
    """Whether a condition holds."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(Shape):
    """A condition, as meta/v1 defines it."""

    type: str = Field(max_length=316, description="What the condition is about, in CamelCase.")
    status: ConditionStatus = Field(description="True, False or Unknown.")
    reason: str = Field(min_length=1, max_length=1024, description="Why, in one CamelCase word.")
    message: str = Field(max_length=32768, description="Why, for a person.")
    observed_generation: int | None = Field(default=None, ge=0, description="Generation of the spec that was judged.")
    last_transition_time: datetime = Field(description="When the status last changed.")


class ScalingStatus(Shape):
    """The last decision on the number of replicas, and what it rests on."""

    required_replicas: PositiveInt = Field(description="Replicas that the SLO needs, within the bounds.")
    reason: str = Field(max_length=1024, description="Why, in one sentence.")
    p95: str | None = Field(default=None, max_length=DURATION_MAX_LENGTH, description="Measured p95, as a duration.")
    hit_rate: str | None = Field(
        default=None, max_length=8, description="Share of (query, document) pairs from the cache, in percent: 83.1%."
    )
    requests_per_second: str | None = Field(default=None, max_length=16, description="Answered requests a second.")
    utilization: str | None = Field(
        default=None, max_length=8, description="Busy share of all engine threads, in percent: 61.0%."
    )
    observed_pods: int = Field(default=0, ge=0, description="Pods whose load was read for this decision.")


class RAGServiceStatus(Shape):
    """What is."""

    observed_generation: int | None = Field(
        default=None, ge=0, description="Generation of the spec that this is about."
    )
    conditions: Annotated[list[Condition], Field(max_length=16)] = Field(
        default=[], description="Ready rolls up the others.", json_schema_extra={"listMapKey": "type"}
    )
    replicas: int = Field(default=0, ge=0, description="Reranker pods.")
    ready_replicas: int = Field(default=0, ge=0, description="Reranker pods that answer.")
    url: str | None = Field(default=None, max_length=512, description="Where the service answers inside the cluster.")
    model: str | None = Field(default=None, max_length=63, description="The model that answers by default.")
    image: str | None = Field(default=None, max_length=512, description="Image of the service, resolved once.")
    redis_image: str | None = Field(default=None, max_length=512, description="Image of Redis, resolved once.")
    scaling: ScalingStatus | None = Field(default=None, description="The last scaling decision.")


class ObjectMeta(Shape):
    """The metadata that the operator reads; the API server knows more."""

    model_config = Shape.model_config | {"extra": "ignore"}

    name: str
    namespace: str
    uid: str
    generation: int = 1
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None


class RAGService(Shape):
    """A reranker that keeps its SLO."""

    api_version: str = API_VERSION
    kind: str = KIND
    metadata: ObjectMeta
    spec: RAGServiceSpec
    status: RAGServiceStatus = RAGServiceStatus()

    @classmethod
    def parse(cls, body: dict[str, Any]) -> Self:
        """Read an object of the API server. Raises pydantic.ValidationError when it is not what this version knows."""
        return cls.model_validate(body)


# CEL rules that need more than one field; the API server shows their message as it stands.
SPEC_RULES: dict[str, list[tuple[str, str]]] = {
    "": [
        (
            f"self.metadata.name.size() <= {NAME_MAX_LENGTH}",
            f"metadata.name must have at most {NAME_MAX_LENGTH} characters: Services and pods are named after it",
        ),
        (
            "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
            "metadata.name must start with a letter and hold only a-z, 0-9 and '-': a Service is named after it",
        ),
    ],
    "spec.slo": [
        ("duration(self.p95) < duration(self.timeout)", "slo.p95 must be below slo.timeout"),
    ],
    "spec.scaling": [
        ("self.minReplicas <= self.maxReplicas", "scaling.minReplicas must not exceed scaling.maxReplicas"),
    ],
}
