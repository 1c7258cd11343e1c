"""The chart as Helm sees it: what it packs, what it renders, and what it says to a wrong value."""

import json
import subprocess
import tarfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from devcluster.build import build
from rag_service import __version__

ROOT = Path(__file__).parents[2]
VALUES = yaml.safe_load((ROOT / "values.yaml").read_text())
SUBCHARTS = sorted(path.parent.name for path in (ROOT / "charts").glob("*/Chart.yaml"))

Helm = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def helm() -> Helm:
    """The Helm that devcluster builds, run in the chart's folder."""
    program = build().helm

    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run([program, *arguments], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)

    return run


def rendered(helm: Helm, *arguments: str) -> list[dict[str, Any]]:
    answer = helm("template", "ragservice", ".", "--namespace=ragservice-system", *arguments)
    assert answer.returncode == 0, answer.stderr
    return [item for item in yaml.safe_load_all(answer.stdout) if item]


def one(items: list[dict[str, Any]], kind: str, name: str = "ragservice-operator") -> dict[str, Any]:
    (item,) = (item for item in items if item["kind"] == kind and item["metadata"]["name"] == name)
    return item


def test_every_version_is_the_projects() -> None:
    charts = [yaml.safe_load(path.read_text()) for path in (ROOT / "Chart.yaml", *ROOT.glob("charts/*/Chart.yaml"))]
    assert {chart["version"] for chart in charts} | {chart["appVersion"] for chart in charts} == {__version__}
    assert [(dependency["name"], dependency["version"]) for dependency in charts[0]["dependencies"]] == [
        (name, __version__) for name in SUBCHARTS
    ]
    assert VALUES["operator"]["image"] == f"ragservice/operator:{__version__}"
    assert VALUES["operator"]["serviceImage"] == f"ragservice/service:{__version__}"


def test_every_value_is_documented_and_in_the_schema() -> None:
    schema = json.loads((ROOT / "values.schema.json").read_text())["properties"]
    for chart in SUBCHARTS:
        assert set(schema[chart]["properties"]) - {"global"} == set(VALUES[chart])
        assert schema[chart]["additionalProperties"] is False
        assert all("title" in value for name, value in schema[chart]["properties"].items() if name != "global")
    lines = (ROOT / "values.yaml").read_text().splitlines()
    for above, line in pairwise(lines):
        if line.startswith("  ") and not line.startswith(("   ", "  #")) and not above:
            pytest.fail(f"no comment above {line.strip()!r}")


@pytest.mark.cluster
def test_the_package_is_small_and_holds_every_subchart_and_nothing_else(helm: Helm, tmp_path: Path) -> None:
    answer = helm("package", ".", f"--destination={tmp_path}")
    assert answer.returncode == 0, answer.stderr
    (package,) = tmp_path.iterdir()
    # As a release it must fit into a Secret, three times over.
    assert package.stat().st_size < 200_000
    with tarfile.open(package) as archive:
        names = [name.removeprefix("ragservice/") for name in archive.getnames()]
    assert {name.split("/")[0] for name in names} == {
        "Chart.yaml",
        "LICENSE",
        "charts",
        "templates",
        "values.schema.json",
        "values.yaml",
    }
    packed = {name for name in names if name.startswith(("charts/", "templates/"))}
    assert packed == {
        str(path.relative_to(ROOT))
        for folder in ("charts", "templates")
        for path in (ROOT / folder).rglob("*")
        if path.is_file()
    }


@pytest.mark.cluster
def test_lint_finds_nothing(helm: Helm) -> None:
    answer = helm("lint", ".", "--strict")
    assert answer.returncode == 0, answer.stdout + answer.stderr


@pytest.mark.cluster
def test_the_images_reach_the_operator(helm: Helm) -> None:
    items = rendered(helm, "--set=operator.image=o:1,operator.serviceImage=s:2,operator.redisImage=r:3")
    (container,) = one(items, "Deployment")["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "o:1"
    env = {variable["name"]: variable.get("value") for variable in container["env"]}
    assert env["RAG_SERVICE_IMAGE"] == "s:2"
    assert env["RAG_REDIS_IMAGE"] == "r:3"


@pytest.mark.cluster
def test_several_operators_compete_for_a_lease_and_one_needs_none(helm: Helm) -> None:
    for replicas, strategy, competes in ((1, "Recreate", False), (2, "RollingUpdate", True)):
        items = rendered(helm, f"--set=operator.replicas={replicas}")
        spec = one(items, "Deployment")["spec"]
        assert (spec["replicas"], spec["strategy"]["type"]) == (replicas, strategy)
        (container,) = spec["template"]["spec"]["containers"]
        assert ("RAG_LEASE_NAMESPACE" in {variable["name"] for variable in container["env"]}) == competes
        assert any(item["kind"] == "Role" for item in items) == competes


@pytest.mark.cluster
def test_every_value_has_an_effect(helm: Helm, tmp_path: Path) -> None:
    values = {
        "replicas": 2,
        "imagePullPolicy": "Always",
        "imagePullSecrets": [{"name": "mine"}],
        "resources": {"limits": {"memory": "1Gi"}},
        "nodeSelector": {"disk": "ssd"},
        "tolerations": [{"operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "topologySpreadConstraints": [{"maxSkew": 1}],
        "priorityClassName": "high",
        "podLabels": {"team": "search"},
        "podAnnotations": {"note": "x"},
        "aggregateToUserRoles": False,
    }
    assert set(values) == set(VALUES["operator"]) - {"image", "serviceImage", "redisImage"}
    default = rendered(helm)
    for name, value in values.items():
        file = tmp_path / "values.yaml"
        file.write_text(yaml.safe_dump({"operator": {name: value}}))
        assert rendered(helm, f"--values={file}") != default, name


@pytest.mark.cluster
def test_the_custom_resource_is_kept_and_can_be_left_out(helm: Helm) -> None:
    crd = one(rendered(helm), "CustomResourceDefinition", "ragservices.ragservice.dev")
    assert crd["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    assert not [item for item in rendered(helm, "--set=crds.enabled=false") if item["kind"].startswith("Custom")]


@pytest.mark.cluster
def test_no_right_is_a_wildcard(helm: Helm) -> None:
    for item in rendered(helm):
        for rule in item.get("rules", []):
            assert "*" not in rule["apiGroups"] + rule["resources"] + rule["verbs"]
            assert not {"bind", "escalate", "impersonate"} & set(rule["verbs"])
            if "secrets" in rule["resources"]:
                assert "deletecollection" not in rule["verbs"]


@pytest.mark.cluster
@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("operator.nodeSelector=gpu", "at '/operator/nodeSelector': got string, want object"),
        ("operator.replicas=0", "at '/operator/replicas': minimum: got 0, want 1"),
        ("operator.leader=true", "at '/operator': additional properties 'leader' not allowed"),
        ("operator.image=a b", "at '/operator/image': 'a b' does not match pattern"),
        ("operator.resources.limits.memory=1GiB", "at '/operator/resources/limits/memory': '1GiB' does not match"),
        ("operator.resources.limits.cpu=-1", "at '/operator/resources/limits/cpu': minimum: got -1, want 0"),
        ("operator.imagePullPolicy=Sometimes", "value must be one of 'Always', 'IfNotPresent', 'Never'"),
        ("crds.enabled=maybe", "at '/crds/enabled': got string, want boolean"),
        ("crd.enabled=false", "additional properties 'crd' not allowed"),
        ("operator.podLabels.app\\.kubernetes\\.io/name=x", "invalid propertyName 'app.kubernetes.io/name'"),
    ],
)
def test_a_wrong_value_is_named(helm: Helm, value: str, message: str) -> None:
    answer = helm("template", "ragservice", ".", f"--set={value}")
    assert answer.returncode != 0
    assert message in answer.stderr
