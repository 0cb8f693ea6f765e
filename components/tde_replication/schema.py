"""The settings as types of a Pulumi package schema, for programs in other languages: made of the models and their own words."""

import ast
import inspect
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from pydantic import BaseModel

from tde_replication.settings import Cluster

PLAIN = ("string", "integer", "number", "boolean")


def with_types(schema: dict[str, Any], token: str) -> dict[str, Any]:
    """`schema` of the component `token`, with its input `cluster` as a type of its own, and that with all that it holds.

    See Pulumi's *Pulumi package schema*.
    """
    package = token.partition(":")[0]
    document = Cluster.model_json_schema()
    models = {model.__name__: model for model in _models(Cluster)}
    documents = {Cluster.__name__: document, **document.get("$defs", {})}
    types = {f"{package}:index:{name}": _type(documents[name], model, package) for name, model in models.items()}
    schema["types"] = {**(schema.get("types") or {}), **types}
    cluster = schema["resources"][token]["inputProperties"]["cluster"]
    text = {"description": cluster.get("description"), "plain": True}
    schema["resources"][token]["inputProperties"]["cluster"] = {"$ref": _reference(package, Cluster.__name__), **text}
    return schema


def _models(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """It, and all that its fields hold, each once."""
    found, todo = dict[type[BaseModel], None](), [model]
    while todo:
        one = todo.pop()
        if one in found:
            continue
        found[one] = None
        for field in one.model_fields.values():
            todo += _held(field.annotation)
    yield from found


def _held(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in getattr(annotation, "__args__", ()) for model in _held(part)]


def _type(document: dict[str, Any], model: type[BaseModel], package: str) -> dict[str, Any]:
    texts = descriptions(model)
    properties = {}
    for name, field in model.model_fields.items():
        key = field.alias or name
        described = document["properties"][key]
        text = [texts.get(name, ""), _choices(described)]
        properties[key] = {**_spec(described, package), "description": " ".join(filter(None, text)) or None}
    return {
        "type": "object",
        "description": vars(model).get("__doc__"),
        "properties": properties,
        "required": document.get("required", []),
    }


def _spec(document: dict[str, Any], package: str) -> dict[str, Any]:
    """A JSON Schema as Pulumi's."""
    if reference := document.get("$ref"):
        return {"$ref": _reference(package, reference.rpartition("/")[2])}
    if parts := document.get("anyOf") or document.get("oneOf"):
        specs = [_spec(part, package) for part in parts if part.get("type") != "null"]
        return specs[0] if len(specs) == 1 else {"oneOf": specs}
    match document.get("type"):
        case "array":
            return {"type": "array", "items": _spec(document["items"], package)}
        case "object":
            return {"type": "object", "additionalProperties": _spec(document["additionalProperties"], package)}
        case kind if kind in PLAIN:
            return {"type": kind}
    return {"type": "string"} if "const" in document or "enum" in document else {"$ref": "pulumi.json#/Any"}


def _choices(document: dict[str, Any]) -> str:
    """The values that a text may have, where they are few."""
    values = document.get("enum") or [value for part in document.get("anyOf", ()) for value in part.get("enum", ())]
    return f"One of: {', '.join(map(str, values))}." if values else ""


def _reference(package: str, name: str) -> str:
    return f"#/types/{package}:index:{name}"


def descriptions(model: type[BaseModel]) -> dict[str, str]:
    """What the text below each field says of it, as Markdown."""
    found = {}
    for base in reversed(model.__mro__[: model.__mro__.index(BaseModel)]):
        body = ast.parse(inspect.getsource(base)).body[0]
        lines = body.body if isinstance(body, ast.ClassDef) else []
        for field, text in pairwise(lines):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(text, ast.Expr)
                and isinstance(text.value, ast.Constant)
            ):
                found[field.target.id] = " ".join(str(text.value.value).replace("``", "`").split())
    return found
