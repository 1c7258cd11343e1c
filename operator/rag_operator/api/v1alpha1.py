"""RAGService, version v1alpha1: the one source of the CRD, of `kubectl explain`, and of what the operator reads.

Defaults and rules are enforced by the API server (structural schema and CEL), so a resource that the operator
sees is valid; it is parsed into these types once, at the border. Descriptions say what a field means; `crd.py` adds
its range and default from the type.
"""

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import AfterValidator, ConfigDict, Field, PositiveInt, WithJsonSchema

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
# The container that prepares a model is named after it (`prepare-NAME`).
MODEL_NAME_MAX_LENGTH = 55
DURATION_MAX_LENGTH = 28  # four parts of five digits and a two-letter unit

# A repository of the hub, without an organisation for the oldest ones; a revision may be a path such as refs/pr/1.
HUB_PATTERN = r"^hf://[A-Za-z0-9][-._A-Za-z0-9]*(/[A-Za-z0-9][-._A-Za-z0-9]*)?(@[A-Za-z0-9][-._/A-Za-z0-9]*)?$"

# Schema extras that `crd.py` turns into the CRD's own words:
LIST_MAP_KEY = "listMapKey"  # the field by which the items of a list are told apart
PATTERN_MESSAGE = "patternMessage"  # what a value that does not match the pattern is told, instead of the pattern
RANGE = "range"  # the allowed values in words, where the schema's own bounds do not say it


def rules(*pairs: tuple[str, str]) -> dict[str, Any]:
    """Schema extra for CEL rules, each an (expression, message that `kubectl apply` shows when it does not hold)."""
    return {"x-kubernetes-validations": [{"rule": expression, "message": message} for expression, message in pairs]}


def matches(expression: str, pattern: str) -> str:
    """CEL: the string that `expression` stands for matches the pattern."""
    return f"{expression}.matches(r'{pattern}')"


def _within(low: str, high: str) -> AfterValidator:
    lower, upper = duration.parse(low), duration.parse(high)

    def check(value: timedelta) -> timedelta:
        if not lower <= value <= upper:
            raise ValueError(f"must be between {low} and {high}")
        return value

    return AfterValidator(check)


def _duration_schema(low: str, high: str) -> WithJsonSchema:
    # Where the form is wrong, that alone is reported: `duration()` would fail on it with an error of its own.
    malformed = f"!{matches('self', duration.PATTERN)}"
    bounds = f"duration(self) >= duration('{low}') && duration(self) <= duration('{high}')"
    return WithJsonSchema(
        {
            "type": "string",
            "pattern": duration.PATTERN,
            PATTERN_MESSAGE: "must be a duration: numbers with the units h, m, s or ms, such as 300ms, 10s or 1h30m",
            "maxLength": DURATION_MAX_LENGTH,
            RANGE: f"A duration from {low} to {high}",
            **rules((f"{malformed} || ({bounds})", f"must be between {low} and {high}")),
        }
    )


Latency = Annotated[duration.Duration, _within("1ms", "10m"), _duration_schema("1ms", "10m")]
Window = Annotated[duration.Duration, _within("0s", "24h"), _duration_schema("0s", "24h")]
TimeToLive = Annotated[duration.Duration, _within("1s", "8760h"), _duration_schema("1s", "8760h")]

Percentage = Annotated[
    str,
    Field(
        pattern=r"^(100(\.0{1,4})?|[0-9]{1,2}(\.[0-9]{1,4})?)$",
        max_length=8,
        json_schema_extra={
            PATTERN_MESSAGE: "must be a percentage from 0 to 100 with at most four decimals, such as 99.9",
            RANGE: "Percent, from 0 to 100, as a string",
        },
    ),
]
Image = Annotated[
    str,
    Field(
        pattern=r"^[^\s]+$",
        min_length=1,
        max_length=512,
        json_schema_extra={PATTERN_MESSAGE: "must be an image reference, without spaces"},
    ),
]

QUANTITY_PATTERN = r"^[0-9]{1,15}(\.[0-9]{1,9})?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$"
Quantity = Annotated[
    str | int,
    WithJsonSchema(
        {"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, {"type": "string"}], "maxLength": 32}
    ),
]


def _quantities(expression: str) -> str:
    """CEL: all values of the map are quantities."""
    return f"{expression}.all(name, {matches(f'string({expression}[name])', QUANTITY_PATTERN)})"


ResourceList = Annotated[
    dict[str, Quantity],
    Field(
        max_length=16,
        json_schema_extra=rules(
            (
                _quantities("self"),
                "must be quantities: numbers with an optional unit, such as 500m or 2 for cpu, 512Mi or 1Gi for memory",
            )
        ),
    ),
]
Opaque = Annotated[dict[str, Any], WithJsonSchema({"type": "object", "x-kubernetes-preserve-unknown-fields": True})]

_VALID_LABELS = (
    "self.all(key, !format.qualifiedName().validate(key).hasValue() "
    "&& !format.labelValue().validate(self[key]).hasValue())",
    "must be valid labels: keys and values of at most 63 letters, digits, '-', '_' and '.', with a letter or digit "
    "at both ends; a key may have a prefix such as example.com/",
)
_FREE_KEYS = (
    f"self.all(key, !key.startsWith('{GROUP}/') && !key.startsWith('app.kubernetes.io/'))",
    f"must not use the prefixes {GROUP}/ and app.kubernetes.io/: the operator finds the pods by its own labels",
)
Labels = Annotated[
    dict[str, Annotated[str, Field(max_length=63)]],
    Field(max_length=32, json_schema_extra=rules(_VALID_LABELS)),
]
PodLabels = Annotated[
    dict[str, Annotated[str, Field(max_length=63)]],
    Field(max_length=32, json_schema_extra=rules(_VALID_LABELS, _FREE_KEYS)),
]
PodAnnotations = Annotated[
    dict[str, Annotated[str, Field(max_length=4096)]],
    Field(max_length=32, json_schema_extra=rules(_FREE_KEYS)),
]


class Part(Shape):
    """The base of all parts of the resource.

    Fields that this version does not know are left unread: the API server lets none through that the CRD does not
    have, and an operator that is older than the CRD must go on.
    """

    model_config = ConfigDict(extra="ignore")


class ReferenceRequest(Part):
    """The request for which the SLO is meant."""

    documents: int = Field(default=10, ge=1, le=1000, description="Documents to rank in one request.")
    tokens: int = Field(default=60, ge=1, le=8192, description="Tokens in one document.")


class SLO(Part):
    """The service level objective: the one target that scaling, alerts and the load check share."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                f"!{matches('self.p95', duration.PATTERN)} || !{matches('self.timeout', duration.PATTERN)} || "
                "duration(self.p95) < duration(self.timeout)",
                "slo.p95 must be below slo.timeout",
            )
        )
    )

    p95: Latency = Field(
        description="95 of 100 answers arrive within this time, from arrival to the last byte, for requests of the "
        "reference size (slo.request)."
    )
    availability: Percentage = Field(
        default="99.9",
        description="Share of requests that must be answered. Rejected and failed requests count against it.",
    )
    request: ReferenceRequest = Field(
        default=ReferenceRequest(),
        description="Size of the request that p95 is meant for: documents, and tokens in each.",
    )
    timeout: Latency = Field(
        default=duration.parse("30s"),
        description="A request that takes longer than this is given up with status 504.",
    )


class Backend(StrEnum):
    """What runs a model."""

    AUTO = "Auto"
    OPENVINO = "OpenVINO"
    ONNX_RUNTIME = "ONNXRuntime"
    SENTENCE_TRANSFORMERS = "SentenceTransformers"


class Precision(StrEnum):
    """The numbers that a model computes with."""

    AUTO = "Auto"
    FP32 = "FP32"
    BF16 = "BF16"
    INT8 = "INT8"


class Model(Part):
    """One model of the service."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "self.backend != 'ONNXRuntime' || self.precision != 'BF16'",
                "ONNXRuntime has no BF16 on a CPU: choose another precision, or backend OpenVINO",
            ),
            (
                "self.backend != 'SentenceTransformers' || self.precision != 'INT8'",
                "SentenceTransformers has no INT8: choose another precision, or backend OpenVINO or ONNXRuntime",
            ),
        )
    )

    name: str = Field(
        pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
        max_length=MODEL_NAME_MAX_LENGTH,
        description="What clients call the model, in the request's `model` field and the answer's X-Model header.",
        json_schema_extra={
            PATTERN_MESSAGE: "must hold only a-z, 0-9 and '-', with a letter or digit at both ends",
            RANGE: f"a-z, 0-9 and '-', at most {MODEL_NAME_MAX_LENGTH} characters",
        },
    )
    uri: str = Field(
        pattern=rf"^({'|'.join(MODEL_SCHEMES)})://.+$",
        max_length=512,
        description="Where the model's files are: hf://ORGANISATION/NAME for a model of the Hugging Face hub, which "
        "each pod fetches and prepares before it starts (or finds in spec.modelStorage), with @REVISION behind it for "
        "a branch, tag or commit other than main; package://NAME for a Python package of the image that carries a "
        "model; file:///DIRECTORY for a directory of the image.",
        json_schema_extra={
            PATTERN_MESSAGE: f"must start with {' or '.join(f'{scheme}://' for scheme in sorted(MODEL_SCHEMES))}, "
            "such as hf://ORGANISATION/NAME",
            **rules(
                (
                    f"!self.startsWith('hf://') || ({matches('self', HUB_PATTERN)} && !self.contains('..') "
                    "&& !self.contains('--'))",
                    "after hf:// must come ORGANISATION/NAME, and @REVISION where one is meant, such as "
                    "hf://cross-encoder/ms-marco-MiniLM-L6-v2",
                )
            ),
        },
    )
    backend: Backend = Field(
        default=Backend.AUTO,
        description="What runs the model. Auto tries what the image has and the CPU can, and takes the fastest that "
        "ranks as FP32 does. SentenceTransformers needs an image of the service with torch (spec.image).",
    )
    precision: Precision = Field(
        default=Precision.AUTO,
        description="The numbers that the model computes with; fewer bits are faster. Auto as for backend. INT8 needs "
        "a graph that was quantised ahead of time, with `rag-service model prepare` where the extra `quantize` is "
        "installed: in the image, or in spec.modelStorage. Pods do not quantise, so a model that they fetch from the "
        "hub themselves has FP32 and BF16 only.",
    )


class SecretKeyReference(Part):
    """A key of a Secret in the same namespace."""

    name: str = Field(min_length=1, max_length=253, description="Name of the Secret.")
    key: str = Field(
        pattern=r"^[-._a-zA-Z0-9]+$",
        max_length=253,
        description="Key of the Secret whose value is meant.",
        json_schema_extra={PATTERN_MESSAGE: "must hold only letters, digits, '-', '_' and '.'"},
    )


class HuggingFace(Part):
    """How models with an hf:// URI are fetched."""

    token_secret_ref: SecretKeyReference | None = Field(
        default=None,
        description="The access token for private and gated models. Only the containers that fetch models see it.",
    )
    endpoint: str | None = Field(
        default=None,
        pattern=r"^https?://[^\s/]+(/[^\s]*)?$",
        max_length=512,
        description="Address of a mirror of the hub, which gets the token too. When left out, the hub itself.",
        json_schema_extra={PATTERN_MESSAGE: "must be an address such as https://hub.example.com"},
    )


class ModelStorage(Part):
    """Where the pods keep prepared models."""

    claim_name: str | None = Field(
        default=None,
        min_length=1,
        max_length=253,
        description="A PersistentVolumeClaim that all pods share, so that a model is fetched and prepared once, not by "
        "each pod. It may hold models that were prepared ahead of time: hf://ORGANISATION/NAME in the directory "
        "ORGANISATION--NAME, others in any, found by the URI that they were made from. Pods on several nodes need "
        "access mode ReadWriteMany, or ReadOnlyMany where every model is prepared. When left out, each pod's own "
        "space on its node's disk.",
    )


class Scaling(Part):
    """Bounds of the number of reranker pods."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            ("self.minReplicas <= self.maxReplicas", "scaling.minReplicas must not exceed scaling.maxReplicas")
        )
    )

    min_replicas: int = Field(default=1, ge=1, le=1000, description="Never fewer reranker pods than this.")
    max_replicas: int = Field(default=10, ge=1, le=1000, description="Never more reranker pods than this.")
    scale_down_window: Window = Field(
        default=duration.parse("5m"),
        description="Pods are removed only when they were not needed for this long.",
    )


class Cache(Part):
    """The cache of scores, in Redis."""

    ttl: TimeToLive = Field(
        default=duration.parse("1h"),
        description="A score is computed again after this time, however often it was used.",
    )


class Resources(Part):
    """Compute resources of a container."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "'cpu' in self.limits && 'memory' in self.limits",
                "limits must have cpu and memory: threads, scaling and the size of the cache derive from them",
            ),
            (
                f"!has(self.requests) || !{_quantities('self.requests')} || !{_quantities('self.limits')} || "
                "self.requests.all(name, !(name in self.limits) || quantity(string(self.requests[name]))"
                ".compareTo(quantity(string(self.limits[name]))) <= 0)",
                "requests must not exceed limits",
            ),
        )
    )

    limits: ResourceList = Field(description="The most that the container may use: cpu in CPUs, memory in bytes.")
    requests: ResourceList = Field(
        default={},
        description="What the scheduler sets aside for the container: cpu in CPUs, memory in bytes. "
        "What is left out is as in limits.",
    )


class LocalObjectReference(Part):
    """The name of an object in the same namespace."""

    name: str = Field(min_length=1, max_length=253, description="Name of the object.")


PullSecrets = Annotated[list[LocalObjectReference], Field(max_length=8)]


class EnvVar(Part):
    """An environment variable."""

    name: str = Field(
        pattern=r"^[A-Za-z_][-A-Za-z0-9_.]*$",
        max_length=256,
        description="Name of the variable.",
        json_schema_extra={
            PATTERN_MESSAGE: "must start with a letter or '_' and hold only letters, digits, '_', '-' and '.'"
        },
    )
    value: str = Field(default="", max_length=32768, description="Its value.")


class TolerationOperator(StrEnum):
    """How a toleration compares."""

    EXISTS = "Exists"
    EQUAL = "Equal"


class TaintEffect(StrEnum):
    """What a taint does to pods that don't tolerate it."""

    NO_SCHEDULE = "NoSchedule"
    PREFER_NO_SCHEDULE = "PreferNoSchedule"
    NO_EXECUTE = "NoExecute"


class Toleration(Part):
    """A taint that the pods put up with."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "self.operator != 'Exists' || !has(self.value) || self.value == ''",
                "value must be left out with operator Exists",
            ),
            (
                "self.operator == 'Exists' || (has(self.key) && self.key != '')",
                "key must be given unless operator is Exists",
            ),
            (
                "!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')",
                "tolerationSeconds needs effect NoExecute",
            ),
        )
    )

    key: str | None = Field(default=None, max_length=316, description="Key of the taint; all keys when left out.")
    operator: TolerationOperator = Field(default=TolerationOperator.EQUAL, description="How key and value compare.")
    value: str | None = Field(default=None, max_length=63, description="Value of the taint, for Equal.")
    effect: TaintEffect | None = Field(default=None, description="Effect of the taint; all effects when left out.")
    toleration_seconds: int | None = Field(
        default=None, ge=0, description="Seconds to stay after a NoExecute taint; for ever when left out."
    )


class Pod(Part):
    """What may be set on the reranker pods: a list of what is safe to leave to whoever may create a RAGService."""

    resources: Resources = Field(
        default=Resources(limits={"cpu": "1", "memory": "1Gi"}),
        description="Compute resources of the reranker.",
    )
    labels: PodLabels = Field(default={}, description="More labels for the pods.")
    annotations: PodAnnotations = Field(default={}, description="More annotations for the pods.")
    workers: int = Field(
        default=1,
        ge=1,
        le=64,
        description="Processes of the service in a pod. They share its CPUs, and each loads all models. More than one "
        "is for pods of many CPUs that answer mostly from the cache, where one process cannot take all requests.",
    )
    env: Annotated[list[EnvVar], Field(max_length=64)] = Field(
        default=[],
        description="More environment variables for the containers of the service, such as those of a proxy.",
        json_schema_extra={LIST_MAP_KEY: "name"},
    )
    image_pull_secrets: PullSecrets = Field(
        default=[],
        description="Secrets for the registry of the image of the service.",
        json_schema_extra={LIST_MAP_KEY: "name"},
    )
    node_selector: Labels = Field(default={}, description="Labels that a node must have.")
    tolerations: Annotated[list[Toleration], Field(max_length=32)] = Field(
        default=[], description="Taints that the pods put up with."
    )
    affinity: Opaque = Field(default={}, description="Affinity as in a pod's spec.affinity.")
    topology_spread_constraints: Annotated[list[Opaque], Field(max_length=8)] = Field(
        default=[],
        description="Spread as in a pod's spec.topologySpreadConstraints. A labelSelector that is left out means these "
        "pods.",
    )
    priority_class_name: str | None = Field(default=None, max_length=253, description="PriorityClass of the pods.")
    runtime_class_name: str | None = Field(default=None, max_length=253, description="RuntimeClass of the pods.")


class Redis(Part):
    """The Redis that the operator runs for the cache."""

    image: Image | None = Field(
        default=None,
        description="Image of Redis, 6.2 or newer. When left out, the operator's default at the time of creation.",
    )
    resources: Resources = Field(
        default=Resources(limits={"cpu": "500m", "memory": "256Mi"}),
        description="Compute resources of Redis. Scores take up to three quarters of the memory limit; then those "
        "that were not used for longest make room.",
    )
    image_pull_secrets: PullSecrets = Field(
        default=[],
        description="Secrets for the registry of the image of Redis.",
        json_schema_extra={LIST_MAP_KEY: "name"},
    )


class LoadCheck(Part):
    """The load at which the SLO is verified."""

    users: int = Field(default=50, ge=1, le=100_000, description="Requests in flight at the same time.")


class RAGServiceSpec(Part):
    """What the user wants."""

    slo: SLO = Field(description="The service level objective.")
    models: Annotated[list[Model], Field(min_length=1, max_length=8)] = Field(
        description="Models, best first. The first one answers unless a request names another.",
        json_schema_extra={LIST_MAP_KEY: "name"},
    )
    hugging_face: HuggingFace = Field(default=HuggingFace(), description="How models with an hf:// URI are fetched.")
    model_storage: ModelStorage = Field(default=ModelStorage(), description="Where the pods keep prepared models.")
    scaling: Scaling = Field(default=Scaling(), description="How many reranker pods there may be.")
    cache: Cache = Field(default=Cache(), description="The cache of scores.")
    redis: Redis = Field(default=Redis(), description="The Redis that holds the cache.")
    load_check: LoadCheck = Field(default=LoadCheck(), description="The load at which the SLO is verified.")
    image: Image | None = Field(
        default=None,
        description="Image of the service. When left out, the operator's default at the time of creation.",
    )
    pod: Pod = Field(default=Pod(), description="Settings of the reranker pods.")
    paused: bool = Field(default=False, description="While true, the operator leaves everything as it is.")


class ConditionStatus(StrEnum):
    """Whether a condition holds."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(Part):
    """A condition, as meta/v1 defines it."""

    type: str = Field(max_length=316, description="What the condition is about, in CamelCase.")
    status: ConditionStatus = Field(description="Whether it holds.")
    reason: str = Field(min_length=1, max_length=1024, description="Why, in one CamelCase word.")
    message: str = Field(max_length=32768, description="Why, for a person.")
    observed_generation: int | None = Field(default=None, ge=0, description="Generation of the spec that was judged.")
    last_transition_time: datetime = Field(description="When the status last changed.")


class ScalingStatus(Part):
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


class RAGServiceStatus(Part):
    """What is."""

    observed_generation: int | None = Field(
        default=None, ge=0, description="Generation of the spec that this is about."
    )
    conditions: Annotated[list[Condition], Field(max_length=16)] = Field(
        default=[], description="Ready rolls up the others.", json_schema_extra={LIST_MAP_KEY: "type"}
    )
    replicas: int = Field(default=0, ge=0, description="Reranker pods.")
    ready_replicas: int = Field(default=0, ge=0, description="Reranker pods that answer.")
    url: str | None = Field(default=None, max_length=512, description="Where the service answers inside the cluster.")
    model: str | None = Field(default=None, max_length=63, description="The model that answers by default.")
    image: str | None = Field(default=None, max_length=512, description="Image of the service, resolved once.")
    redis_image: str | None = Field(default=None, max_length=512, description="Image of Redis, resolved once.")
    scaling: ScalingStatus | None = Field(default=None, description="The last scaling decision.")


class ObjectMeta(Part):
    """The metadata that the operator reads; the API server knows more."""

    name: str
    namespace: str
    uid: str
    resource_version: str = ""
    generation: int = 1


class RAGService(Part):
    """A reranker that keeps its SLO."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                f"self.metadata.name.size() <= {NAME_MAX_LENGTH}",
                f"metadata.name must have at most {NAME_MAX_LENGTH} characters: Services and pods are named after it",
            ),
            (
                matches("self.metadata.name", "^[a-z]([-a-z0-9]*[a-z0-9])?$"),
                "metadata.name must start with a letter and hold only a-z, 0-9 and '-': a Service is named after it",
            ),
            (
                "!self.metadata.name.endsWith('-redis')",
                "metadata.name must not end in -redis: the Redis of another RAGService may be called so",
            ),
        )
    )

    api_version: str = API_VERSION
    kind: str = KIND
    metadata: ObjectMeta
    spec: RAGServiceSpec
    status: RAGServiceStatus = RAGServiceStatus()

    @classmethod
    def parse(cls, body: dict[str, Any]) -> Self:
        """Read an object of the API server. Raises pydantic.ValidationError when it is not what this version knows."""
        return cls.model_validate(body)
