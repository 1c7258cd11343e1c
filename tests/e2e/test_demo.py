"""`make demo`: what a newcomer sees."""

import re

import pytest

pytestmark = pytest.mark.node


def test_the_demo_shows_the_main_job(demo: str) -> None:
    assert re.search(r"^ +1\. .*password", demo, re.MULTILINE | re.IGNORECASE), "the best answer is the fitting one"
    assert "from the cache" in demo
    ready = [int(number) for number in re.findall(r"replicas (\d+) of \d+ ready", demo)]
    assert ready[0] == 1
    assert max(ready) > 1, "the load makes more than one pod"
    assert "PASS" in demo
    assert "kubectl get rag" in demo, "it says where to look next"
