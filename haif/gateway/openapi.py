"""The OpenAPI 3.1 document of the gateway, made from the declarations that requests are parsed by.

What an answer holds is described by the dialects' own references; here it is an object, and an error is the one of its
dialect. Source: the OpenAPI Specification 3.1.0; JSON Schema 2020-12.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final

import msgspec

import haif
from haif.gateway.operations import LENIENCIES, OPERATIONS, Operation
from haif.gateway.strict import Lenient

_REF: Final = "#/components/schemas/"
_ABOUT: Final = (
    "OpenAI's and Anthropic's dialects over a mesh in which nobody has to trust anybody. Fields that stand nowhere "
    "here are refused by their name. Every answer of a model carries its signed receipt in `haif`."
)
_ERRORS: Final[dict[str, Any]] = {
    "Error": {
        "type": "object", "required": ["error", "request_id"],
        "properties": {
            "request_id": {"type": "string"},
            "error": {
                "type": "object", "required": ["message", "type", "param", "code"],
                "properties": {
                    "message": {"type": "string"}, "type": {"type": "string"}, "param": {"type": ["string", "null"]},
                    "code": {"type": "string"},
                },
            },
        },
    },
    "AnthropicError": {
        "type": "object", "required": ["type", "error", "request_id"],
        "properties": {
            "type": {"const": "error"}, "request_id": {"type": "string"},
            "error": {
                "type": "object", "required": ["type", "message", "details"],
                "properties": {
                    "type": {"type": "string"}, "message": {"type": "string"}, "details": {"type": "object"},
                },
            },
        },
    },
}  # fmt: skip


@cache
def encoded() -> bytes:
    """The document as it is served."""
    return msgspec.json.encode(document())


def document() -> dict[str, Any]:
    """The document."""
    components = _schemas()
    paths: dict[str, Any] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _described(operation)
    return {
        "openapi": "3.1.0",
        "info": {"title": "HAIF gateway", "version": haif.__version__, "description": _ABOUT},
        "paths": paths,
        "components": {
            "schemas": components | _ERRORS,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
    }


def _described(operation: Operation) -> dict[str, Any]:
    error = "AnthropicError" if operation.endpoint == "messages" else "Error"
    content: dict[str, Any] = {"application/json": {"schema": {"type": "object"}}}
    if operation.streams:
        content["text/event-stream"] = {"schema": {"type": "string"}}
    told: dict[str, Any] = {
        "summary": operation.summary,
        "operationId": f"{operation.method.lower()} {operation.path}",
        "responses": {
            "200": {"description": "the answer", "content": content},
            "default": {
                "description": "why there is none",
                "content": {"application/json": {"schema": {"$ref": f"{_REF}{error}"}}},
            },
        },
        "security": [{"bearer": []}, {"x-api-key": []}] if operation.key else [],
    }
    if operation.endpoint == "health":
        told["responses"]["503"] = {"description": "not yet", "content": content}
    name = operation.path.partition("{")[2].rstrip("}")
    if name:
        told["parameters"] = [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}}]
    if operation.body is not None:
        schema = _reference(operation.body)
        told["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    return told


# --- what requests may hold -------------------------------------------------------------------------------------------


def _declared() -> list[type[msgspec.Struct]]:
    """Every declaration whose schema must be known by its name."""
    bodies = [operation.body for operation in OPERATIONS if operation.body is not None]
    return list(dict.fromkeys([*bodies, *LENIENCIES]))


def _reference(kind: type[msgspec.Struct]) -> dict[str, Any]:
    declared = _declared()
    references, _ = msgspec.json.schema_components(declared, ref_template=_REF + "{name}")
    return references[declared.index(kind)]


def _schemas() -> dict[str, Any]:
    """The schemas of all declarations, with the fields beside them: what is neutral, a hint, or parsed apart."""
    declared = _declared()
    references, components = msgspec.json.schema_components(declared, ref_template=_REF + "{name}")
    named = {
        kind: components[reference["$ref"].removeprefix(_REF)]
        for kind, reference in zip(declared, references, strict=True)
    }
    for kind, lenient in LENIENCIES.items():
        named[kind]["properties"].update(_beside(lenient))
    for operation in OPERATIONS:
        for name, kinds in operation.apart.items():
            assert operation.body is not None, "what is parsed apart is a part of a body"
            schema = named[operation.body]
            schema["properties"][name] = {"anyOf": [_property(kind, name) for kind in kinds]}
            schema["required"] = [*schema.get("required", ()), name]
    return dict(components)


def _beside(lenient: Lenient) -> dict[str, Any]:
    neutral = {
        name: {"enum": [None, *values], "description": lenient.why.get(name, "nothing else can be honoured")}
        for name, values in lenient.neutral.items()
    }
    return neutral | {name: {"description": "a hint: ignored"} for name in sorted(lenient.hints)}


def _property(kind: type[msgspec.Struct], name: str) -> dict[str, Any]:
    schema: dict[str, Any] = next(iter(msgspec.json.schema(kind)["$defs"].values()))["properties"][name]
    return schema
