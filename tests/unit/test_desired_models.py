"""How a pod comes by its models: who fetches them, who sees the token, who may write to the volume."""

import json
from pathlib import Path
from typing import Any

import pytest

from rag_operator.desired import models
from rag_operator.desired.manifests import Manifest
from rag_service.contract.settings import MODELS_DIRECTORY
from tests.unit.test_desired_manifests import MINIMAL, changed, rag, templates

ROOT = Path(__file__).parents[2]
IN_THE_IMAGE = MINIMAL["models"][0]
BEST = {"name": "best", "uri": "hf://cross-encoder/ms-marco-MiniLM-L6-v2"}
LIGHT = {"name": "light", "uri": "hf://cross-encoder/ms-marco-TinyBERT-L2-v2@refs/pr/1"}
TOKEN = {"tokenSecretRef": {"name": "hub", "key": "token"}}


def pod(*of: Manifest, **fields: Any) -> Manifest:
    """The spec of the reranker's pods of a RAGService with these models."""
    spec: Manifest = templates(changed(models=list(of), **fields))["faq-reranker"]["spec"]
    return spec


def environment(container: Manifest) -> dict[str, Any]:
    return {env["name"]: env.get("value", env.get("valueFrom")) for env in container["env"]}


def test_a_model_of_the_image_needs_neither_init_container_nor_volume() -> None:
    spec = pod(IN_THE_IMAGE)
    assert "initContainers" not in spec
    assert [volume["name"] for volume in spec["volumes"]] == ["config", "tmp"]


def test_each_model_of_the_hub_is_prepared_before_the_service_starts() -> None:
    spec = pod(BEST, {**IN_THE_IMAGE, "name": "other"}, LIGHT)
    assert [(container["name"], container["args"]) for container in spec["initContainers"]] == [
        (
            "prepare-best",
            ["model", "prepare", BEST["uri"], "--out", f"{MODELS_DIRECTORY}/cross-encoder--ms-marco-MiniLM-L6-v2"],
        ),
        (
            "prepare-light",
            [
                "model",
                "prepare",
                LIGHT["uri"],
                "--out",
                f"{MODELS_DIRECTORY}/cross-encoder--ms-marco-TinyBERT-L2-v2--at--refs--pr--1",
            ],
        ),
    ]


@pytest.mark.parametrize(
    ("named", "tried"),
    [
        ({}, True),
        ({"backend": "OpenVINO"}, True),
        ({"precision": "FP32"}, True),
        ({"backend": "OpenVINO", "precision": "FP32"}, False),
    ],
)
def test_where_both_backend_and_precision_are_named_nothing_is_tried(named: Manifest, tried: bool) -> None:
    best, light = pod(BEST, {**LIGHT, **named})["initContainers"]
    assert "--no-trial" not in best["args"]
    assert ("--no-trial" not in light["args"]) == tried


def test_the_service_itself_prepares_under_the_same_restrictions() -> None:
    spec = pod(BEST, pod={"resources": {"limits": {"cpu": "2", "memory": "3Gi"}}})
    (prepare,), (service,) = spec["initContainers"], spec["containers"]
    for field in ("image", "resources", "securityContext", "terminationMessagePolicy"):
        assert prepare[field] == service[field]
    assert prepare["securityContext"]["readOnlyRootFilesystem"] is True
    assert {"name": "tmp", "mountPath": "/tmp"} in prepare["volumeMounts"]


def test_only_who_prepares_may_write() -> None:
    spec = pod(BEST)
    assert {"name": "models", "emptyDir": {"sizeLimit": models.SIZE_LIMIT}} in spec["volumes"]
    (prepare,), (service,) = spec["initContainers"], spec["containers"]
    mount = {"name": "models", "mountPath": str(MODELS_DIRECTORY)}
    assert mount in prepare["volumeMounts"]
    assert {**mount, "readOnly": True} in service["volumeMounts"]


@pytest.mark.parametrize("model", [BEST, IN_THE_IMAGE], ids=["hub", "image"])
def test_a_claim_takes_the_place_of_the_pods_own_space(model: Manifest) -> None:
    """It may hold any model that was prepared ahead of time, so the service sees it in either case."""
    spec = pod(model, modelStorage={"claimName": "shared"})
    assert {"name": "models", "persistentVolumeClaim": {"claimName": "shared"}} in spec["volumes"]
    assert any(mount["name"] == "models" for mount in spec["containers"][0]["volumeMounts"])


def test_the_token_goes_to_who_fetches_and_to_nobody_else() -> None:
    spec = pod(BEST, huggingFace=TOKEN)
    assert environment(spec["initContainers"][0]) == {"HF_TOKEN": {"secretKeyRef": {"name": "hub", "key": "token"}}}
    assert environment(spec["containers"][0]) == {}
    spec.pop("initContainers")
    assert "hub" not in json.dumps(spec)


def test_a_mirror_and_the_way_to_it() -> None:
    """Whoever needs a proxy sets it as an environment variable; what the resource names itself wins."""
    given = [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}, {"name": "HF_ENDPOINT", "value": "http://other"}]
    spec = pod(BEST, pod={"env": given}, huggingFace={"endpoint": "https://hub.example.com"})
    assert environment(spec["initContainers"][0]) == {
        "HTTPS_PROXY": "http://proxy:3128",
        "HF_ENDPOINT": "https://hub.example.com",
    }


def test_no_two_models_of_a_shared_volume_meet() -> None:
    uris = [
        "hf://bert-base-uncased",
        "hf://acme/ranker",
        "hf://acme/ranker@v1",
        "hf://acme/ranker@v1/x",
        "hf://acme/ranker-v1",
    ]
    directories = {models.directory(uri) for uri in uris}
    assert len(directories) == len(uris)
    assert {str(Path(directory).parent) for directory in directories} == {str(MODELS_DIRECTORY)}


def test_the_longest_model_name_fits() -> None:
    (container,) = pod({**BEST, "name": "x" * 55})["initContainers"]
    assert len(container["name"]) == 63


def test_the_image_searches_the_volume() -> None:
    (line,) = (
        line for line in (ROOT / "service" / "Dockerfile").read_text().splitlines() if "RAGSERVICE_MODELS=" in line
    )
    assert str(MODELS_DIRECTORY) in line.partition("RAGSERVICE_MODELS=")[2].split(":")


def test_nothing_of_the_parsed_resource_is_lost() -> None:
    given = rag(changed(models=[{**BEST, "backend": "OpenVINO", "precision": "INT8"}], huggingFace=TOKEN)).spec
    assert (given.models[0].backend.value, given.models[0].precision.value) == ("OpenVINO", "INT8")
    assert given.hugging_face.token_secret_ref is not None
