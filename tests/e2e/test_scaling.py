"""Replicas follow the load: up when the SLO needs it, down again after."""

import pytest

from tests.e2e.cluster import Service, spec

pytestmark = pytest.mark.node


def test_replicas_go_up_under_load_and_back_down_after_it(service: Service) -> None:
    cluster = service.cluster
    service.apply(spec(slo={"p95": "600ms"}, scaling={"minReplicas": 1, "maxReplicas": 3, "scaleDownWindow": "10s"}))
    cluster.until("one pod is enough at rest", lambda: service.deployment()["spec"]["replicas"] == 1)
    with service.traffic(users=6, unique=True) as traffic:
        cluster.until("three pods under load", lambda: service.deployment()["status"].get("readyReplicas") == 3)
        scaling = service.read()["status"]["scaling"]
        assert scaling["requiredReplicas"] == 3
        assert scaling["reason"]
        assert scaling["observedPods"] >= 1
    traffic.assert_all_answered()
    cluster.until("one pod after it", lambda: service.deployment()["spec"]["replicas"] == 1)


def test_a_decision_is_explained_in_an_event(service: Service) -> None:
    service.apply(spec(scaling={"minReplicas": 3, "maxReplicas": 3, "scaleDownWindow": "10s"}))
    service.wait_settled()

    def told() -> list[str]:
        events = service.cluster.get("events", namespace=service.namespace)["items"]
        return [each["message"] for each in events if each["involvedObject"]["kind"] == "RAGService"]

    service.cluster.until("an Event says why", lambda: any("3" in message for message in told()), 30)
