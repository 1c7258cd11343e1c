"""What the documents say is there, is there."""

import re
from pathlib import Path

import pytest
import yaml

from devcluster.__main__ import _parser
from rag_operator.api.v1alpha1 import RAGService

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    path for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("devcluster/*.md")) if path.is_file()
)
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


@pytest.fixture(params=DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def document(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


def test_links_lead_somewhere(document: Path) -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
        assert link.startswith("https://") or (document.parent / link).exists(), link


def test_paths_exist(document: Path) -> None:
    folders = "operator|service|loadtest|devcluster|tests|examples|charts|docs"
    for path in re.findall(rf"`((?:{folders})/[\w./-]*)`", document.read_text()):
        assert (ROOT / path).exists() or (document.parent / path).exists(), path


def test_make_targets_exist(document: Path) -> None:
    text = document.read_text()
    named = re.findall(r"`make ([a-z-]+)", text) + re.findall(r"^make ([a-z-]+)", text, re.MULTILINE)
    assert set(named) <= TARGETS


def test_devcluster_commands_are_understood(document: Path) -> None:
    for block in blocks(document.read_text(), "sh"):
        for line in block.splitlines():
            words = line.split("#")[0].split()
            if words and words[0].endswith("devcluster"):
                _parser().parse_args(words[1:])


def test_the_readme_has_two_commands() -> None:
    assert blocks((ROOT / "README.md").read_text(), "sh") == ["make demo\nmake test\n"]


def test_the_readmes_resource_is_one_that_the_operator_reads() -> None:
    [block] = blocks((ROOT / "README.md").read_text(), "yaml")
    body = yaml.safe_load(block)
    body["metadata"] |= {"namespace": "default", "uid": "0"}
    assert RAGService.parse(body).spec.slo.p95.total_seconds() == 0.3
