"""A real control plane with the CRD on it, and a namespace for each test."""

import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from devcluster.cluster import Cluster
from rag_operator.api import crd

# Another name lets two runs stand beside each other. A cluster of that name that runs already is used, and left.
# Each of several workers has its own.
WORKER = os.environ.get("PYTEST_XDIST_WORKER", "main")
NAME = f"{os.environ.get('RAGSERVICE_TEST_CLUSTER', 'test-api')}-{WORKER}"

Kubectl = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """API server, controller manager and scheduler, without a node; RAGService is installed."""
    cluster = Cluster(NAME)
    existed = bool(cluster.status())
    cluster.up(nodes=0)
    try:
        apply = _kubectl(cluster, "apply", "--server-side", "--force-conflicts", "-f", "-", stdin=crd.text())
        assert apply.returncode == 0, apply.stderr
        _kubectl(cluster, "wait", "--for=condition=Established", f"crd/{crd.NAME}", "--timeout=30s").check_returncode()
        yield cluster
    finally:
        if not existed:
            cluster.down()


@pytest.fixture
def kubectl(cluster: Cluster) -> Kubectl:
    """`kubectl("get", "pods", stdin=None)` as the administrator; the caller judges the exit status."""

    def run(*arguments: str, stdin: str | None = None) -> "subprocess.CompletedProcess[str]":
        return _kubectl(cluster, *arguments, stdin=stdin)

    return run


@pytest.fixture
def namespace(kubectl: Kubectl) -> Iterator[str]:
    """A namespace of the test's own; its end is not waited for."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    kubectl("create", "namespace", name).check_returncode()
    yield name
    kubectl("delete", "namespace", name, "--wait=false").check_returncode()


def _kubectl(cluster: Cluster, *arguments: str, stdin: str | None = None) -> "subprocess.CompletedProcess[str]":
    program = Path(sys.executable).with_name("kubectl")
    return subprocess.run(
        [program, *arguments],
        input=stdin,
        env=os.environ | cluster.environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
