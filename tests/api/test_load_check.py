"""What the load check reads from a real API server, through kubectl."""

import json
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from devcluster.cluster import Cluster
from rag_loadtest import target
from rag_loadtest.errors import ConfigurationError
from tests.api.conftest import Kubectl

pytestmark = pytest.mark.cluster

EXAMPLE = Path(__file__).parents[2] / "examples" / "faq.yaml"
DEPLOYMENT = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "faq-reranker"},
    "spec": {
        "replicas": 2,
        "selector": {"matchLabels": {"a": "b"}},
        "template": {
            "metadata": {"labels": {"a": "b"}},
            "spec": {"containers": [{"name": "c", "image": "example/none"}]},
        },
    },
}


@pytest.fixture(autouse=True)
def _access(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user's own kubectl and kubeconfig."""
    for name, value in cluster.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=":")


def test_the_example_is_read_as_it_was_applied(kubectl: Kubectl, namespace: str) -> None:
    applied = kubectl("apply", "-n", namespace, "-f", str(EXAMPLE))
    assert applied.returncode == 0, applied.stderr
    found = target.from_cluster("faq", namespace)
    assert found.spec == target.from_file(EXAMPLE).spec
    assert found.spec.slo.timeout == timedelta(seconds=30)
    assert found.metadata.namespace == namespace


def test_a_name_that_is_not_there_is_named(namespace: str) -> None:
    with pytest.raises(ConfigurationError, match=r"ragservices.ragservice.dev \"nobody\" not found"):
        target.from_cluster("nobody", namespace)


def test_replicas_ready_wanted_and_needed(kubectl: Kubectl, namespace: str) -> None:
    assert target.replicas("faq", namespace) == "replicas ?"
    kubectl("apply", "-n", namespace, "-f", str(EXAMPLE)).check_returncode()
    kubectl("apply", "-n", namespace, "-f", "-", stdin=json.dumps(DEPLOYMENT)).check_returncode()
    assert target.replicas("faq", namespace) == "replicas 0 of 2 ready, ? needed"
    status = {"status": {"scaling": {"requiredReplicas": 3, "reason": "a test"}}}
    patch = ("patch", "ragservice", "faq", "-n", namespace, "--subresource=status", "--type=merge", "-p")
    kubectl(*patch, json.dumps(status)).check_returncode()
    assert target.replicas("faq", namespace) == "replicas 0 of 2 ready, 3 needed"
