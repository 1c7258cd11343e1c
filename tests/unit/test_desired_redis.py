"""A real server takes the configuration that we write."""

import subprocess
import time
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import AuthenticationError, RedisError

from rag_operator.api.v1alpha1 import RAGService
from rag_operator.desired.redis import configuration
from tests.redis_server import binary, free_port

PASSWORD = "k" * 43
RAG = RAGService.parse(
    {
        "metadata": {"name": "faq", "namespace": "default", "uid": "0f7c"},
        "spec": {"slo": {"p95": "300ms"}, "models": [{"name": "best", "uri": "package://best_model"}]},
    }
)


def test_a_real_server_reads_it(tmp_path: Path) -> None:
    file = tmp_path / "redis.conf"
    file.write_text(configuration(RAG, PASSWORD))
    port = free_port()
    with subprocess.Popen([binary(), file, "--port", str(port), "--bind", "127.0.0.1"]) as process:
        try:
            client = Redis(port=port, password=PASSWORD, decode_responses=True)
            deadline = time.monotonic() + 20
            while True:
                try:
                    client.ping()
                    break
                except RedisError:
                    assert time.monotonic() < deadline
                    time.sleep(0.02)
            wanted = {
                "maxmemory": str(192 * 2**20),
                "maxmemory-policy": "allkeys-lru",
                "save": "",
                "appendonly": "no",
            }
            assert {key: client.config_get(key)[key] for key in wanted} == wanted
            with pytest.raises(AuthenticationError):
                Redis(port=port).ping()
        finally:
            process.terminate()
