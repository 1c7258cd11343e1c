"""`helm install`, `upgrade` and `uninstall` on a real API server: rights, Pod Security, and what stays."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from devcluster.cluster import Cluster
from tests.api.conftest import NAME
from tests.api.test_crd_validation import GOOD

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).parents[2]
NAMESPACE = "ragservice-system"
OPERATOR = f"system:serviceaccount:{NAMESPACE}:ragservice-operator"
CRD = "customresourcedefinition/ragservices.ragservice.dev"

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def bare() -> Iterator[Run]:
    """A control plane without the CRD, where `run("helm", …)` and `run("kubectl", …)` are the administrator's."""
    cluster = Cluster(f"{NAME}-chart")
    cluster.down()
    cluster.up(nodes=0)

    def run(*command: str, stdin: str | None = None) -> "subprocess.CompletedProcess[str]":
        environment = os.environ | cluster.environment()
        program = shutil.which(command[0], path=environment["PATH"])
        assert program is not None
        return subprocess.run(
            [program, *command[1:]],
            input=stdin, env=environment, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip

    try:
        yield run
    finally:
        cluster.down()


def must(answer: "subprocess.CompletedProcess[str]") -> str:
    assert answer.returncode == 0, answer.stderr + answer.stdout
    return answer.stdout


def helm_install(run: Run, chart: Path = ROOT, *options: str) -> str:
    where = ("--namespace", NAMESPACE, "--create-namespace")
    return must(run("helm", "upgrade", "--install", "ragservice", str(chart), *where, *options))


@pytest.fixture(scope="module")
def installed(bare: Run) -> Run:
    """The chart, installed by its own instructions; its namespace enforces the restricted Pod Security Standard."""
    must(bare("kubectl", "create", "namespace", NAMESPACE))
    must(bare("kubectl", "label", "namespace", NAMESPACE, "pod-security.kubernetes.io/enforce=restricted"))
    notes = helm_install(bare)
    assert "kubectl delete customresourcedefinition ragservices.ragservice.dev" in notes
    must(bare("kubectl", "wait", "--for=condition=Established", CRD, "--timeout=30s"))
    return bare


def test_the_operators_pod_is_admitted_under_restricted_pod_security(installed: Run) -> None:
    must(
        installed(
            "kubectl", "wait", "-n", NAMESPACE, "--for=jsonpath={.status.replicas}=1",
            "deployment/ragservice-operator", "--timeout=30s",
        )
    )  # fmt: skip


def is_allowed(run: Run, user: str, verb: str, resource: str, **where: str) -> bool:
    """Whether the API server would let the user; the resource as group/resource/subresource."""
    group, kind, subresource = [*resource.split("/"), ""][:3]
    attributes = {"namespace": "default", "verb": verb, "group": group, "resource": kind, "subresource": subresource}
    attributes |= where
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {"user": user, "resourceAttributes": attributes},
    }
    answer = must(run("kubectl", "create", "-o", "json", "-f", "-", stdin=json.dumps(review)))
    return bool(json.loads(answer)["status"]["allowed"])


@pytest.mark.parametrize(
    ("verb", "resource", "allowed"),
    [
        ("list", "ragservice.dev/ragservices", True),
        ("patch", "ragservice.dev/ragservices/status", True),
        ("patch", "ragservice.dev/ragservices", False),
        ("delete", "ragservice.dev/ragservices", False),
        ("create", "apps/deployments", True),
        ("patch", "apps/deployments/scale", True),
        ("watch", "/secrets", True),
        ("deletecollection", "/secrets", False),
        ("create", "autoscaling/horizontalpodautoscalers", True),
        ("list", "/pods", True),
        ("create", "/pods", False),
        ("create", "/pods/exec", False),
        ("list", "metrics.k8s.io/pods", True),
        ("create", "events.k8s.io/events", True),
        ("list", "/nodes", False),
        ("create", "rbac.authorization.k8s.io/clusterrolebindings", False),
        ("create", "coordination.k8s.io/leases", False),
    ],
)
def test_the_operators_rights_anywhere(installed: Run, verb: str, resource: str, allowed: bool) -> None:
    assert is_allowed(installed, OPERATOR, verb, resource) == allowed


def test_several_operators_may_use_their_lease_and_no_other(installed: Run) -> None:
    lease = "coordination.k8s.io/leases"
    helm_install(installed, ROOT, "--set=operator.replicas=2")
    for verb in ("get", "update"):
        assert is_allowed(installed, OPERATOR, verb, lease, namespace=NAMESPACE, name="ragservice-operator")
        assert not is_allowed(installed, OPERATOR, verb, lease, namespace=NAMESPACE, name="another")
    assert is_allowed(installed, OPERATOR, "create", lease, namespace=NAMESPACE)
    assert not is_allowed(installed, OPERATOR, "create", lease, namespace="default")
    helm_install(installed)


def test_people_get_their_rights_from_kubernetes_own_roles(installed: Run) -> None:
    for role in ("view", "edit"):
        must(
            installed("kubectl", "create", "rolebinding", role, f"--clusterrole={role}", f"--user={role}", "-n=default")
        )
    # A controller adds the rules to the roles.
    deadline = time.monotonic() + 30
    while not is_allowed(installed, "edit", "create", "ragservice.dev/ragservices"):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert is_allowed(installed, "view", "list", "ragservice.dev/ragservices")
    assert not is_allowed(installed, "view", "create", "ragservice.dev/ragservices")


def test_an_upgrade_brings_the_new_definition(installed: Run, tmp_path: Path) -> None:
    """An older chart whose RAGService has no field `paused`, then this one."""
    older = tmp_path / "older"
    older.mkdir()
    for name in ("Chart.yaml", "values.yaml", "values.schema.json", "templates", "charts"):
        source = ROOT / name
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, older / name)
    definition = older / "charts" / "crds" / "templates" / "ragservices.yaml"
    crd = yaml.safe_load(definition.read_text())
    del crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["paused"]
    definition.write_text(yaml.safe_dump(crd))

    def known() -> bool:
        return "paused" in must(installed("kubectl", "get", CRD, "-o", "jsonpath={..properties.spec.properties}"))

    helm_install(installed, older)
    assert not known()
    helm_install(installed)
    assert known()


def test_uninstalling_keeps_the_definition_and_every_resource_and_a_new_release_takes_over(installed: Run) -> None:
    must(installed("kubectl", "apply", "-n", "default", "-f", "-", stdin=yaml.safe_dump(GOOD)))
    assert "customresourcedefinition" in must(installed("helm", "uninstall", "ragservice", "-n", NAMESPACE)).lower()
    must(installed("kubectl", "get", "ragservice", "faq", "-n", "default"))
    left = json.loads(
        must(installed("kubectl", "get", "deployments,clusterroles,clusterrolebindings,services", "-A", "-o", "json"))
    )
    assert not [item for item in left["items"] if "ragservice" in item["metadata"]["name"]]
    helm_install(installed)
    must(installed("kubectl", "get", "ragservice", "faq", "-n", "default"))


def test_what_the_notes_say_removes_everything(installed: Run) -> None:
    must(installed("helm", "uninstall", "ragservice", "-n", NAMESPACE))
    must(installed("kubectl", "delete", "ragservices", "--all", "--all-namespaces"))
    must(installed("kubectl", "delete", "customresourcedefinition", "ragservices.ragservice.dev"))
    assert "ragservice" not in must(installed("kubectl", "get", "customresourcedefinitions", "-o", "name"))
