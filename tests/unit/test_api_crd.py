"""The CRD is generated, complete, and of the form that Kubernetes calls structural."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from rag_operator.api import crd

COMMITTED = Path(__file__).parents[2] / "charts" / "crds" / "templates" / "ragservices.yaml"

SPEC = crd.root_schema()["properties"]["spec"]


def nodes(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema below a schema, with its path."""
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from nodes(schema[key], f"{path}[]")


def fields(schema: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Every named field below a schema."""
    return [(path, node) for path, node in nodes(schema) if path and not path.endswith("[]")]


def test_the_committed_file_is_what_the_types_say() -> None:
    assert COMMITTED.read_text() == crd.text(), "run `make crd`"


def test_it_is_small_enough_for_kubectl_apply_and_free_of_template_syntax() -> None:
    text = crd.text()
    assert len(text.encode()) < 200_000
    assert "{{" not in text
    assert yaml.safe_load(text) == crd.custom_resource_definition()


def test_only_structural_words_are_used() -> None:
    foreign = {"$ref", "$defs", "title", "const", "exclusiveMinimum", "exclusiveMaximum", "oneOf", "allOf", "not"}
    ours = {"listMapKey", "patternMessage", "range"}
    for path, node in nodes(crd.root_schema()):
        assert not (foreign | ours) & node.keys(), path
        assert node.get("type") != "null", path
        assert "type" in node or node.get("x-kubernetes-int-or-string"), path
        assert ("anyOf" in node) == bool(node.get("x-kubernetes-int-or-string")), path


@pytest.mark.parametrize(("path", "node"), fields(SPEC), ids=lambda value: value if isinstance(value, str) else "")
def test_every_field_says_what_it_means_and_which_values_it_takes(path: str, node: dict[str, Any]) -> None:
    description = node["description"]
    assert description.endswith(".")
    if node.get("type") == "integer":
        assert str(node["minimum"]) in description
        assert str(node.get("maximum", "or more")) in description
    if node.get("type") == "string" and "enum" not in node:
        assert any(word in description for word in ("characters", "duration from", "Percent")), description
    if isinstance(node.get("default"), str | int) and not isinstance(node["default"], bool):
        assert f"Default: {node['default']}." in description


def test_lists_are_bounded_and_merge_by_their_key() -> None:
    for path, node in nodes(crd.root_schema()):
        if node.get("type") == "array":
            assert node["maxItems"] <= 64, path
            keys = node.get("x-kubernetes-list-map-keys", [])
            assert node["x-kubernetes-list-type"] == ("map" if keys else "atomic"), path
            assert set(keys) <= set(node["items"].get("required", [])), path


def test_no_float_anywhere() -> None:
    assert not [path for path, node in nodes(crd.root_schema()) if node.get("type") == "number"]


def test_a_status_has_no_defaults() -> None:
    status = crd.root_schema()["properties"]["status"]
    assert not [path for path, node in nodes(status) if "default" in node or "Default" in node.get("description", "")]
