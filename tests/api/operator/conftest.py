"""The operator's process beside a control plane, and pods that a stand-in for the kubelet runs."""

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import pytest_asyncio

from devcluster.cluster import Cluster as Devcluster
from tests.api.conftest import Kubectl
from tests.api.operator.client import Api
from tests.api.operator.kubelet import Kubelet
from tests.api.operator.process import OperatorProcess

ROOT = Path(__file__).parents[3]
SYSTEM = "ragservice-system"


@pytest_asyncio.fixture
async def api(cluster: Devcluster, kubectl: Kubectl, namespace: str) -> AsyncIterator[Api]:
    """The API as the administrator, in the test's namespace, which takes only pods of the restricted standard."""
    kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted").check_returncode()
    api = await Api.connect(cluster.environment())
    api.namespace = namespace
    yield api
    await api.close()


@pytest.fixture(scope="session")
def operator_kubeconfig(cluster: Devcluster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A kubeconfig with the rights that the chart gives the operator, and no more."""
    environment = cluster.environment()

    def run(*command: str, stdin: str | None = None) -> str:
        result = subprocess.run(command, input=stdin, env=environment, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
        return result.stdout

    files = [f"charts/operator/templates/{name}.yaml" for name in ("cluster-role", "service-account")]
    show = [argument for file in files for argument in ("--show-only", file)]
    manifests = run("helm", "template", "ragservice", str(ROOT), "--namespace", SYSTEM, *show)
    run(
        "kubectl",
        "apply",
        "-f",
        "-",
        stdin=json.dumps({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM}}),
    )
    run("kubectl", "apply", "-f", "-", stdin=manifests)
    token = run("kubectl", "create", "token", "ragservice-operator", "--namespace", SYSTEM, "--duration", "4h").strip()
    config = json.loads(run("kubectl", "config", "view", "--raw", "-o", "json"))
    config["users"] = [{"name": user["name"], "user": {"token": token}} for user in config["users"]]
    path = tmp_path_factory.mktemp("operator") / "kubeconfig"
    path.write_text(json.dumps(config))
    return path


@pytest.fixture(scope="module")
def shared_operator(operator_kubeconfig: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OperatorProcess]:
    """One operator for a file's tests: most of what a start costs is Python's. Tests of other files want none."""
    process = OperatorProcess(operator_kubeconfig, tmp_path_factory.mktemp("operator") / "operator.log")
    yield process
    if process.runs:
        process.stop()


@pytest_asyncio.fixture
async def operator(shared_operator: OperatorProcess) -> AsyncIterator[OperatorProcess]:
    """A running operator. A test may stop it. What it logged is printed when the test fails."""
    start = shared_operator.log.stat().st_size if shared_operator.log.exists() else 0
    if not shared_operator.runs:
        await shared_operator.start()
    yield shared_operator
    with shared_operator.log.open() as log:
        log.seek(start)
        print(log.read())


@pytest_asyncio.fixture
async def kubelet(api: Api) -> AsyncIterator[Kubelet]:
    """A stand-in for the kubelet in the test's namespace."""
    kubelet = Kubelet(api)
    task = asyncio.create_task(kubelet.run())
    yield kubelet
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
