"""The reranker pods: a Deployment whose replicas belong to the HorizontalPodAutoscaler."""

import math
from datetime import timedelta

from rag_operator.api.v1alpha1 import RAGService
from rag_operator.desired import config, models, names, redis
from rag_operator.desired.names import Component, Manifest
from rag_operator.desired.pod import CONTAINER_DEFAULTS, POD_DEFAULTS, TMP_MOUNT, pull_secrets, resources
from rag_service.contract.settings import PORT

# A pod that must go still takes requests for this long before it is told to stop: until every node has learned that
# it left the Service. Then the service itself drains (`config.DRAIN`), answers what it has, and ends.
LEAVE = timedelta(seconds=5)
EXIT = timedelta(seconds=5)


def deployment(rag: RAGService, image: str, password: str) -> Manifest:
    """The Deployment, without replicas (see `manifests.manifests`)."""
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": names.metadata(rag, names.reranker(rag.metadata.name), Component.RERANKER),
        "spec": {
            "revisionHistoryLimit": 3,
            # A new pod is ready before an old one goes: there are never fewer than the SLO needs.
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": "25%"}},
            "selector": {"matchLabels": names.selector(rag, Component.RERANKER)},
            "template": _template(rag, image, password),
        },
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
            **pull_secrets(pod.image_pull_secrets),
            **_placement(rag),
            "serviceAccountName": rag.metadata.name,
            "terminationGracePeriodSeconds": _seconds(LEAVE + config.DRAIN + rag.spec.slo.timeout + EXIT),
            **models.init_containers(rag, image),
            "containers": [_container(rag, image)],
            "volumes": [_config_volume(rag), {"name": "tmp", "emptyDir": {}}, *models.volumes(rag)],
        },
    }


def _seconds(duration: timedelta) -> int:
    return math.ceil(duration.total_seconds())


def _placement(rag: RAGService) -> Manifest:
    """What the user may say about where and how the pods run; what is empty stays out."""
    pod = rag.spec.pod
    spread_over = {"labelSelector": {"matchLabels": names.selector(rag, Component.RERANKER)}}
    wanted = {
        "nodeSelector": pod.node_selector,
        "tolerations": [
            toleration.model_dump(mode="json", by_alias=True, exclude_none=True) for toleration in pod.tolerations
        ],
        "affinity": pod.affinity,
        "topologySpreadConstraints": [spread_over | constraint for constraint in pod.topology_spread_constraints],
        "priorityClassName": pod.priority_class_name,
        "runtimeClassName": pod.runtime_class_name,
    }
    return {key: value for key, value in wanted.items() if value}


def _container(rag: RAGService, image: str) -> Manifest:
    pod = rag.spec.pod
    ready = {"httpGet": {"path": "/readyz", "port": "http"}}
    alive = {"httpGet": {"path": "/healthz", "port": "http"}}
    return {
        "name": "reranker",
        "image": image,
        # For the program that the image names as its entry point.
        "args": ["serve", "--config", str(config.DIRECTORY / config.FILE)],
        "env": [{"name": env.name, "value": env.value} for env in pod.env],
        "ports": [{"name": "http", "containerPort": PORT, "protocol": "TCP"}],
        "resources": resources(pod.resources),
        **CONTAINER_DEFAULTS,
        # Ten minutes to load the models and, where it is not known yet, to find out what runs them best on this CPU.
        # Afterwards the probes are quick where the service says that its engine is dead or stuck, and patient where it
        # says nothing: a pod that is only busy, on a fraction of a CPU, must neither leave the Service nor be
        # restarted, because the others would get its load as well.
        "startupProbe": {**ready, "periodSeconds": 1, "timeoutSeconds": 5, "failureThreshold": 600},
        "readinessProbe": {**ready, "periodSeconds": 2, "timeoutSeconds": 5, "failureThreshold": 2},
        "livenessProbe": {
            **alive,
            "periodSeconds": 5,
            "timeoutSeconds": 10,
            "failureThreshold": 3,
            # Nobody is answered any more who would have to be waited for.
            "terminationGracePeriodSeconds": _seconds(LEAVE + config.DRAIN + EXIT),
        },
        "lifecycle": {"preStop": {"sleep": {"seconds": _seconds(LEAVE)}}},
        "volumeMounts": [
            {"name": "config", "mountPath": str(config.DIRECTORY), "readOnly": True},
            TMP_MOUNT,
            *models.mounts(rag),
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
