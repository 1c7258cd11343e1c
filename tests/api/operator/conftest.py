"""The operator's process beside a control plane, and pods that a stand-in for the kubelet runs."""

import asyncio
import json
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from devcluster.cluster import Cluster as Devcluster
from rag_operator.api.v1alpha1 import API_VERSION, KIND
from rag_operator.cluster import DEPLOYMENT, RAG_SERVICE, Cluster, Object
from tests.api.conftest import Kubectl
from tests.api.operator.kubelet import Kubelet
from tests.api.operator.process import OperatorProcess

ROOT = Path(__file__).parents[3]
SYSTEM = "ragservice-system"


class Api(Cluster):
    """The API as the tests see it: as the administrator, with shortcuts for RAGServices."""

    namespace = ""

    async def make(self, name: str = "faq", **spec: Any) -> Object:
        """Create a RAGService; `spec` is merged over a small one."""
        base = {
            "slo": {"p95": "300ms"},
            "models": [{"name": "best", "uri": "package://model"}],
            "scaling": {"scaleDownWindow": "20s"},
        }
        metadata = {"name": name, "namespace": self.namespace}
        body = {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": base | spec}
        return await self.create(RAG_SERVICE, body)

    async def rag(self, name: str = "faq") -> Object:
        """The RAGService."""
        item = await self.get(RAG_SERVICE, self.namespace, name)
        assert item is not None
        return item

    async def condition(self, kind: str, name: str = "faq") -> dict[str, Any]:
        """A condition of the RAGService; empty where there is none."""
        conditions = (await self.rag(name)).get("status", {}).get("conditions", [])
        return next((one for one in conditions if one["type"] == kind), {})

    async def replicas(self, name: str = "faq") -> int | None:
        """The replicas that the reranker's Deployment should have; None where there is no Deployment."""
        item = await self.get(DEPLOYMENT, self.namespace, f"{name}-reranker")
        return None if item is None else item["spec"]["replicas"]

    async def patch(self, kind: Any, name: str, body: Any, subresource: str | None = None) -> Object:
        """A merge patch."""
        path = kind.path(self.namespace, name, subresource)
        return await self._request("PATCH", path, body=body, content_type="application/merge-patch+json")

    async def remove(self, kind: Any, name: str) -> None:
        """Delete an object by name, if it is there."""
        item = await self.get(kind, self.namespace, name)
        if item is not None:
            await self.delete(kind, item)


async def eventually(
    condition: Callable[[], Awaitable[Any]], what: str = "it", seconds: float = 60, every: float = 0.2
) -> Any:
    """Wait until the condition gives something true, and return that. The deadline only ends what hangs."""
    deadline = time.monotonic() + seconds
    last: Any = None
    while time.monotonic() < deadline:
        last = await condition()
        if last:
            return last
        await asyncio.sleep(every)
    raise AssertionError(f"{what} did not happen within {seconds:.0f}s; last: {last!r}")


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


@pytest.fixture(scope="session")
def shared_operator(operator_kubeconfig: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OperatorProcess]:
    """One operator for all tests: most of what a start costs is Python's."""
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
    kubelet = Kubelet(api, api.namespace)
    task = asyncio.create_task(kubelet.run())
    yield kubelet
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
