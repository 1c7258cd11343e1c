"""Models of a hub, on real pods: fetched and prepared before the service starts, or a clear line."""

import uuid
from collections.abc import Iterator

import pytest

from tests.e2e import hub
from tests.e2e.cluster import Cluster, Object, Service, spec

pytestmark = pytest.mark.node


def wanted(endpoint: str, uri: str) -> Object:
    return spec(
        models=[{"name": "tiny", "uri": uri}],
        huggingFace={"endpoint": endpoint},
        scaling={"minReplicas": 1, "maxReplicas": 1},
    )


@pytest.fixture(scope="module")
def services(cluster: Cluster) -> Iterator[dict[str, Service]]:
    """Two RAGServices beside a hub that knows the model of only one of them."""
    namespace = f"e2e-{uuid.uuid4().hex[:8]}"
    cluster.run("kubectl", "create", "namespace", namespace)
    cluster.run("kubectl", "label", "namespace", namespace, "pod-security.kubernetes.io/warn=restricted")
    endpoint = hub.start(cluster, namespace)
    made = {name: Service(cluster, namespace, name) for name in ("known", "unknown")}
    for name, uri in {"known": f"hf://{hub.NAME}@main", "unknown": "hf://acme/no-such-ranker"}.items():
        made[name].apply(wanted(endpoint, uri))
    yield made
    cluster.run("kubectl", "delete", "namespace", namespace, "--wait=false")


def test_a_model_of_the_hub_is_served(services: dict[str, Service]) -> None:
    service = services["known"]
    service.wait_settled()
    assert service.condition("Ready")["reason"] == "Available"
    status, headers, ranks = service.rerank("where is my invoice", ["invoices are sent each month", "closed"])
    assert status == 200
    assert headers["x-model"] == "tiny"
    assert {rank["index"] for rank in ranks} == {0, 1}
    pods = service.cluster.pods(service.namespace, "reranker")
    [pod] = [pod for pod in pods if pod["metadata"]["labels"]["ragservice.dev/name"] == service.name]
    [prepared] = pod["status"]["initContainerStatuses"]
    assert (prepared["name"], prepared["restartCount"]) == ("prepare-tiny", 0)


def test_a_model_that_the_hub_does_not_know_is_told_in_one_line(services: dict[str, Service]) -> None:
    service = services["unknown"]

    def told() -> Object:
        ready = service.condition("Ready")
        return ready if ready.get("reason") == "ModelNotPrepared" else {}

    ready = service.cluster.until("the failure is told", told)
    assert ready["status"] == "False"
    assert "model tiny cannot be prepared in pod unknown-reranker-" in ready["message"]
    assert "hf://acme/no-such-ranker" in ready["message"]
    assert "knows no such model" in ready["message"]
    assert "\n" not in ready["message"]
    # The next step that it names leads somewhere.
    command = ready["message"].rpartition("`kubectl ")[2].partition("`")[0].split()
    assert "no-such-ranker" in service.cluster.run("kubectl", "-n", service.namespace, *command)
