"""Pure: why pods do not answer, in words that lead to the next step."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from rag_operator.desired.names import PREPARE
from rag_operator.scaling.target import Target

Pod = dict[str, Any]

_IMAGE = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable"}
# Waiting for these is how every container starts.
_STARTING = {"ContainerCreating", "PodInitializing"}
# How long a container that has started may be unready before its probe is said to fail.
_PATIENCE = timedelta(seconds=15)
_MESSAGE = 400


@dataclass(frozen=True)
class Trouble:
    """What keeps a pod from answering: the reason of a condition, and a message that names the pod."""

    reason: str
    message: str


def alive(pods: Iterable[Pod]) -> list[Pod]:
    """The pods that are meant to answer: not those that end or have ended."""
    return [
        pod
        for pod in pods
        if not pod["metadata"].get("deletionTimestamp")
        and pod.get("status", {}).get("phase") not in {"Succeeded", "Failed"}
    ]


def is_ready(pod: Pod) -> bool:
    """Whether clients reach the pod."""
    return _condition(pod, "Ready").get("status") == "True"


def targets(pods: Iterable[Pod]) -> tuple[Target, ...]:
    """The pods whose load can be read: those that run and have an address."""
    return tuple(
        Target(pod=pod["metadata"]["name"], address=pod["status"]["podIP"], ready=is_ready(pod))
        for pod in alive(pods)
        if pod.get("status", {}).get("phase") == "Running" and pod["status"].get("podIP")
    )


def trouble(pods: Sequence[Pod], settings: str, now: datetime) -> Trouble | None:
    """What is wrong with the pods; the pod that says most clearly what it is speaks for all. None: nothing is.

    `settings` is the field of the RAGService where the pods' resources are set, such as `spec.pod`.
    """
    found = [found for pod in alive(pods) if not is_ready(pod) for found in _troubles(pod, settings, now)]
    return min(found, key=lambda one: _ORDER.index(one.reason), default=None)


_ORDER = ("OutOfMemory", "ImagePullFailed", "ModelNotPrepared", "ContainerFailed", "Unschedulable", "ProbeFailed")


def preparing(pods: Iterable[Pod]) -> set[str]:
    """The models that pods fetch and prepare at this moment."""
    return {
        container["name"].removeprefix(PREPARE)
        for pod in alive(pods)
        for container in pod.get("status", {}).get("initContainerStatuses", [])
        if container["name"].startswith(PREPARE) and "running" in container.get("state", {})
    }


def _troubles(pod: Pod, settings: str, now: datetime) -> Iterator[Trouble]:
    name = pod["metadata"]["name"]
    scheduled = _condition(pod, "PodScheduled")
    if scheduled.get("status") == "False":
        why = _short(scheduled.get("message", "no reason given"))
        step = f"add nodes, or ask for less in {settings}.resources"
        if "persistentvolumeclaim" in why.lower():
            step = "create the claim, or name another one in spec.modelStorage.claimName"
        yield Trouble("Unschedulable", f"no node takes pod {name}: {why}; {step}")
    status = pod.get("status", {})
    for container in status.get("initContainerStatuses", []):
        if found := _preparation(name, container) or _container(name, container, settings):
            yield found
    for container in status.get("containerStatuses", []):
        if found := _container(name, container, settings) or _probe(pod, container, now):
            yield found


def _preparation(pod: str, status: dict[str, Any]) -> Trouble | None:
    """Why a model was not prepared, where its init container says so; what any container may suffer is left out."""
    waiting, ended = status.get("state", {}).get("waiting", {}), _ended(status)
    if not status["name"].startswith(PREPARE):
        return None
    if waiting.get("reason") == "CreateContainerConfigError":
        # Nothing but the Secret with the token comes from elsewhere.
        why = _short(waiting.get("message", "the Secret with the token cannot be read"))
        step = "create it, or name another one in spec.huggingFace.tokenSecretRef"
    elif ended.get("exitCode") and ended.get("reason") != "OOMKilled":
        why, step = _words(ended), f"see `kubectl logs {pod} -c {status['name']}`"
    else:
        return None
    model = status["name"].removeprefix(PREPARE)
    return Trouble("ModelNotPrepared", f"model {model} cannot be prepared in pod {pod}: {why}; {step}")


def _container(pod: str, status: dict[str, Any], settings: str) -> Trouble | None:
    waiting = status.get("state", {}).get("waiting", {})
    reason, message = waiting.get("reason", ""), _short(waiting.get("message", ""))
    if reason in _IMAGE:
        return Trouble(
            "ImagePullFailed",
            f"pod {pod} cannot get image {status.get('image')}: {message or reason}; check the image's name, that it "
            "exists in the registry, and spec.pod.imagePullSecrets",
        )
    ended = _ended(status)
    if ended.get("reason") == "OOMKilled":
        return Trouble(
            "OutOfMemory",
            f"container {status['name']} of pod {pod} was killed, because it needs more memory than it may use; raise "
            f"{settings}.resources.limits.memory",
        )
    if ended.get("exitCode"):
        return Trouble(
            "ContainerFailed",
            f"container {status['name']} of pod {pod} ended with exit code {ended['exitCode']}: {_words(ended)}; "
            f"see `kubectl logs {pod} --previous`",
        )
    if reason and reason not in _STARTING:
        return Trouble(
            "ContainerFailed",
            f"container {status['name']} of pod {pod} does not start: {message or reason}; "
            f"see `kubectl describe pod {pod}`",
        )
    return None


def _probe(pod: Pod, status: dict[str, Any], now: datetime) -> Trouble | None:
    since = _condition(pod, "Ready").get("lastTransitionTime")
    running = "running" in status.get("state", {}) and status.get("started") and not status.get("ready")
    if not running or not since or now - datetime.fromisoformat(since) < _PATIENCE:
        return None
    name = pod["metadata"]["name"]
    return Trouble(
        "ProbeFailed",
        f"container {status['name']} of pod {name} runs, but its readiness probe fails since {since}; "
        f"see `kubectl logs {name}`",
    )


def _condition(pod: Pod, kind: str) -> dict[str, Any]:
    conditions = pod.get("status", {}).get("conditions", [])
    return next((condition for condition in conditions if condition["type"] == kind), {})


def _ended(status: dict[str, Any]) -> dict[str, Any]:
    """How a container ended, now or the last time; {} where it never did."""
    states = (status.get("state", {}), status.get("lastState", {}))
    return next((state["terminated"] for state in states if state.get("terminated")), {})


def _words(ended: dict[str, Any]) -> str:
    return _short(_last_words(ended.get("message", ""))) or ended.get("reason", "no message")


def _last_words(message: str) -> str:
    """The last line that says something: the error, not the trace above it."""
    return next((line.strip() for line in reversed(message.splitlines()) if line.strip()), "")


def _short(text: str) -> str:
    return text if len(text) <= _MESSAGE else f"{text[:_MESSAGE]}…"
