"""A real node with the chart on it, as `make demo` leaves it."""

import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

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


@contextmanager
def ready_service(cluster: Cluster) -> Iterator[Service]:
    """A Ready RAGService of two pods in a namespace of its own."""
    namespace = f"e2e-{uuid.uuid4().hex[:8]}"
    cluster.run("kubectl", "create", "namespace", namespace)
    service = Service(cluster, namespace, "faq")
    service.apply(spec())
    service.wait_settled()
    yield service
    cluster.run("kubectl", "delete", "namespace", namespace, "--wait=false")


@pytest.fixture(scope="session")
def shared_service(cluster: Cluster) -> Iterator[Service]:
    """One RAGService for all tests that leave it whole."""
    with ready_service(cluster) as service:
        yield service


@pytest.fixture
def service(shared_service: Service) -> Service:
    """A Ready RAGService of two pods, whatever the test before made of it."""
    shared_service.apply(spec())
    shared_service.wait_settled()
    return shared_service


@pytest.fixture
def own_service(cluster: Cluster) -> Iterator[Service]:
    """A Ready RAGService of two pods for a test that ends it."""
    with ready_service(cluster) as service:
        yield service
