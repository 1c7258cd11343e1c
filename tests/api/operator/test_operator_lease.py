"""Two operators, one Lease: one works, the other takes over, and never both at the same time."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from rag_operator.cluster import LEASE
from tests.api.conftest import Kubectl
from tests.api.operator.client import Api, eventually
from tests.api.operator.conftest import SYSTEM
from tests.api.operator.process import OperatorProcess
from tests.api.operator.proxy import Proxy

pytestmark = pytest.mark.cluster

Pair = tuple[OperatorProcess, OperatorProcess, Proxy]


@pytest_asyncio.fixture
async def pair(
    api: Api, kubectl: Kubectl, operator_kubeconfig: Path, shared_operator: OperatorProcess, tmp_path: Path
) -> AsyncIterator[Pair]:
    """Operators a and b, of which a came first; a is behind a proxy."""
    if shared_operator.runs:
        shared_operator.stop()
    here, account = f"--namespace={api.namespace}", f"--serviceaccount={SYSTEM}:ragservice-operator"
    kubectl("create", "role", "lease", "--verb=create,get,update", "--resource=leases", here).check_returncode()
    kubectl("create", "rolebinding", "lease", "--role=lease", account, here).check_returncode()
    proxy = Proxy(operator_kubeconfig)
    settings = {"RAG_LEASE_NAMESPACE": api.namespace}
    a = OperatorProcess(await proxy.start(tmp_path), tmp_path / "a.log", POD_NAME="a", **settings)
    b = OperatorProcess(operator_kubeconfig, tmp_path / "b.log", POD_NAME="b", **settings)
    await a.start()
    await eventually(lambda: holder(api), "a holder")
    await b.start()
    yield a, b, proxy
    for one in (a, b):
        if one.runs:
            one.stop()
    await proxy.stop()
    print(a.log.read_text(), b.log.read_text(), sep="\n---\n")


async def holder(api: Api) -> str:
    item = await api.get(LEASE, api.namespace, "ragservice-operator")
    return (item["spec"]["holderIdentity"] if item else "").partition("_")[0]


async def works(api: Api, name: str) -> None:
    """Somebody reconciles."""
    await api.make(name)

    async def made() -> bool:
        return await api.replicas(name) is not None

    await eventually(made, "a Deployment")


async def test_one_works_and_the_other_takes_over_but_never_both(api: Api, pair: Pair) -> None:
    a, b, proxy = pair
    await works(api, "first")
    assert await holder(api) == "a"
    assert "made Deployment" not in b.log.read_text()
    assert await b.get("/readyz") == await b.get("/healthz") == 200, "a stand-by is well, and hinders no rollout"

    # One that reaches nothing any more stops before the other begins.
    proxy.fail(lambda _: "stall")
    ended = took = None
    deadline = time.monotonic() + 60
    while (ended is None or took is None) and time.monotonic() < deadline:
        if ended is None and not a.runs:
            ended = time.monotonic()
        if took is None and await holder(api) == "b":
            took = time.monotonic()
        await asyncio.sleep(0.05)
    assert ended is not None
    assert took is not None
    assert ended < took
    assert a.stop() == 1
    assert "the Lease is lost: it was not renewed within 10s" in a.log.read_text()
    assert "Traceback" not in a.log.read_text()
    await works(api, "second")

    # One that is told to stop lets go at once.
    proxy.fail(None)
    await a.start()
    assert b.stop() == 0
    assert "was not released" not in b.log.read_text()

    assert await holder(api) in {"", "a"}
    await works(api, "third")
    assert await holder(api) == "a"
