"""Real models, a real Redis, a real server."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import models
from tests.redis_server import RedisServer
from tests.service.running import InProcess


@pytest.fixture(scope="package", autouse=True)
def user_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The user's own cache of prepared models is left alone; for these tests only, since devcluster's is beside it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield Path(os.environ["XDG_CACHE_HOME"])


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """URIs of two cross-encoders and a bi-encoder, by name, prepared as they are in an image."""
    from rag_service.models.prepare import prepare

    root = tmp_path_factory.mktemp("models")
    made = {
        "best": models.cross_encoder(root / "best", seed=1),
        "light": models.cross_encoder(root / "light", seed=2),
        "cosine": models.bi_encoder(root / "cosine", seed=3),
    }
    for name, directory in made.items():
        prepare(f"file://{directory}", root / "prepared" / name)
    return {name: f"file://{root / 'prepared' / name}" for name in made}


@pytest.fixture(scope="session")
def shared_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A server that no test may harm."""
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A server of the test's own."""
    with RedisServer(tmp_path) as server:
        yield server


@pytest.fixture(scope="session")
def service(tiny: dict[str, str], shared_redis: RedisServer) -> Iterator[InProcess]:
    """A service with three models and a cache, for tests that leave it as it was but for counters and scores."""
    limits = {"bodyBytes": 300_000, "documents": 50, "textCharacters": 20_000}
    with InProcess(tiny, shared_redis.url, service="default/shared", limits=limits) as running:
        yield running
