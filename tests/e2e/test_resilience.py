"""Changes and failures under traffic, on real pods."""

import time
from typing import Any

import pytest

from tests.e2e.cluster import Cluster, Service, spec

pytestmark = pytest.mark.node


def uids(pods: list[dict[str, Any]]) -> set[str]:
    return {pod["metadata"]["uid"] for pod in pods}


def test_a_new_setting_restarts_only_the_reranker_and_fails_no_request(service: Service) -> None:
    rerankers = uids(service.cluster.pods(service.namespace, "reranker"))
    redis = uids(service.cluster.pods(service.namespace, "redis"))
    with service.traffic() as traffic:
        service.apply(spec(slo={"p95": "2s", "timeout": "20s"}))
        service.cluster.until(
            "all pods new",
            lambda: service.settled() and not rerankers & uids(service.cluster.pods(service.namespace, "reranker")),
        )
    traffic.assert_all_answered()
    assert uids(service.cluster.pods(service.namespace, "redis")) == redis


def test_a_new_target_restarts_nothing(service: Service) -> None:
    before = uids(service.cluster.pods(service.namespace, "reranker"))
    service.apply(spec(slo={"p95": "1500ms"}, loadCheck={"users": 5}))
    service.cluster.until("the new generation is observed", service.settled)
    assert uids(service.cluster.pods(service.namespace, "reranker")) == before


def test_redis_killed_under_load_costs_hits_but_no_answers(service: Service) -> None:
    cluster, namespace = service.cluster, service.namespace
    with service.traffic() as traffic:
        time.sleep(2)
        cluster.run("kubectl", "delete", "pod", "-n", namespace, "-l", "app.kubernetes.io/component=redis", "--now")
        cluster.until("Redis is back", service.settled)
    traffic.assert_all_answered()

    question, texts = "Where is my invoice?", ["Invoices are sent each month.", "The office is closed."]

    def hit() -> bool:
        status, headers, _ = service.rerank(question, texts)
        assert status == 200
        return headers["x-cache"].startswith("hit")

    cluster.until("hits come back", hit, 30)


def test_an_operator_killed_under_load_never_costs_replicas(service: Service) -> None:
    cluster = service.cluster
    service.apply(spec(scaling={"minReplicas": 1, "maxReplicas": 3, "scaleDownWindow": "5m"}))
    with service.traffic(users=6, unique=True) as traffic:
        cluster.until("scaled up", lambda: service.deployment()["spec"]["replicas"] >= 3)
        before = uids(cluster.pods("ragservice-system", "operator"))
        cluster.run("kubectl", "delete", "pods", "-n", "ragservice-system", "--all", "--force", "--grace-period=0")
        seen = []

        def back() -> bool:
            seen.append(service.deployment()["spec"]["replicas"])
            pods = cluster.pods("ragservice-system", "operator")
            return (
                bool(pods)
                and not before & uids(pods)
                and all(
                    each["ready"] for pod in pods for each in pod["status"].get("containerStatuses", [{"ready": False}])
                )
            )

        cluster.until("the operator is back", back)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            seen.append(service.deployment()["spec"]["replicas"])
            time.sleep(1)
    assert min(seen) >= 3, seen
    traffic.assert_all_answered()


def test_a_deleted_deployment_comes_back_as_large_as_it_was_needed(service: Service) -> None:
    cluster = service.cluster
    cluster.run("kubectl", "delete", "deployment", f"{service.name}-reranker", "-n", service.namespace)
    cluster.until("it is back", service.deployment, 30)
    assert service.deployment()["spec"]["replicas"] == 2
    service.wait_settled()


def test_a_deployment_scaled_to_zero_is_repaired(service: Service) -> None:
    name = f"deployment/{service.name}-reranker"
    service.cluster.run("kubectl", "scale", name, "--replicas=0", "-n", service.namespace)
    service.cluster.until("repaired", lambda: service.deployment()["spec"]["replicas"] == 2, 30)
    service.wait_settled()


def test_nothing_remains_of_a_deleted_resource_even_without_the_operator(own_service: Service) -> None:
    service, cluster, namespace = own_service, own_service.cluster, own_service.namespace
    operator = ("deployment", "--all", "-n", "ragservice-system")
    cluster.run("kubectl", "scale", *operator, "--replicas=0")
    try:
        cluster.until("the operator is gone", lambda: not cluster.pods("ragservice-system", "operator"))
        cluster.run("kubectl", "delete", "ragservice", service.name, "-n", namespace, "--timeout=30s")

        def remains(cluster: Cluster = cluster) -> str:
            kinds = "deployments,replicasets,pods,services,configmaps,secrets,serviceaccounts,hpa,endpointslices"
            return cluster.run(
                "kubectl", "get", kinds, "-n", namespace, "-l", f"ragservice.dev/name={service.name}", "-o", "name"
            ).strip()

        cluster.until("nothing remains", lambda: not remains())
    finally:
        cluster.run("kubectl", "scale", *operator, "--replicas=1")
        cluster.run("kubectl", "rollout", "status", "deployment", "-n", "ragservice-system", "--timeout=120s")
