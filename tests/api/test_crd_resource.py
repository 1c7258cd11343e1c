"""What a user sees of a RAGService: its defaults, explanations, columns; and that its status takes what we write."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from rag_operator.api import conditions, v1alpha1
from rag_operator.api.conditions import ConditionType
from rag_operator.api.v1alpha1 import RAGService, RAGServiceStatus, ScalingStatus
from tests.api.conftest import Kubectl
from tests.api.test_crd_validation import GOOD

pytestmark = pytest.mark.cluster

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))

STATUS = RAGServiceStatus(
    observed_generation=1,
    conditions=list(
        conditions.rolled_up(
            conditions.updated(
                (),
                ConditionType.RECONCILED,
                True,
                "Applied",
                "all objects are as they should be",
                now=datetime(2030, 1, 1, tzinfo=UTC),
                generation=1,
            ),
            now=datetime(2030, 1, 1, tzinfo=UTC),
            generation=1,
        )
    ),
    replicas=4,
    ready_replicas=3,
    url="http://faq.default.svc",
    model="best",
    image="ragservice/service:0.1.0",
    redis_image="redis:8.2",
    scaling=ScalingStatus(
        required_replicas=4,
        reason="2.9 pods' work at 80 % utilization",
        p95="212ms",
        hit_rate="83.1%",
        requests_per_second="41.7",
        utilization="61.0%",
        observed_pods=3,
    ),
)


def create(kubectl: Kubectl, namespace: str) -> dict[str, Any]:
    answer = kubectl("create", "-n", namespace, "-o", "json", "-f", "-", stdin=yaml.safe_dump(GOOD))
    assert answer.returncode == 0, answer.stderr
    return json.loads(answer.stdout)


def write_status(kubectl: Kubectl, namespace: str, status: dict[str, Any]) -> dict[str, Any]:
    patch = {"apiVersion": v1alpha1.API_VERSION, "kind": v1alpha1.KIND, "metadata": {"name": "faq"}, "status": status}
    answer = kubectl(
        "apply", "--server-side", "--subresource=status", "-n", namespace, "-o", "json", "-f", "-",
        stdin=yaml.safe_dump(patch),
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr
    return json.loads(answer.stdout)


def test_a_short_resource_is_filled_with_defaults(kubectl: Kubectl, namespace: str) -> None:
    body = create(kubectl, namespace)
    assert body["spec"] == {
        "slo": {
            "p95": "300ms",
            "availability": "99.9",
            "request": {"documents": 10, "tokens": 60},
            "timeout": "30s",
        },
        "models": [{"name": "best", "uri": "package://best_model", "backend": "Auto", "precision": "Auto"}],
        "scaling": {"minReplicas": 1, "maxReplicas": 10, "scaleDownWindow": "5m"},
        "cache": {"ttl": "1h"},
        "redis": {"resources": {"limits": {"cpu": "500m", "memory": "256Mi"}}},
        "loadCheck": {"users": 50},
        "pod": {"resources": {"limits": {"cpu": "1", "memory": "1Gi"}}, "workers": 1},
        "paused": False,
    }


def test_the_operator_reads_the_same_from_a_short_resource_and_a_filled_one(kubectl: Kubectl, namespace: str) -> None:
    filled = create(kubectl, namespace)
    assert RAGService.parse(filled).spec == RAGService.parse(filled | {"spec": GOOD["spec"]}).spec


@pytest.mark.parametrize("given", [{"minReplicas": 2}, {}])
def test_what_is_left_out_of_an_object_is_filled_too(kubectl: Kubectl, given: dict[str, int]) -> None:
    body = GOOD | {"spec": GOOD["spec"] | {"scaling": given}}
    answer = kubectl("create", "--dry-run=server", "-o", "json", "-f", "-", stdin=yaml.safe_dump(body))
    assert json.loads(answer.stdout)["spec"]["scaling"] == {
        "minReplicas": 1, "maxReplicas": 10, "scaleDownWindow": "5m", **given,
    }  # fmt: skip


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_every_example_applies(kubectl: Kubectl, example: Path) -> None:
    answer = kubectl("apply", "--server-side", "--dry-run=server", "-f", str(example))
    assert answer.returncode == 0, answer.stderr


def test_explain_tells_unit_range_and_default(kubectl: Kubectl) -> None:
    def explain(field: str) -> str:
        return " ".join(kubectl("explain", field).stdout.split())

    assert "p95 <string> -required-" in explain("rag.spec.slo")
    p95 = explain("rag.spec.slo.p95")
    assert "95 of 100 answers arrive within this time" in p95
    assert "A duration from 1ms to 10m" in p95
    assert "From 1 to 1000. Default: 10." in explain("rag.spec.scaling.maxReplicas")
    assert "Percent, from 0 to 100, as a string. Default: 99.9." in explain("rag.spec.slo.availability")
    assert "Default: limits.cpu 1, limits.memory 1Gi." in explain("rag.spec.pod.resources")
    assert "One of Auto, FP32, BF16, INT8. Default: Auto." in explain("rag.spec.models.precision")
    assert "INT8 needs a graph that was quantised ahead of time" in explain("rag.spec.models.precision")
    assert "hf://ORGANISATION/NAME for a model of the Hugging Face hub" in explain("rag.spec.models.uri")


def test_printer_columns(kubectl: Kubectl, namespace: str) -> None:
    create(kubectl, namespace)
    write_status(kubectl, namespace, STATUS.model_dump(mode="json", by_alias=True, exclude_none=True))
    heads, cells = kubectl("get", "rag", "-n", namespace).stdout.splitlines()
    assert heads.split() == ["NAME", "READY", "REPLICAS", "DESIRED", "MODEL", "AGE"]
    assert cells.split()[:-1] == ["faq", "Unknown", "3", "4", "best"]
    heads, cells = kubectl("get", "rag", "-n", namespace, "-o", "wide").stdout.splitlines()
    assert heads.split() == ["NAME", "READY", "REPLICAS", "DESIRED", "MODEL", "P95", "HIT", "RATE", "AGE"]
    assert cells.split()[:-1] == ["faq", "Unknown", "3", "4", "best", "212ms", "83.1%"]


def test_get_all_shows_rag_services(kubectl: Kubectl, namespace: str) -> None:
    create(kubectl, namespace)
    assert "ragservice.ragservice.dev/faq" in kubectl("get", "all", "-n", namespace).stdout


def test_status_comes_back_as_it_was_written(kubectl: Kubectl, namespace: str) -> None:
    created = create(kubectl, namespace)
    assert RAGService.parse(created).status == RAGServiceStatus()
    body = write_status(kubectl, namespace, STATUS.model_dump(mode="json", by_alias=True, exclude_none=True))
    assert RAGService.parse(body).status == STATUS
    assert body["metadata"]["generation"] == created["metadata"]["generation"]


def test_the_spec_is_no_way_to_the_status(kubectl: Kubectl, namespace: str) -> None:
    body = GOOD | {"status": {"replicas": 7}}
    kubectl("create", "-n", namespace, "-f", "-", stdin=yaml.safe_dump(body)).check_returncode()
    assert "status" not in json.loads(kubectl("get", "rag", "faq", "-n", namespace, "-o", "json").stdout)
