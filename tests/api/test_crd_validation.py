"""What the API server refuses, and the words it does it with."""

from copy import deepcopy
from typing import Any

import pytest
import yaml

from tests.api.conftest import Kubectl

pytestmark = pytest.mark.cluster

GOOD: dict[str, Any] = {
    "apiVersion": "ragservice.dev/v1alpha1",
    "kind": "RAGService",
    "metadata": {"name": "faq"},
    "spec": {
        "slo": {"p95": "300ms"},
        "models": [{"name": "best", "uri": "package://best_model"}],
    },
}

_DURATION = "must be a duration: numbers with the units h, m, s or ms, such as 300ms, 10s or 1h30m"
_QUANTITY = "must be quantities: numbers with an optional unit, such as 500m or 2 for cpu, 512Mi or 1Gi for memory"
_LABEL = "must be valid labels: keys and values of at most 63 letters, digits, '-', '_' and '.'"
_PREFIX = (
    "must not use the prefixes ragservice.dev/ and app.kubernetes.io/: the operator finds the pods by its own labels"
)
_LIMITS = {"cpu": "1", "memory": "1Gi"}
_MODEL = {"name": "best", "uri": "package://best_model"}
_HUB = "after hf:// must come ORGANISATION/NAME, and @REVISION where one is meant"

# (path of the field, bad value, what the refusal must say)
REFUSED: list[tuple[str, Any, str]] = [
    ("metadata.name", "x" * 51, "metadata.name must have at most 50 characters: Services and pods are named after it"),
    ("metadata.name", "1st", "metadata.name must start with a letter and hold only a-z, 0-9 and '-'"),
    ("metadata.name", "my.faq", "metadata.name must start with a letter and hold only a-z, 0-9 and '-'"),
    ("metadata.name", "faq-redis", "metadata.name must not end in -redis: the Redis of another RAGService"),
    ("spec", None, "spec: Required value"),
    ("spec.slo", None, "spec.slo: Required value"),
    ("spec.slo.p95", None, "spec.slo.p95: Required value"),
    ("spec.slo.p95", "300", _DURATION),
    ("spec.slo.p95", "fast", _DURATION),
    ("spec.slo.p95", "-1s", _DURATION),
    ("spec.slo.p95", "0.3s", _DURATION),
    ("spec.slo.p95", 300, "spec.slo.p95 in body must be of type string"),
    ("spec.slo.p95", "0ms", "must be between 1ms and 10m"),
    ("spec.slo.p95", "10m1ms", "must be between 1ms and 10m"),
    ("spec.slo.p95", "30s", "slo.p95 must be below slo.timeout"),
    ("spec.slo.timeout", "200ms", "slo.p95 must be below slo.timeout"),
    ("spec.slo.timeout", "11m", "must be between 1ms and 10m"),
    ("spec.slo.timeout", "soon", _DURATION),
    ("spec.slo.availability", "100.1", "must be a percentage from 0 to 100 with at most four decimals, such as 99.9"),
    ("spec.slo.availability", "99.9%", "must be a percentage from 0 to 100 with at most four decimals, such as 99.9"),
    ("spec.slo.availability", 99.9, "spec.slo.availability in body must be of type string"),
    ("spec.slo.request.documents", 0, "spec.slo.request.documents in body should be greater than or equal to 1"),
    ("spec.slo.request.documents", 1001, "spec.slo.request.documents in body should be less than or equal to 1000"),
    ("spec.slo.request.tokens", 0, "spec.slo.request.tokens in body should be greater than or equal to 1"),
    ("spec.slo.request.tokens", 8193, "spec.slo.request.tokens in body should be less than or equal to 8192"),
    ("spec.models", None, "spec.models: Required value"),
    ("spec.models", [], "spec.models in body should have at least 1 items"),
    (
        "spec.models",
        [{**_MODEL, "name": f"m{i}"} for i in range(9)],
        "spec.models: Too many: 9: must have at most 8 items",
    ),
    ("spec.models", [_MODEL, _MODEL], 'spec.models[1]: Duplicate value: {"name":"best"}'),
    ("spec.models", [{"uri": "package://m"}], "spec.models[0].name: Required value"),
    ("spec.models", [{"name": "m"}], "spec.models[0].uri: Required value"),
    (
        "spec.models",
        [{**_MODEL, "name": "Best"}],
        "must hold only a-z, 0-9 and '-', with a letter or digit at both ends",
    ),
    ("spec.models", [{**_MODEL, "name": "m" * 56}], "spec.models[0].name: Too long: may not be more than 55 bytes"),
    (
        "spec.models",
        [{**_MODEL, "uri": "s3://bucket"}],
        "must start with file:// or hf:// or package://, such as hf://ORGANISATION/NAME",
    ),
    ("spec.models", [{**_MODEL, "uri": "hf://"}], _HUB),
    ("spec.models", [{**_MODEL, "uri": "hf://acme/rankers/best"}], _HUB),
    ("spec.models", [{**_MODEL, "uri": "hf://acme/best ranker"}], _HUB),
    ("spec.models", [{**_MODEL, "uri": "hf://acme/ranker@"}], _HUB),
    ("spec.models", [{**_MODEL, "uri": "hf://../ranker"}], _HUB),
    ("spec.models", [{**_MODEL, "uri": "hf://acme/ranker@../other"}], _HUB),
    ("spec.models", [{**_MODEL, "uri": "hf://acme/ranker..other"}], _HUB),
    # It would share a directory with hf://acme/ranker@some/branch.
    ("spec.models", [{**_MODEL, "uri": "hf://acme/ranker@some--branch"}], _HUB),
    (
        "spec.models",
        [{**_MODEL, "backend": "TensorRT"}],
        'Unsupported value: "TensorRT": supported values: "Auto", "OpenVINO", "ONNXRuntime", "SentenceTransformers"',
    ),
    (
        "spec.models",
        [{**_MODEL, "precision": "int8"}],
        'Unsupported value: "int8": supported values: "Auto", "FP32", "BF16", "INT8"',
    ),
    (
        "spec.models",
        [{**_MODEL, "backend": "ONNXRuntime", "precision": "BF16"}],
        "ONNXRuntime has no BF16 on a CPU: choose another precision, or backend OpenVINO",
    ),
    (
        "spec.models",
        [{**_MODEL, "backend": "SentenceTransformers", "precision": "INT8"}],
        "SentenceTransformers has no INT8: choose another precision, or backend OpenVINO or ONNXRuntime",
    ),
    ("spec.huggingFace.tokenSecretRef", {"name": "hub"}, "spec.huggingFace.tokenSecretRef.key: Required value"),
    (
        "spec.huggingFace.tokenSecretRef",
        {"name": "hub", "key": "my token"},
        "must hold only letters, digits, '-', '_' and '.'",
    ),
    ("spec.huggingFace.token", "hf_abc", 'unknown field "spec.huggingFace.token"'),
    ("spec.huggingFace.endpoint", "hub.example.com", "must be an address such as https://hub.example.com"),
    ("spec.modelStorage.claimName", "", "spec.modelStorage.claimName in body should be at least 1 chars"),
    ("spec.pod.workers", 0, "spec.pod.workers in body should be greater than or equal to 1"),
    ("spec.pod.workers", 65, "spec.pod.workers in body should be less than or equal to 64"),
    ("spec.scaling.minReplicas", 0, "spec.scaling.minReplicas in body should be greater than or equal to 1"),
    ("spec.scaling.minReplicas", 11, "scaling.minReplicas must not exceed scaling.maxReplicas"),
    ("spec.scaling.maxReplicas", 1001, "spec.scaling.maxReplicas in body should be less than or equal to 1000"),
    ("spec.scaling.scaleDownWindow", "25h", "must be between 0s and 24h"),
    ("spec.scaling.scaleDownWindow", "5", _DURATION),
    ("spec.cache.ttl", "0s", "must be between 1s and 8760h"),
    ("spec.cache.ttl", "8761h", "must be between 1s and 8760h"),
    ("spec.loadCheck.users", 0, "spec.loadCheck.users in body should be greater than or equal to 1"),
    ("spec.image", "two words", "must be an image reference, without spaces"),
    ("spec.image", "", "must be an image reference, without spaces"),
    ("spec.redis.image", "two words", "must be an image reference, without spaces"),
    ("spec.pod.resources", {"requests": {"cpu": "1"}}, "spec.pod.resources.limits: Required value"),
    ("spec.pod.resources.limits", {"cpu": "1"}, "limits must have cpu and memory: threads, scaling and the size of"),
    (
        "spec.redis.resources.limits",
        {"memory": "1Gi"},
        "limits must have cpu and memory: threads, scaling and the size",
    ),
    ("spec.pod.resources.limits", {"cpu": "one", "memory": "1Gi"}, _QUANTITY),
    ("spec.pod.resources.limits", {"cpu": -1, "memory": "1Gi"}, _QUANTITY),
    ("spec.pod.resources.limits", {"cpu": 0.5, "memory": "1Gi"}, "must be of type integer,string"),
    ("spec.pod.resources", {"limits": _LIMITS, "requests": {"memory": "1 Gi"}}, _QUANTITY),
    ("spec.pod.resources", {"limits": _LIMITS, "requests": {"memory": "1025Mi"}}, "requests must not exceed limits"),
    ("spec.pod.resources", {"limits": _LIMITS, "requests": {"cpu": 2}}, "requests must not exceed limits"),
    ("spec.pod.labels", {"a": "b c"}, _LABEL),
    ("spec.pod.labels", {"a b": "c"}, _LABEL),
    ("spec.pod.labels", {"app.kubernetes.io/component": "mine"}, _PREFIX),
    ("spec.pod.labels", {"ragservice.dev/name": "other"}, _PREFIX),
    ("spec.pod.annotations", {"ragservice.dev/config-hash": "x"}, _PREFIX),
    ("spec.pod.nodeSelector", {"disk": "a b"}, _LABEL),
    ("spec.pod.env", [{"name": "A"}, {"name": "A"}], 'spec.pod.env[1]: Duplicate value: {"name":"A"}'),
    (
        "spec.pod.env",
        [{"name": "1A"}],
        "must start with a letter or '_' and hold only letters, digits, '_', '-' and '.'",
    ),
    (
        "spec.pod.imagePullSecrets",
        [{"name": ""}],
        "spec.pod.imagePullSecrets[0].name in body should be at least 1 chars",
    ),
    ("spec.pod.tolerations", [{"operator": "Exists", "value": "x"}], "value must be left out with operator Exists"),
    ("spec.pod.tolerations", [{"value": "x"}], "key must be given unless operator is Exists"),
    (
        "spec.pod.tolerations",
        [{"key": "k", "effect": "NoSchedule", "tolerationSeconds": 5}],
        "tolerationSeconds needs effect NoExecute",
    ),
    (
        "spec.pod.tolerations",
        [{"key": "k", "effect": "Never"}],
        'Unsupported value: "Never": supported values: "NoSchedule", "PreferNoSchedule", "NoExecute"',
    ),
    ("spec.pod.tolerations", [{"key": "k", "operator": "Like"}], 'supported values: "Exists", "Equal"'),
    ("spec.paused", "yes", "spec.paused in body must be of type boolean"),
    ("spec.gateway", {"mode": "Managed"}, 'unknown field "spec.gateway"'),
    ("spec.slo.p99", "1s", 'unknown field "spec.slo.p99"'),
]

ACCEPTED: list[tuple[str, Any]] = [
    ("metadata.name", "x" * 50),
    ("spec.slo.p95", "1ms"),
    ("spec.slo", {"p95": "9m59s999ms", "timeout": "10m"}),
    ("spec.slo.availability", "100"),
    ("spec.slo.availability", "99.9999"),
    ("spec.scaling", {"minReplicas": 1000, "maxReplicas": 1000, "scaleDownWindow": "0s"}),
    ("spec.models", [{"name": "m" * 55, "uri": "hf://cross-encoder/ms-marco-MiniLM-L6-v2"}]),
    ("spec.models", [{"name": "m", "uri": "hf://bert-base-uncased"}]),
    ("spec.models", [{"name": "m", "uri": "hf://acme/ranker.v1@refs/pr/1"}]),
    ("spec.models", [{"name": "m", "uri": "hf://acme/ranker@0a1b2c3d"}]),
    ("spec.models", [{"name": "m", "uri": "file:///models/mine"}]),
    ("spec.models", [{**_MODEL, "backend": "OpenVINO", "precision": "BF16"}]),
    ("spec.models", [{**_MODEL, "precision": "INT8"}]),
    ("spec.huggingFace", {"endpoint": "http://hub:8080/api", "tokenSecretRef": {"name": "hub", "key": "HF_TOKEN"}}),
    ("spec.modelStorage", {"claimName": "models"}),
    ("spec.pod.workers", 64),
    ("spec.cache.ttl", "8760h"),
    ("spec.pod.resources", {"limits": {"cpu": 2, "memory": "1.5Gi"}, "requests": {"cpu": "250m"}}),
    ("spec.pod.resources.limits", {"cpu": "0.5", "memory": 1073741824, "example.com/gpu": 1}),
    ("spec.pod.labels", {"example.com/team": "search", "tier": ""}),
    ("spec.pod.affinity", {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {}}}),
    ("spec.pod.topologySpreadConstraints", [{"maxSkew": 1, "topologyKey": "zone"}]),
    ("spec.pod.tolerations", [{"operator": "Exists"}, {"key": "gpu", "value": "yes", "effect": "NoSchedule"}]),
]


def changed(path: str, value: Any) -> str:
    """A good resource as YAML with one field changed; None takes the field away."""
    body = deepcopy(GOOD)
    *parents, leaf = path.split(".")
    node = body
    for parent in parents:
        node = node.setdefault(parent, {})
    if value is None:
        del node[leaf]
    else:
        node[leaf] = value
    return yaml.safe_dump(body)


@pytest.mark.parametrize(("path", "value", "message"), REFUSED)
def test_refused_in_plain_words(kubectl: Kubectl, path: str, value: Any, message: str) -> None:
    answer = kubectl("create", "--dry-run=server", "-f", "-", stdin=changed(path, value))
    assert answer.returncode != 0, answer.stdout
    assert message in answer.stderr
    for jargon in ("evaluat", "no such key", "no such overload", "should match"):
        assert jargon not in answer.stderr


@pytest.mark.parametrize(("path", "value"), ACCEPTED)
def test_accepted(kubectl: Kubectl, path: str, value: Any) -> None:
    answer = kubectl("create", "--dry-run=server", "-f", "-", stdin=changed(path, value))
    assert answer.returncode == 0, answer.stderr


def test_unknown_fields_are_named_even_without_strict_validation(kubectl: Kubectl) -> None:
    answer = kubectl("create", "--dry-run=server", "--validate=warn", "-f", "-", stdin=changed("spec.slo.p99", "1s"))
    assert answer.returncode == 0, answer.stderr
    assert 'unknown field "spec.slo.p99"' in answer.stderr


def test_a_rule_is_tested_for_every_message_of_the_crd() -> None:
    from rag_operator.api.crd import root_schema

    def messages(node: Any) -> set[str]:
        if isinstance(node, list):
            return {message for item in node for message in messages(item)}
        if not isinstance(node, dict):
            return set()
        own = {rule["message"] for rule in node.get("x-kubernetes-validations", [])}
        return own | {message for value in node.values() for message in messages(value)}

    tested = [message for _, _, message in REFUSED]
    untested = {
        rule for rule in messages(root_schema()) if not any(rule.startswith(text) or text in rule for text in tested)
    }
    assert untested == set()
