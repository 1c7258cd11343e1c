"""A real node with the chart on it, as `make demo` leaves it."""

import json
import subprocess
import sys
import uuid
from collections.abc import Iterator

import pytest

from tests.e2e.cluster import BIN, KEPT, NAME, ROOT, Cluster, Service, spec


def down() -> None:
    """End the cluster and remove every trace of it."""
    if not KEPT:
        subprocess.run([BIN / "devcluster", "down", "--name", NAME], check=True, timeout=300)


@pytest.fixture(scope="session")
def demo() -> Iterator[str]:
    """What the demo printed; its cluster stays for the other tests and goes at the end."""
    down()
    command = [sys.executable, ROOT / "examples" / "demo.py", "--name", NAME]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    try:
        assert done.returncode == 0, done.stdout
        yield done.stdout
    finally:
        down()


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest) -> Cluster:
    """The demo's cluster, without the demo's own RAGService on it."""
    if not KEPT:
        request.getfixturevalue("demo")
    cluster = Cluster()
    cluster.run("kubectl", "delete", "ragservices", "--all", "-n", "default")
    return cluster


@pytest.fixture
def service(cluster: Cluster) -> Iterator[Service]:
    """A Ready RAGService of two pods."""
    namespace = f"e2e-{uuid.uuid4().hex[:8]}"
    cluster.run("kubectl", "create", "namespace", namespace)
    service = Service(cluster, namespace, "faq")
    service.apply(spec())
    service.wait_settled()
    yield service
    cluster.run("kubectl", "delete", "namespace", namespace, "--wait=false")
    cluster.until(
        "pods gone",
        lambda: not json.loads(cluster.run("kubectl", "get", "pods", "-n", namespace, "-o", "json"))["items"],
    )
