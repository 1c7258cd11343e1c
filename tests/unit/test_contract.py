"""The seam between service, operator and load check: durations, histograms, settings, load reports."""

from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from rag_service.contract import duration
from rag_service.contract.histogram import BOUNDS, Histogram
from rag_service.contract.load import LoadReport
from rag_service.contract.settings import RedisSettings, ServiceSettings, load, read_password

SECONDS = st.floats(min_value=0.0011, max_value=99)


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [("300ms", 300), ("1h30m", 5_400_000), ("1m0s", 60_000), ("0s", 0), ("99999h", 359_996_400_000)],
)
def test_a_duration_reads_as_the_gateway_api_writes_it(text: str, milliseconds: int) -> None:
    assert duration.parse(text) == timedelta(milliseconds=milliseconds)


@pytest.mark.parametrize("text", ["", "300", "1.5s", "-1s", "1 s", "1d", "123456s", "1s1s1s1s1s", "s", "10s\n"])
def test_anything_else_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="such as 300ms, 10s or 1h30m"):
        duration.parse(text)


@given(st.integers(min_value=0, max_value=99_999 * 3_600_000))
def test_a_duration_survives_writing_and_reading(milliseconds: int) -> None:
    whole = timedelta(milliseconds=milliseconds)
    assert duration.parse(duration.text(whole)) == whole


@given(st.lists(SECONDS, min_size=1, max_size=200), st.sampled_from([0.5, 0.95, 0.99, 1.0]))
def test_a_quantile_is_off_by_a_bucket_at_the_most(values: list[float], q: float) -> None:
    histogram = Histogram()
    for value in values:
        histogram.observe(value)
    estimate, exact = histogram.quantile(q), float(np.quantile(values, q, method="inverted_cdf"))
    assert estimate is not None
    assert exact / 1.26 <= estimate <= exact * 1.26


@given(st.lists(SECONDS, max_size=50), st.lists(SECONDS, max_size=50))
def test_merging_loses_nothing(left: list[float], right: list[float]) -> None:
    parts = [Histogram(), Histogram()]
    whole = Histogram()
    for part, values in zip(parts, (left, right), strict=True):
        for value in values:
            part.observe(value)
            whole.observe(value)
    assert Histogram.merged(parts).counts == whole.counts


def test_a_histogram_without_observations_has_no_quantile() -> None:
    assert Histogram().quantile(0.95) is None
    assert Histogram.merged([]).total == 0


def test_beyond_the_last_bound_the_last_bound_is_returned() -> None:
    histogram = Histogram()
    histogram.observe(1000)
    assert histogram.quantile(0.95) == BOUNDS[-1]


def test_a_histogram_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="52 buckets, not 3"):
        Histogram([1, 2, 3])


def test_a_load_report_survives_the_wire() -> None:
    report = LoadReport(incarnation="a", uptime=12.5, threads=2, busy=3.5, latency=(0,) * (len(BOUNDS) + 1))
    assert LoadReport.model_validate_json(report.model_dump_json(by_alias=True)) == report


@pytest.mark.parametrize("broken", [{"uptime": float("nan")}, {"busy": -1}, {"threads": 0}, {"latency": [1]}])
def test_an_impossible_load_report_is_refused(broken: dict[str, object]) -> None:
    report = {"incarnation": "a", "uptime": 1.0, "threads": 1, "busy": 0.0, "latency": [0] * (len(BOUNDS) + 1)}
    with pytest.raises(ValidationError, match=next(iter(broken))):
        LoadReport.model_validate(report | broken)


def test_settings_read_from_the_file_that_the_operator_writes(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text(
        '{"service": "default/faq", "models": [{"name": "a", "uri": "file:///models/a"}],'
        ' "cache": {"ttl": "1h", "redis": {"url": "redis://faq-redis:6379/0"}}, "requestTimeout": "30s"}'
    )
    settings = load(file)
    assert settings.cache.ttl == timedelta(hours=1)
    assert ServiceSettings.model_validate_json(settings.model_dump_json(by_alias=True)) == settings


def test_a_password_comes_from_its_file_and_does_not_show(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("hunter2\n")
    password = read_password(RedisSettings(url="redis://r:6379/0", password_file=tmp_path / "password"))
    assert password is not None
    assert password.get_secret_value() == "hunter2"
    assert "hunter2" not in repr(password)
    assert read_password(RedisSettings(url="redis://r:6379/0")) is None
