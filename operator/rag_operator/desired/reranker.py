"""The reranker pods: a Deployment whose replicas belong to the HorizontalPodAutoscaler."""

import math

from rag_operator.api.v1alpha1 import EnvVar, Pod, RAGService, Toleration
from rag_operator.desired import config, names, redis
from rag_operator.desired.names import Component, Manifest
from rag_operator.desired.pod import CONTAINER_SECURITY, POD_DEFAULTS, resources
from rag_service.contract.settings import PORT

# How long a pod that was told to stop still takes requests: until every node has learned that it left the Service.
DRAIN_SECONDS = 5
# From the last answer to the end of the process.
EXIT_SECONDS = 5


def deployment(rag: RAGService, image: str, password: str, replicas: int | None) -> Manifest:
    """The Deployment; `replicas` only where it is created (see `manifests.Inputs`)."""
    spec = {
        "revisionHistoryLimit": 3,
        # A new pod is ready before an old one goes: the number of pods never falls below what the SLO needs.
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": "25%"}},
        "selector": {"matchLabels": names.selector(rag, Component.RERANKER)},
        "template": _template(rag, image, password),
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": names.metadata(rag, names.reranker(rag.metadata.name), Component.RERANKER),
        "spec": spec if replicas is None else {"replicas": replicas, **spec},
    }


def _template(rag: RAGService, image: str, password: str) -> Manifest:
    pod = rag.spec.pod
    return {
        "metadata": {
            "labels": {**pod.labels, **names.labels(rag, Component.RERANKER)},
            "annotations": {**pod.annotations, names.CONFIG_HASH: config.digest(config.text(rag), password)},
        },
        "spec": {
            **POD_DEFAULTS,
            **_placement(pod),
            "serviceAccountName": rag.metadata.name,
            "terminationGracePeriodSeconds": DRAIN_SECONDS
            + math.ceil(rag.spec.slo.timeout.total_seconds())
            + EXIT_SECONDS,
            "containers": [_container(pod, image)],
            "volumes": [_config_volume(rag), {"name": "tmp", "emptyDir": {}}],
        },
    }


def _placement(pod: Pod) -> Manifest:
    """What the user may say about where and how the pods run; what is empty stays out."""
    wanted = {
        "imagePullSecrets": [{"name": secret.name} for secret in pod.image_pull_secrets],
        "nodeSelector": pod.node_selector,
        "tolerations": [_toleration(toleration) for toleration in pod.tolerations],
        "affinity": pod.affinity,
        "topologySpreadConstraints": pod.topology_spread_constraints,
        "priorityClassName": pod.priority_class_name,
        "runtimeClassName": pod.runtime_class_name,
    }
    return {key: value for key, value in wanted.items() if value}


def _toleration(toleration: Toleration) -> Manifest:
    return toleration.model_dump(mode="json", by_alias=True, exclude_none=True)


def _env(env: EnvVar) -> Manifest:
    return {"name": env.name, "value": env.value}


def _container(pod: Pod, image: str) -> Manifest:
    ready = {"httpGet": {"path": "/readyz", "port": "http"}}
    return {
        "name": "reranker",
        "image": image,
        "args": ["rag-service", "serve", "--config", str(config.DIRECTORY / config.FILE)],
        "env": [_env(env) for env in pod.env],
        "ports": [{"name": "http", "containerPort": PORT, "protocol": "TCP"}],
        "resources": resources(pod.resources),
        "securityContext": CONTAINER_SECURITY,
        # Ten minutes to load the models; afterwards readiness takes a pod out, and liveness restarts a dead engine.
        "startupProbe": {**ready, "periodSeconds": 1, "timeoutSeconds": 2, "failureThreshold": 600},
        "readinessProbe": {**ready, "periodSeconds": 2, "timeoutSeconds": 2, "failureThreshold": 2},
        "livenessProbe": {
            "httpGet": {"path": "/healthz", "port": "http"},
            "periodSeconds": 10,
            "timeoutSeconds": 5,
            "failureThreshold": 3,
        },
        "lifecycle": {"preStop": {"sleep": {"seconds": DRAIN_SECONDS}}},
        "volumeMounts": [
            {"name": "config", "mountPath": str(config.DIRECTORY), "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - the pod's own
        ],
    }


def _config_volume(rag: RAGService) -> Manifest:
    """Settings and the password of Redis as one directory."""
    return {
        "name": "config",
        "projected": {
            "defaultMode": 0o440,
            "sources": [
                {
                    "configMap": {
                        "name": names.config(rag.metadata.name),
                        "items": [{"key": config.FILE, "path": config.FILE}],
                    }
                },
                {
                    "secret": {
                        "name": names.redis(rag.metadata.name),
                        "items": [{"key": redis.PASSWORD_KEY, "path": config.PASSWORD_FILE}],
                    }
                },
            ],
        },
    }
