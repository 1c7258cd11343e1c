"""How a pod comes by models of the hub: init containers fetch and prepare them, the service finds them by their URI."""

from rag_operator.api.v1alpha1 import Backend, Model, Precision, RAGService
from rag_operator.desired import names
from rag_operator.desired.names import Manifest
from rag_operator.desired.pod import CONTAINER_DEFAULTS, TMP_MOUNT, resources
from rag_service.contract.settings import MODELS_DIRECTORY

_SCHEME = "hf://"
_VOLUME = "models"
# A pod that writes more than this is evicted before it fills its node's disk.
SIZE_LIMIT = "20Gi"


def init_containers(rag: RAGService, image: str) -> Manifest:
    """The part of a pod's spec that prepares models, one after the other; nothing where there is nothing to prepare.

    Where the volume holds a model already, its container ends at once.
    """
    made = [_container(rag, model, image) for model in _fetched(rag)]
    return {"initContainers": made} if made else {}


def volumes(rag: RAGService) -> list[Manifest]:
    """The volume that keeps prepared models; none where no model needs one."""
    if claim := rag.spec.model_storage.claim_name:
        return [{"name": _VOLUME, "persistentVolumeClaim": {"claimName": claim}}]
    return [{"name": _VOLUME, "emptyDir": {"sizeLimit": SIZE_LIMIT}}] if _fetched(rag) else []


def mounts(rag: RAGService) -> list[Manifest]:
    """Where the service finds the volume, which it only reads."""
    return [{**_mount(volume), "readOnly": True} for volume in volumes(rag)]


def directory(uri: str) -> str:
    """Where a model of the hub is prepared: a name made from its URI, the same for all who share a volume.

    A URI never holds two dashes in a row, so no two share a directory.
    """
    return str(MODELS_DIRECTORY / uri.removeprefix(_SCHEME).replace("/", "--").replace("@", "--at--"))


def _fetched(rag: RAGService) -> list[Model]:
    return [model for model in rag.spec.models if model.uri.startswith(_SCHEME)]


def _tried(model: Model) -> bool:
    return model.backend is Backend.AUTO or model.precision is Precision.AUTO


def _mount(volume: Manifest) -> Manifest:
    return {"name": volume["name"], "mountPath": str(MODELS_DIRECTORY)}


def _container(rag: RAGService, model: Model, image: str) -> Manifest:
    return {
        "name": names.prepare(model.name),
        "image": image,
        # It ends with a trial of what runs the model best on this CPU, unless both are named.
        "args": [
            "model",
            "prepare",
            model.uri,
            "--out",
            directory(model.uri),
            *([] if _tried(model) else ["--no-trial"]),
        ],
        "env": _environment(rag),
        # As much as the service may use: a pod asks for the larger of the two, so this costs nothing.
        "resources": resources(rag.spec.pod.resources),
        **CONTAINER_DEFAULTS,
        "volumeMounts": [TMP_MOUNT, *map(_mount, volumes(rag))],
    }


def _environment(rag: RAGService) -> list[Manifest]:
    """The user's variables, and how to reach the hub; of two with the same name ours wins."""
    hub = rag.spec.hugging_face
    found: dict[str, Manifest] = {env.name: {"name": env.name, "value": env.value} for env in rag.spec.pod.env}
    if hub.endpoint:
        found["HF_ENDPOINT"] = {"name": "HF_ENDPOINT", "value": hub.endpoint}
    if hub.token_secret_ref:
        secret = {"name": hub.token_secret_ref.name, "key": hub.token_secret_ref.key}
        found["HF_TOKEN"] = {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": secret}}
    return list(found.values())
