"""The CustomResourceDefinition, generated from the types: `python -m rag_operator.api.crd` prints it.

Pydantic writes JSON Schema; Kubernetes wants a structural schema, which has no `$ref`, no `null`, no exclusive
bounds, and defaults that hold for each level of nesting. `structural` is that step.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from rag_operator.api.v1alpha1 import (
    GROUP,
    KIND,
    LIST_MAP_KEY,
    PATTERN_MESSAGE,
    PLURAL,
    RANGE,
    VERSION,
    RAGService,
    matches,
)

Schema = dict[str, Any]

NAME = f"{PLURAL}.{GROUP}"
HEADER = "# Generated from operator/rag_operator/api/v1alpha1.py by `make crd`; edit the types instead.\n"

# What is taken over as it stands.
_KEPT = (
    "type",
    "format",
    "enum",
    "pattern",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "maxProperties",
    "required",
    "x-kubernetes-int-or-string",
    "x-kubernetes-preserve-unknown-fields",
)

_EMPTY: tuple[Any, ...] = (None, "", [], {})

_COLUMNS = (
    ("Ready", "string", '.status.conditions[?(@.type=="Ready")].status', "Whether requests are answered.", 0),
    ("Replicas", "integer", ".status.readyReplicas", "Reranker pods that answer.", 0),
    ("Desired", "integer", ".status.scaling.requiredReplicas", "Reranker pods that the SLO needs.", 0),
    ("Model", "string", ".status.model", "The model that answers by default.", 0),
    ("P95", "string", ".status.scaling.p95", "Measured p95 latency.", 1),
    ("Hit rate", "string", ".status.scaling.hitRate", "Share of scores that came from the cache.", 1),
    ("Age", "date", ".metadata.creationTimestamp", "Time since creation.", 0),
)


def custom_resource_definition() -> Schema:
    """The CRD of RAGService. Helm keeps it on uninstall, because removing it would remove every RAGService."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": NAME,
            "annotations": {"helm.sh/resource-policy": "keep"},
            "labels": {"app.kubernetes.io/name": "ragservice", "app.kubernetes.io/part-of": "ragservice"},
        },
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": PLURAL,
                "singular": KIND.lower(),
                "shortNames": ["rag"],
                "categories": ["all"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [
                        {"name": name, "type": kind, "jsonPath": path, "description": text, "priority": priority}
                        for name, kind, path, text, priority in _COLUMNS
                    ],
                    "schema": {"openAPIV3Schema": root_schema()},
                }
            ],
        },
    }


def root_schema() -> Schema:
    """The structural schema of the whole resource."""
    generated = RAGService.model_json_schema(mode="serialization")
    root = structural(generated, generated["$defs"])
    properties = root["properties"]
    # These three are the API server's own; it accepts nothing here but their types.
    for name in ("apiVersion", "kind"):
        properties[name] = {"type": "string"}
    properties["metadata"] = {"type": "object"}
    properties["status"] = without_defaults(properties["status"])
    root["required"] = ["spec"]
    return root


def structural(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> Schema:
    """One node of pydantic's JSON Schema, and all below it, as a structural schema."""
    node = _resolved(schema, definitions)
    result: Schema = {key: node[key] for key in _KEPT if key in node}
    if "exclusiveMinimum" in node:
        result["minimum"] = node["exclusiveMinimum"] + 1  # on integers, the only numbers of the resource
    if node.get("x-kubernetes-int-or-string"):
        result["anyOf"] = node["anyOf"]
    if "properties" in node:
        result["properties"] = {name: structural(child, definitions) for name, child in node["properties"].items()}
    if isinstance(node.get("additionalProperties"), Mapping):
        result["additionalProperties"] = structural(node["additionalProperties"], definitions)
    if "items" in node:
        result["items"] = structural(node["items"], definitions)
        result |= _list_type(node)
    if validations := _validations(node):
        result["x-kubernetes-validations"] = validations
        if PATTERN_MESSAGE in node:
            del result["pattern"]
    if (default := _without_empty(node.get("default"))) not in _EMPTY:
        result["default"] = default
    if description := " ".join(_description(node, result)):
        result = {"description": description, **result}
    return result


def without_defaults(schema: Any) -> Any:
    """The schema without any default, for the status: what the operator did not write is not there."""
    if isinstance(schema, list):
        return [without_defaults(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {key: without_defaults(value) for key, value in schema.items() if key != "default"}


def _resolved(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> Schema:
    """The node itself where it is a reference, or one of several of which the other is null."""
    node = dict(schema)
    if "anyOf" in node and not node.get("x-kubernetes-int-or-string"):
        (only,) = (option for option in node.pop("anyOf") if option.get("type") != "null")
        node = {**_resolved(only, definitions), **node}
    if "$ref" in node:
        node = {**_resolved(definitions[node.pop("$ref").rpartition("/")[2]], definitions), **node}
    return node


def _list_type(node: Mapping[str, Any]) -> Schema:
    if LIST_MAP_KEY in node:
        return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [node[LIST_MAP_KEY]]}
    return {"x-kubernetes-list-type": "atomic"}


def _validations(node: Mapping[str, Any]) -> list[Schema]:
    """The node's CEL rules; first the pattern, where it has a message of its own."""
    own = [{"rule": rule["rule"], "message": rule["message"]} for rule in node.get("x-kubernetes-validations", [])]
    if PATTERN_MESSAGE not in node:
        return own
    return [{"rule": matches("self", node["pattern"]), "message": node[PATTERN_MESSAGE]}, *own]


def _without_empty(default: Any) -> Any:
    """A default as the API server should store it: no null, and nothing empty that would only clutter the resource.

    The parts' own defaults stay in, because the API server judges a default by the rules before it fills it in.
    """
    if not isinstance(default, dict):
        return default
    return {name: value for name, part in default.items() if (value := _without_empty(part)) not in _EMPTY}


def _description(node: Mapping[str, Any], result: Mapping[str, Any]) -> Iterator[str]:
    """What the field means, its range, its default."""
    if "description" in node:
        yield " ".join(node["description"].split())
    if allowed := node.get(RANGE) or _range(result):
        yield f"{allowed}."
    if default := ", ".join(_own_defaults(result.get("default"), result)):
        yield f"Default: {default}."


def _own_defaults(default: Any, schema: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """What a default says beyond the defaults of the parts, which have a description of their own."""
    if isinstance(default, dict):
        for name, value in default.items():
            part = schema.get("properties", {}).get(name, {})
            if value != part.get("default"):
                yield from _own_defaults(value, part, f"{path}.{name}" if path else name)
    elif default is not None:
        yield f"{path} {json.dumps(default).strip(chr(34))}".strip()


def _range(schema: Mapping[str, Any]) -> str | None:
    kind = schema.get("type")
    if kind == "integer" and "minimum" in schema:
        return (
            f"From {schema['minimum']} to {schema['maximum']}"
            if "maximum" in schema
            else f"{schema['minimum']} or more"
        )
    if "enum" in schema:
        return "One of " + ", ".join(schema["enum"])
    if kind == "array" and "maxItems" in schema:
        return f"{schema.get('minItems', 0)} to {schema['maxItems']} items"
    if kind == "object" and "maxProperties" in schema:
        return f"At most {schema['maxProperties']} entries"
    if kind == "string" and "maxLength" in schema:
        return f"At most {schema['maxLength']} characters"
    return None


class _Dumper(yaml.SafeDumper):
    """Lists indented, no aliases: the way Kubernetes manifests are written."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002 - PyYAML's
        super().increase_indent(flow, indentless=False)

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - PyYAML's
        return True


def text() -> str:
    """The CRD as YAML."""
    crd = yaml.dump(custom_resource_definition(), Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)
    return HEADER + crd


if __name__ == "__main__":
    sys.stdout.write(text())
