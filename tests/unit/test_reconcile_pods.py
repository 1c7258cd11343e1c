"""What keeps pods from answering, read from their status as the kubelet writes it."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from rag_operator import pods
from rag_operator.pods import Trouble

NOW = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)


def pod(
    *containers: dict[str, Any], ready: bool = False, since: timedelta = timedelta(0), **status: Any
) -> dict[str, Any]:
    condition = {
        "type": "Ready",
        "status": str(ready),
        "lastTransitionTime": (NOW - since).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    return {
        "metadata": {"name": "faq-reranker-1", "labels": {}},
        "status": {"phase": "Running", "conditions": [condition], "containerStatuses": list(containers), **status},
    }


def container(**state: Any) -> dict[str, Any]:
    return {"name": "reranker", "image": "registry/image:1", "ready": False, "restartCount": 0, **state}


def trouble(*them: dict[str, Any]) -> Trouble | None:
    return pods.trouble(them, "spec.pod", NOW)


@pytest.mark.parametrize("reason", ["ErrImagePull", "ImagePullBackOff", "InvalidImageName"])
def test_an_image_that_cannot_be_pulled(reason: str) -> None:
    found = trouble(pod(container(state={"waiting": {"reason": reason, "message": "manifest unknown"}})))
    assert found is not None
    assert found.reason == "ImagePullFailed"
    assert "pod faq-reranker-1 cannot get image registry/image:1: manifest unknown" in found.message


def test_out_of_memory_says_which_limit_to_raise() -> None:
    state = {"waiting": {"reason": "CrashLoopBackOff"}}
    found = trouble(pod(container(state=state, lastState={"terminated": {"exitCode": 137, "reason": "OOMKilled"}})))
    assert found is not None
    assert found.reason == "OutOfMemory"
    assert found.message.endswith("raise spec.pod.resources.limits.memory")


def test_a_crash_is_told_with_its_last_line() -> None:
    words = "Traceback\n  ...\nrag-service: no such directory: /models/x\n\n"
    ended = {"terminated": {"exitCode": 1, "reason": "Error", "message": words}}
    for state in ({"state": ended}, {"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": ended}):
        found = trouble(pod(container(**state)))
        assert found == Trouble(
            "ContainerFailed",
            "container reranker of pod faq-reranker-1 ended with exit code 1: rag-service: no such directory: "
            "/models/x; see `kubectl logs faq-reranker-1 --previous`",
        )


def test_a_container_that_cannot_be_made() -> None:
    waiting = {"reason": "CreateContainerConfigError", "message": 'secret "faq-redis" not found'}
    found = trouble(pod(container(state={"waiting": waiting})))
    assert found is not None
    assert found.reason == "ContainerFailed"
    assert 'does not start: secret "faq-redis" not found; see `kubectl describe pod faq-reranker-1`' in found.message


def init_container(**state: Any) -> dict[str, Any]:
    return {**container(**state), "name": "prepare-best", "image": "ragservice/service:1"}


def test_a_model_that_cannot_be_prepared_is_told_with_the_line_that_the_command_printed() -> None:
    words = "2026-05-01 INFO fetching\nrag-service: hf://acme/ranker: no such model on the hub\n"
    ended = {"terminated": {"exitCode": 2, "reason": "Error", "message": words}}
    for state in ({"state": ended}, {"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": ended}):
        found = trouble(
            pod(
                container(state={"waiting": {"reason": "PodInitializing"}}),
                phase="Pending",
                initContainerStatuses=[init_container(**state)],
            )
        )
        assert found == Trouble(
            "ModelNotPrepared",
            "model best cannot be prepared in pod faq-reranker-1: rag-service: hf://acme/ranker: no such model on the "
            "hub; see `kubectl logs faq-reranker-1 -c prepare-best`",
        )


def test_a_model_too_large_to_be_prepared_says_which_limit_to_raise() -> None:
    killed = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
    found = trouble(pod(phase="Pending", initContainerStatuses=[init_container(state=killed)]))
    assert found is not None
    assert found.reason == "OutOfMemory"
    assert found.message.startswith("container prepare-best of pod faq-reranker-1 was killed")


def test_a_secret_with_the_token_that_is_missing() -> None:
    waiting = {"reason": "CreateContainerConfigError", "message": 'secret "hub" not found'}
    found = trouble(pod(phase="Pending", initContainerStatuses=[init_container(state={"waiting": waiting})]))
    assert found == Trouble(
        "ModelNotPrepared",
        'model best cannot be prepared in pod faq-reranker-1: secret "hub" not found; create it, or name another one '
        "in spec.huggingFace.tokenSecretRef",
    )


def test_a_model_that_is_being_prepared_is_no_trouble_however_long_it_takes() -> None:
    running = init_container(started=True, state={"running": {"startedAt": "2026-05-01T11:00:00Z"}})
    waiting = {**init_container(state={"waiting": {"reason": "PodInitializing"}}), "name": "prepare-light"}
    it = pod(phase="Pending", since=timedelta(hours=1), initContainerStatuses=[running, waiting])
    assert trouble(it) is None
    assert pods.preparing([it]) == {"best"}


def test_a_pod_that_no_node_takes() -> None:
    condition = {"type": "PodScheduled", "status": "False", "message": "0/3 nodes are available: 3 Insufficient cpu."}
    found = trouble(pod(phase="Pending", conditions=[condition]))
    assert found is not None
    assert found.reason == "Unschedulable"
    assert "3 Insufficient cpu.; add nodes, or ask for less in spec.pod.resources" in found.message


def test_a_claim_that_is_missing_is_told_as_such() -> None:
    message = '0/1 nodes are available: persistentvolumeclaim "models" not found.'
    conditions = [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}]
    found = trouble(pod(conditions=conditions))
    assert found is not None
    assert found.reason == "Unschedulable"
    assert found.message.endswith("create the claim, or name another one in spec.modelStorage.claimName")


def test_init_containers_of_others_prepare_no_model() -> None:
    running = [{"name": name, "state": {"running": {}}} for name in ("istio-proxy", "prepare-best")]
    assert pods.preparing([pod(initContainerStatuses=running)]) == {"best"}


def test_a_probe_that_fails_for_a_while() -> None:
    running = container(started=True, state={"running": {"startedAt": "2026-05-01T11:00:00Z"}})
    assert trouble(pod(running, since=timedelta(seconds=5))) is None
    found = trouble(pod(running, since=timedelta(minutes=5)))
    assert found is not None
    assert found.reason == "ProbeFailed"
    assert "since 2026-05-01T11:55:00Z; see `kubectl logs faq-reranker-1`" in found.message


def test_a_model_that_still_loads_is_no_trouble() -> None:
    running = container(started=False, state={"running": {"startedAt": "2026-05-01T11:00:00Z"}})
    assert trouble(pod(running, since=timedelta(minutes=5))) is None
    assert trouble(pod(container(state={"waiting": {"reason": "ContainerCreating"}}), phase="Pending")) is None


def test_ready_pods_and_pods_on_their_way_out_are_no_trouble() -> None:
    crashed = container(lastState={"terminated": {"exitCode": 1, "reason": "Error"}})
    leaving = pod(crashed)
    leaving["metadata"]["deletionTimestamp"] = "2026-05-01T12:00:00Z"
    assert trouble(pod(crashed, ready=True), leaving, pod(crashed, phase="Failed")) is None


def test_the_clearest_trouble_speaks_for_all() -> None:
    unready = pod(container(started=True, state={"running": {}}), since=timedelta(minutes=5))
    killed = pod(container(lastState={"terminated": {"exitCode": 137, "reason": "OOMKilled"}}))
    found = trouble(unready, killed)
    assert found is not None
    assert found.reason == "OutOfMemory"


def test_a_very_long_message_is_cut() -> None:
    found = trouble(pod(container(state={"waiting": {"reason": "ErrImagePull", "message": "x" * 10_000}})))
    assert found is not None
    assert len(found.message) < 1000


def test_targets_are_the_pods_that_run_and_have_an_address() -> None:
    running = pod(ready=True, podIP="10.0.0.1")
    starting = pod(podIP="10.0.0.2")
    leaving = pod(ready=True, podIP="10.0.0.3")
    leaving["metadata"]["deletionTimestamp"] = "2026-05-01T12:00:00Z"
    found = pods.targets([running, starting, leaving, pod(phase="Pending"), {"metadata": {"name": "new"}}])
    assert [(target.address, target.ready) for target in found] == [("10.0.0.1", True), ("10.0.0.2", False)]
