"""The operator's settings: what is wrong is said with the variable's name."""

import pytest

from rag_operator import settings
from rag_operator.__main__ import main
from rag_operator.cluster import ConfigError
from rag_operator.status import Images


def test_defaults() -> None:
    read = settings.read({"RAG_SERVICE_IMAGE": "service:1"})
    assert read.images == Images(service="service:1", redis="redis:8.2")
    assert (read.scrape_period, read.scrape_timeout, read.sweep_period) == (5.0, 2.0, 300.0)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("RAG_SERVICE_IMAGE", "", "RAG_SERVICE_IMAGE is not set: name the image"),
        ("RAG_SCRAPE_PERIOD", "5", "RAG_SCRAPE_PERIOD: '5' is not a duration"),
        ("RAG_SCRAPE_PERIOD", "10ms", "RAG_SCRAPE_PERIOD is 10ms, but must be between 1s and 1m"),
        ("RAG_SWEEP_PERIOD", "2h", "RAG_SWEEP_PERIOD is 2h, but must be between 1s and 1h"),
    ],
)
def test_what_is_wrong_is_named(name: str, value: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        settings.read({"RAG_SERVICE_IMAGE": "service:1", name: value})
    assert str(caught.value).startswith(message)


def test_without_a_cluster_it_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RAG_SERVICE_IMAGE", "service:1")
    monkeypatch.setenv("KUBECONFIG", "/does/not/exist")
    assert main(["run"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("rag-operator: no way to a cluster")
    assert "set KUBECONFIG to the path of a kubeconfig" in told
    assert "Traceback" not in told
