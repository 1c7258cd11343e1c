"""The CustomResourceDefinition, generated from the types: `python -m rag_operator.api.crd` prints it.

Pydantic writes JSON Schema; Kubernetes wants a structural schema, which has no `$ref`, no `null`, no exclusive
bounds, and defaults that hold for each level of nesting. `structural` is that step.
"""

import json
import sys
from collections.abc import Callable, Iterator, Mapping
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
    # These three are the API server's own; it accepts nothing here but their types.
    root["properties"] |= {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"type": "object"}}
    # What the operator did not write into the status is not there.
    root["properties"]["status"] = structural(generated["properties"]["status"], generated["$defs"], defaults=False)
    root["required"] = ["spec"]
    return root


def structural(schema: Mapping[str, Any], definitions: Mapping[str, Any], *, defaults: bool = True) -> Schema:
    """One node of pydantic's JSON Schema, and all below it, as a structural schema."""

    def below(child: Mapping[str, Any]) -> Schema:
        return structural(child, definitions, defaults=defaults)

    node = _resolved(schema, definitions)
    result = {**_words(node), **_parts(node, below)}
    if validations := _validations(node):
        result["x-kubernetes-validations"] = validations
    if defaults and (default := _without_empty(node.get("default"))) not in _EMPTY:
        result["default"] = default
    if description := " ".join(_description(node, result)):
        result = {"description": description, **result}
    return result


def _resolved(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> Schema:
    """The node itself where it is a reference, or one of several of which the other is null."""
    node = dict(schema)
    if "anyOf" in node and not node.get("x-kubernetes-int-or-string"):
        (only,) = (option for option in node.pop("anyOf") if option.get("type") != "null")
        node = {**_resolved(only, definitions), **node}
    if "$ref" in node:
        node = {**_resolved(definitions[node.pop("$ref").rpartition("/")[2]], definitions), **node}
    return node


def _words(node: Mapping[str, Any]) -> Schema:
    """What the node says of itself."""
    words = {key: node[key] for key in _KEPT if key in node}
    if "exclusiveMinimum" in node:
        words["minimum"] = node["exclusiveMinimum"] + 1  # on integers, the only numbers of the resource
    if node.get("x-kubernetes-int-or-string"):
        words["anyOf"] = node["anyOf"]
    if PATTERN_MESSAGE in node:
        del words["pattern"]  # a rule says it instead
    return words


def _parts(node: Mapping[str, Any], below: Callable[[Mapping[str, Any]], Schema]) -> Schema:
    """What the node says of its fields, values or items."""
    parts: Schema = {}
    if "properties" in node:
        parts["properties"] = {name: below(child) for name, child in node["properties"].items()}
    if isinstance(node.get("additionalProperties"), Mapping):
        parts["additionalProperties"] = below(node["additionalProperties"])
    if "items" in node:
        parts |= {"items": below(node["items"]), **_list_type(node)}
    return parts


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
        low, high = schema["minimum"], schema.get("maximum")
        return f"{low} or more" if high is None else f"From {low} to {high}"
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
