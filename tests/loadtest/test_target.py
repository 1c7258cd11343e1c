from pathlib import Path
from typing import Any

import pytest

from rag_loadtest.errors import ConfigurationError
from rag_loadtest.target import Target, from_cluster, from_file
from rag_operator.api import v1alpha1

SMALLEST: dict[str, Any] = {
    "apiVersion": v1alpha1.API_VERSION,
    "kind": v1alpha1.KIND,
    "metadata": {"name": "faq", "namespace": "default", "uid": "1"},
    "spec": {"slo": {"p95": "300ms"}, "models": [{"name": "a", "uri": "file:///a"}]},
}


def test_the_defaults_are_those_of_the_api() -> None:
    view, full = Target.model_validate(SMALLEST).spec, v1alpha1.RAGService.parse(SMALLEST).spec
    assert view.slo.p95 == full.slo.p95
    assert view.slo.timeout == full.slo.timeout
    assert str(view.slo.availability) == full.slo.availability
    assert view.slo.request.model_dump() == full.slo.request.model_dump()
    assert view.load_check.users == full.load_check.users


def test_a_file_may_hold_other_objects_too(tmp_path: Path) -> None:
    file = tmp_path / "faq.yaml"
    file.write_text(
        "kind: Namespace\n---\nkind: RAGService\nmetadata: {name: faq}\nspec: {slo: {p95: 1s}, loadCheck: {users: 3}}\n"
    )
    assert from_file(file).spec.load_check.users == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("kind: Namespace\n", "must hold exactly one RAGService, and holds 0"),
        ("kind: RAGService\n---\nkind: RAGService\n", "must hold exactly one RAGService, and holds 2"),
        ("kind: RAGService\nmetadata: {name: faq}\nspec: {slo: {p95: 5 s}}\n", "spec.slo.p95: '5 s' is not a duration"),
        ("kind: RAGService\nmetadata: {name: faq}\nspec: {slo: {p95: 0s}}\n", "spec.slo.p95: "),
        ("kind: RAGService\nmetadata: {name: faq}\nspec: {}\n", "spec.slo: Field required"),
        ("kind: [", "cannot read"),
    ],
)
def test_a_wrong_file_is_explained(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "faq.yaml"
    file.write_text(content)
    with pytest.raises(ConfigurationError) as caught:
        from_file(file)
    assert str(file) in str(caught.value)
    assert message in str(caught.value)


def test_without_kubectl_a_file_is_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigurationError, match="kubectl is not on the PATH: install it, or give the RAGService as a"):
        from_cluster("faq", "default")
