"""What a RAGService consists of: names, owners, and what a change of the spec does and does not restart."""

import json
import os
from base64 import b64decode, b64encode
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml

from rag_operator.api.v1alpha1 import Backend, Precision, RAGService
from rag_operator.desired import names, redis
from rag_operator.desired.manifests import HpaBounds, Inputs, Manifest, manifests, replicas_only
from rag_service.contract.settings import ServiceSettings

ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).parent / "golden"
EXAMPLES = sorted(path for path in (ROOT / "examples").glob("*.yaml") if "kind: RAGService" in path.read_text())
PASSWORD = "k" * 43
INPUTS = Inputs(
    service_image="ragservice/service:0.1.0",
    redis_image="redis:8.2",
    redis_password=PASSWORD,
    hpa=HpaBounds(min=2, max=10, cpu_target=True),
)

MINIMAL: Manifest = {"slo": {"p95": "300ms"}, "models": [{"name": "best", "uri": "package://best_model"}]}


def rag(spec: Manifest = MINIMAL, name: str = "faq") -> RAGService:
    return RAGService.parse(
        {
            "apiVersion": "ragservice.dev/v1alpha1",
            "kind": "RAGService",
            "metadata": {"name": name, "namespace": "default", "uid": "0f7c"},
            "spec": spec,
        }
    )


def built(spec: Manifest = MINIMAL, inputs: Inputs = INPUTS) -> dict[tuple[str, str], Manifest]:
    return {(item["kind"], item["metadata"]["name"]): item for item in manifests(rag(spec), inputs)}


def changed(**fields: Any) -> Manifest:
    """The minimal spec with some fields set; `slo` is merged."""
    return {**MINIMAL, **fields, "slo": MINIMAL["slo"] | fields.get("slo", {})}


def templates(spec: Manifest, inputs: Inputs = INPUTS) -> dict[str, Manifest]:
    return {
        name: item["spec"]["template"] for (kind, name), item in built(spec, inputs).items() if kind == "Deployment"
    }


def restarted(spec: Manifest, inputs: Inputs = INPUTS) -> set[str]:
    """The Deployments whose pods are replaced when the minimal spec becomes this one."""
    before, after = templates(MINIMAL), templates(spec, inputs)
    return {name.removeprefix("faq-") for name in before if before[name] != after[name]}


def test_everything_is_named_after_the_rag_service() -> None:
    assert sorted(built()) == [
        ("ConfigMap", "faq-config"),
        ("Deployment", "faq-redis"),
        ("Deployment", "faq-reranker"),
        ("HorizontalPodAutoscaler", "faq-reranker"),
        ("Secret", "faq-redis"),
        ("Service", "faq"),
        ("Service", "faq-redis"),
        ("ServiceAccount", "faq"),
    ]


def test_everything_is_owned_and_labelled() -> None:
    for item in manifests(rag(), INPUTS):
        (owner,) = item["metadata"]["ownerReferences"]
        assert owner == {
            "apiVersion": "ragservice.dev/v1alpha1",
            "kind": "RAGService",
            "name": "faq",
            "uid": "0f7c",
            "controller": True,
            "blockOwnerDeletion": True,
        }
        assert item["metadata"]["namespace"] == "default"
        assert (
            item["metadata"]["labels"].items()
            >= {
                "app.kubernetes.io/name": "ragservice",
                "app.kubernetes.io/instance": "faq",
                "app.kubernetes.io/part-of": "ragservice",
                "app.kubernetes.io/managed-by": "ragservice-operator",
                "ragservice.dev/name": "faq",
            }.items()
        )


def test_manifests_are_plain_json_and_the_same_each_time() -> None:
    first = manifests(rag(), INPUTS)
    assert json.loads(json.dumps(first)) == first == manifests(rag(), INPUTS)


@pytest.mark.parametrize(
    "spec",
    [
        changed(slo={"p95": "250ms", "availability": "99.99", "request": {"documents": 50}}),
        changed(scaling={"minReplicas": 2, "maxReplicas": 20, "scaleDownWindow": "1m"}),
        changed(loadCheck={"users": 1}),
        changed(paused=True),
        # What fetches models is for models of the hub, and there are none.
        changed(huggingFace={"endpoint": "https://hub.example.com", "tokenSecretRef": {"name": "hub", "key": "token"}}),
    ],
    ids=["slo", "scaling", "loadCheck", "paused", "huggingFace"],
)
def test_targets_and_bounds_restart_nothing(spec: Manifest) -> None:
    assert restarted(spec) == set()


@pytest.mark.parametrize(
    "spec",
    [
        changed(models=[{"name": "other", "uri": "package://other_model"}]),
        changed(slo={"timeout": "20s"}),
        changed(cache={"ttl": "2h"}),
        changed(pod={"env": [{"name": "A", "value": "1"}]}),
        changed(pod={"resources": {"limits": {"cpu": "2", "memory": "1Gi"}}}),
        changed(pod={"labels": {"team": "search"}, "nodeSelector": {"disk": "ssd"}}),
        changed(pod={"tolerations": [{"operator": "Exists"}], "priorityClassName": "high"}),
        changed(models=[{**MINIMAL["models"][0], "precision": "FP32"}]),
        changed(modelStorage={"claimName": "models"}),
        changed(pod={"workers": 2}),
    ],
    ids=["models", "timeout", "ttl", "env", "resources", "labels", "placement", "precision", "storage", "workers"],
)
def test_what_the_service_reads_restarts_only_the_reranker(spec: Manifest) -> None:
    assert restarted(spec) == {"reranker"}


@pytest.mark.parametrize(
    "spec",
    [
        changed(redis={"resources": {"limits": {"cpu": "1", "memory": "1Gi"}}}),
        changed(redis={"imagePullSecrets": [{"name": "registry"}]}),
    ],
    ids=["resources", "pull secrets"],
)
def test_what_redis_reads_restarts_only_redis(spec: Manifest) -> None:
    assert restarted(spec) == {"redis"}


def test_images_and_password_restart_those_who_use_them() -> None:
    def with_inputs(**values: Any) -> Inputs:
        return Inputs(**{**vars(INPUTS), **values})

    assert restarted(MINIMAL, with_inputs(service_image="other")) == {"reranker"}
    assert restarted(MINIMAL, with_inputs(redis_image="other")) == {"redis"}
    assert restarted(MINIMAL, with_inputs(redis_password="n" * 43)) == {"reranker", "redis"}
    assert restarted(MINIMAL, with_inputs(hpa=HpaBounds(5, 5, cpu_target=False))) == set()


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_operator_upgrade_restarts_no_pod(example: Path) -> None:
    """The pod templates of every example are as they always were.

    Where the example itself did not change, a difference means that installing this version of the operator restarts
    every pod of every user. If that is wanted, or the example did change: `WRITE_GOLDEN=1 pytest tests/unit`.
    """
    found = {
        item["metadata"]["name"]: item["spec"]["template"]
        for resource in yaml.safe_load_all(example.read_text())
        for item in manifests(rag(resource["spec"], resource["metadata"]["name"]), INPUTS)
        if item["kind"] == "Deployment"
    }
    text = yaml.safe_dump(json.loads(json.dumps(found)))
    golden = GOLDEN / example.name
    if "WRITE_GOLDEN" in os.environ:
        golden.write_text(text)
    assert golden.read_text() == text, "the pods of this example would restart: see this test's description"


def test_replicas_are_the_autoscalers() -> None:
    deployment = built()["Deployment", "faq-reranker"]
    assert "replicas" not in deployment["spec"]
    assert replicas_only(deployment | {"spec": deployment["spec"] | {"replicas": 4}}) == {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "faq-reranker", "namespace": "default"},
        "spec": {"replicas": 4},
    }


def test_the_service_can_read_its_settings_and_a_newer_operator_adds_none() -> None:
    text = built()["ConfigMap", "faq-config"]["data"]["config.json"]
    settings = ServiceSettings.model_validate_json(text)
    assert settings.service == "default/faq"
    assert (settings.workers, settings.threads) == (1, None)
    assert settings.cache.redis is not None
    assert settings.cache.redis.url == "redis://faq-redis:6379/0"
    # A service of an older image refuses settings that it does not know: only what the operator sets is written.
    assert set(json.loads(text)) == {"service", "models", "cache", "requestTimeout", "drain"}


def test_every_backend_and_precision_is_one_that_the_service_knows() -> None:
    model = MINIMAL["models"][0]
    for backend, precision in product(Backend, Precision):
        spec = changed(models=[{**model, "backend": backend.value, "precision": precision.value}])
        text = built(spec)["ConfigMap", "faq-config"]["data"]["config.json"]
        (read,) = ServiceSettings.model_validate_json(text).models
        assert read.backend.replace("-", "") == backend.value.lower()
        assert read.precision == precision.value.lower()
        # What is left to the service is not written, for the sake of older services.
        written = json.loads(text)["models"][0]
        assert ("backend" in written) == (backend is not Backend.AUTO)
        assert ("precision" in written) == (precision is not Precision.AUTO)


def test_workers_reach_the_service_where_there_is_more_than_one() -> None:
    text = built(changed(pod={"workers": 3}))["ConfigMap", "faq-config"]["data"]["config.json"]
    assert ServiceSettings.model_validate_json(text).workers == 3


def test_a_pod_that_must_go_has_the_time_to_answer() -> None:
    template = templates(changed(slo={"timeout": "1m30s"}))["faq-reranker"]
    assert template["spec"]["terminationGracePeriodSeconds"] == 5 + 2 + 90 + 5
    assert template["spec"]["containers"][0]["lifecycle"] == {"preStop": {"sleep": {"seconds": 5}}}


def test_requests_are_the_limits_where_not_given() -> None:
    spec = changed(pod={"resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "250m"}}})
    assert templates(spec)["faq-reranker"]["spec"]["containers"][0]["resources"] == {
        "limits": {"cpu": "1", "memory": "1Gi"},
        "requests": {"cpu": "250m", "memory": "1Gi"},
    }


def test_our_labels_win() -> None:
    labels = templates(changed(pod={"labels": {"ragservice.dev/name": "other", "team": "search"}}))["faq-reranker"][
        "metadata"
    ]["labels"]
    assert labels["ragservice.dev/name"] == "faq"
    assert labels["team"] == "search"


def test_pods_spread_over_their_own_kind() -> None:
    given = [{"maxSkew": 1, "topologyKey": "zone"}, {"maxSkew": 1, "topologyKey": "rack", "labelSelector": {"a": "b"}}]
    first, second = templates(changed(pod={"topologySpreadConstraints": given}))["faq-reranker"]["spec"][
        "topologySpreadConstraints"
    ]
    assert first["labelSelector"] == built()["Deployment", "faq-reranker"]["spec"]["selector"]
    assert second == given[1]


def test_selectors_never_change() -> None:
    """The API server refuses another selector on a Deployment that exists."""
    for component in ("reranker", "redis"):
        assert built()["Deployment", f"faq-{component}"]["spec"]["selector"] == {
            "matchLabels": {"ragservice.dev/name": "faq", "app.kubernetes.io/component": component}
        }


def test_services_select_pods_that_exist() -> None:
    items = built()
    for service, deployment in {"faq": "faq-reranker", "faq-redis": "faq-redis"}.items():
        spec = items["Service", service]["spec"]
        template = items["Deployment", deployment]["spec"]["template"]
        assert spec["selector"].items() <= template["metadata"]["labels"].items()
        assert spec["selector"] == items["Deployment", deployment]["spec"]["selector"]["matchLabels"]
        ports = {port["name"] for port in template["spec"]["containers"][0]["ports"]}
        assert {port["targetPort"] for port in spec["ports"]} <= ports


@pytest.mark.parametrize(
    ("cpu", "expected"),
    [
        ({"limits": {"cpu": "1"}}, 95),
        ({"limits": {"cpu": "1"}, "requests": {"cpu": "500m"}}, 190),
        ({"limits": {"cpu": "2"}, "requests": {"cpu": "1500m"}}, 126),
    ],
)
def test_the_cpu_target_is_the_saturation_of_the_limit(cpu: Manifest, expected: int) -> None:
    resources = {"limits": {"memory": "1Gi", **cpu["limits"]}, "requests": cpu.get("requests", {})}
    spec = built(changed(pod={"resources": resources}))["HorizontalPodAutoscaler", "faq-reranker"]["spec"]
    (metric,) = spec["metrics"]
    assert metric["resource"]["target"] == {"type": "Utilization", "averageUtilization": expected}
    assert (spec["minReplicas"], spec["maxReplicas"]) == (2, 10)


def test_without_resource_metrics_the_bounds_alone_decide() -> None:
    inputs = Inputs(**{**vars(INPUTS), "hpa": HpaBounds(3, 3, cpu_target=False)})
    spec = built(inputs=inputs)["HorizontalPodAutoscaler", "faq-reranker"]["spec"]
    assert (spec["minReplicas"], spec["maxReplicas"]) == (3, 3)
    assert "metrics" not in spec


def test_the_password_is_in_the_secret_and_nowhere_else() -> None:
    items = built()
    secret = items.pop(("Secret", "faq-redis"))
    assert b64decode(secret["data"]["password"]).decode() == PASSWORD
    assert f"requirepass {PASSWORD}" in b64decode(secret["data"]["redis.conf"]).decode()
    assert PASSWORD not in json.dumps(list(items.values()))
    assert PASSWORD not in repr(INPUTS)


def test_redis_takes_three_quarters_of_its_memory() -> None:
    spec = rag(changed(redis={"resources": {"limits": {"cpu": "1", "memory": "1Gi"}}}))
    assert f"maxmemory {768 * 2**20}\n" in redis.configuration(spec, PASSWORD)


@pytest.mark.parametrize(
    "data",
    [
        None,
        {},
        {"password": ""},
        {"password": "%%%"},
        {"password": b64encode(b"short").decode()},
        {"password": b64encode(b"k" * 43 + b"\nloadmodule /tmp/x").decode()},
        {"password": b64encode("ä".encode() * 43).decode()},
    ],
)
def test_a_password_that_redis_could_not_read_is_made_anew(data: Manifest | None) -> None:
    assert redis.existing_password({"data": data}) is None


def test_a_password_is_kept() -> None:
    assert redis.existing_password(built()["Secret", "faq-redis"]) == PASSWORD
    assert redis.existing_password(None) is None


def test_the_longest_name_fits_everywhere() -> None:
    items = manifests(rag(name="x" * 50), INPUTS)
    assert all(len(item["metadata"]["name"]) <= 63 for item in items)
    assert names.url(rag(name="x" * 50)) == f"http://{'x' * 50}.default.svc"
