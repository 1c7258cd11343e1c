"""Every file in examples/ is what the API and the service take."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from rag_loadtest.shapes import Corpus
from rag_operator.api.v1alpha1 import API_VERSION, KIND, RAGService
from rag_service import __version__
from rag_service.contract.wire import Document, RerankRequest

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
CORPUS = EXAMPLES / "faq" / "corpus.yaml"
REQUEST = EXAMPLES / "faq" / "request.json"
MANIFESTS = [
    pytest.param(manifest, id=f"{file.name}-{manifest.get('kind')}")
    for file in sorted(EXAMPLES.glob("*.yaml"))
    for manifest in yaml.safe_load_all(file.read_text())
]


def _rag_service(manifest: dict[str, Any]) -> None:
    assert manifest["apiVersion"] == API_VERSION
    from_the_server = {"namespace": "default", "uid": "0", **manifest["metadata"]}
    spec = RAGService.parse({**manifest, "metadata": from_the_server}).spec
    assert spec.slo.p95 < spec.slo.timeout
    assert spec.scaling.min_replicas <= spec.scaling.max_replicas


def _job(manifest: dict[str, Any]) -> None:
    [container] = manifest["spec"]["template"]["spec"]["containers"]
    assert container["image"] == f"ragservice/loadtest:{__version__}"
    assert container["resources"]["limits"]["memory"]


def test_what_an_example_leaves_as_a_comment_is_taken_too() -> None:
    text = (EXAMPLES / "hub.yaml").read_text()
    manifest = yaml.safe_load(re.sub(r"^  # (?= *\w+:)", "  ", text, flags=re.MULTILINE))
    metadata = {"namespace": "default", "uid": "0", **manifest["metadata"]}
    spec = RAGService.parse({**manifest, "metadata": metadata}).spec
    assert spec.hugging_face.token_secret_ref is not None
    assert spec.hugging_face.endpoint is not None
    assert spec.model_storage.claim_name == "models"


CHECKS = {KIND: _rag_service, "Job": _job}


@pytest.mark.parametrize("manifest", MANIFESTS)
def test_manifests(manifest: dict[str, Any]) -> None:
    CHECKS[manifest["kind"]](manifest)


def test_the_corpus_has_enough_to_ask_and_no_id_twice() -> None:
    corpus = Corpus.model_validate(yaml.safe_load(CORPUS.read_text()))
    ids = [document.id for document in corpus.documents if isinstance(document, Document)]
    assert len(ids) == len(set(ids)) == len(corpus.documents) >= 60
    assert len(set(corpus.queries)) == len(corpus.queries) >= 200


def test_the_request_asks_about_documents_of_the_corpus() -> None:
    request = RerankRequest.model_validate_json(REQUEST.read_text())
    corpus = Corpus.model_validate(yaml.safe_load(CORPUS.read_text()))
    known = {(document.id, document.text) for document in corpus.documents if isinstance(document, Document)}
    assert request.query in corpus.queries
    assert len(request.texts) == 8
    assert {(text.id, text.text) for text in request.texts if isinstance(text, Document)} <= known


def test_no_example_is_left_out() -> None:
    files = {path for path in EXAMPLES.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert files == {*EXAMPLES.glob("*.yaml"), *EXAMPLES.glob("*.py"), CORPUS, REQUEST}
