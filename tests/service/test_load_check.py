"""The load check and the service understand each other."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.service.running import InProcess

pytestmark = pytest.mark.process

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_the_load_check_passes_against_the_service(service: InProcess, tmp_path: Path) -> None:
    before = service.client.get("/stats").json()
    files = (f"--resource={EXAMPLES / 'faq.yaml'}", f"--corpus={EXAMPLES / 'faq' / 'corpus.yaml'}")
    options = (f"--url={service.url}", "--duration=2s", "--warm-up=0s", f"--json={tmp_path / 'report.json'}")
    run = subprocess.run(
        [sys.executable, "-m", "rag_loadtest", "run", *files, *options], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    measured = json.loads((tmp_path / "report.json").read_text())["measurement"]
    assert measured["problems"] == {}
    after = service.client.get("/stats").json()
    hits, misses = (after[name] - before[name] for name in ("cache_hits", "cache_misses"))
    # Both count the same pairs, but for the five of the load check's first look.
    assert hits + misses == 5 * (measured["requests"] + 1)
    assert hits - 5 <= round(measured["hitRate"] * 5 * measured["requests"]) <= hits
