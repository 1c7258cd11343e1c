"""The API server takes what we make: under restricted Pod Security, and a second time without a change."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from rag_operator.api.v1alpha1 import RAGService
from rag_operator.desired.manifests import HpaBounds, Inputs, Manifest, manifests
from tests.api.conftest import Kubectl
from tests.api.test_crd_validation import GOOD

pytestmark = pytest.mark.cluster

INPUTS = Inputs(
    service_image="ragservice/service:0.1.0",
    redis_image="redis:8.2",
    redis_password="k" * 43,
    # At the one replica that a new Deployment has, so that the autoscaler leaves it alone.
    hpa=HpaBounds(min=1, max=4, cpu_target=True),
)
# Everything that a user may set on the pods.
POD = {
    "resources": {"limits": {"cpu": "500m", "memory": "512Mi"}, "requests": {"cpu": "250m"}},
    "labels": {"team": "search"},
    "annotations": {"example.com/note": "a longer text"},
    "env": [{"name": "LOG_LEVEL", "value": "debug"}, {"name": "EMPTY"}],
    "imagePullSecrets": [{"name": "registry"}],
    "nodeSelector": {"disk": "ssd"},
    "tolerations": [{"key": "gpu", "effect": "NoExecute", "tolerationSeconds": 5}, {"operator": "Exists"}],
    "affinity": {
        "podAntiAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [
                {
                    "weight": 1,
                    "podAffinityTerm": {
                        "topologyKey": "kubernetes.io/hostname",
                        "labelSelector": {"matchLabels": {"team": "search"}},
                    },
                }
            ]
        }
    },
    "topologySpreadConstraints": [
        {"maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "ScheduleAnyway"}
    ],
    "priorityClassName": "system-cluster-critical",
}


# Models that pods fetch themselves.
HUB = {
    "models": [
        {"name": "best", "uri": "hf://acme/ranker"},
        {"name": "light", "uri": "hf://acme/small@v1", "precision": "FP32"},
    ],
    "huggingFace": {"endpoint": "https://hub.example.com", "tokenSecretRef": {"name": "hub", "key": "token"}},
    "pod": {**POD, "env": [{"name": "HF_ENDPOINT", "value": "https://other.example.com"}]},
}


@pytest.fixture(
    params=[{}, {"pod": POD}, HUB, HUB | {"modelStorage": {"claimName": "models"}}],
    ids=["minimal", "full", "hub", "claim"],
)
def built(request: pytest.FixtureRequest, kubectl: Kubectl, namespace: str) -> Iterator[list[Manifest]]:
    """A RAGService's manifests, for a namespace that enforces the restricted Pod Security Standard."""
    label = "pod-security.kubernetes.io/enforce=restricted"
    kubectl("label", "namespace", namespace, label).check_returncode()
    body = GOOD | {"spec": GOOD["spec"] | request.param}
    answer = kubectl("create", "-n", namespace, "-o", "json", "-f", "-", stdin=json.dumps(body))
    assert answer.returncode == 0, answer.stderr
    return manifests(RAGService.parse(json.loads(answer.stdout)), INPUTS)


def applied(kubectl: Kubectl, items: list[Manifest]) -> list[dict[str, Any]]:
    found = []
    for item in items:
        answer = kubectl(
            "apply", "--server-side", "--field-manager=ragservice-operator", "-o", "json", "-f", "-",
            stdin=json.dumps(item),
        )  # fmt: skip
        assert answer.returncode == 0, answer.stderr
        assert "Warning" not in answer.stderr
        found.append(json.loads(answer.stdout))
    return found


def test_applying_twice_changes_nothing(kubectl: Kubectl, built: list[Manifest]) -> None:
    def versions(items: list[dict[str, Any]]) -> dict[str, Any]:
        # A controller may write the status in between; what was asked for shows in the generation, or is all there is.
        return {
            f"{item['kind']}/{item['metadata']['name']}": item["metadata"].get("generation")
            or item["metadata"]["resourceVersion"]
            for item in items
            if item["kind"] != "HorizontalPodAutoscaler"
        }

    assert versions(applied(kubectl, built)) == versions(applied(kubectl, built))


def test_pods_are_admitted_under_restricted_pod_security(kubectl: Kubectl, built: list[Manifest]) -> None:
    for item in applied(kubectl, built):
        if item["kind"] == "Deployment":
            pod = {"apiVersion": "v1", "kind": "Pod", **item["spec"]["template"]}
            pod["metadata"] = pod["metadata"] | {"name": "probe", "namespace": item["metadata"]["namespace"]}
            answer = kubectl("create", "--dry-run=server", "-o", "json", "-f", "-", stdin=json.dumps(pod))
            assert answer.returncode == 0, answer.stderr
            assert not [
                volume for volume in json.loads(answer.stdout)["spec"]["volumes"] if "kube-api" in volume["name"]
            ]


def test_a_user_may_not_leave_the_allow_list(kubectl: Kubectl, namespace: str) -> None:
    for field, value in {"hostNetwork": True, "securityContext": {}, "volumes": [], "serviceAccountName": "x"}.items():
        body = GOOD | {"spec": GOOD["spec"] | {"pod": {field: value}}}
        answer = kubectl("create", "-n", namespace, "-f", "-", stdin=json.dumps(body))
        assert answer.returncode != 0
        assert f'unknown field "spec.pod.{field}"' in answer.stderr
