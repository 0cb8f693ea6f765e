"""The stack file: read whole, and all that is wrong with it told at once, before anything is touched."""

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tde_replication import allowed, former_form, later
from tde_replication.contradictions import contradictions, shown
from tde_replication.errors import UserError
from tde_replication.host_settings import KINDS
from tde_replication.settings import Cluster


class StackFileError(UserError):
    """All that is wrong with a stack file; nothing was touched."""

    def __init__(self, file: str, mistakes: list[str]) -> None:
        count = "1 mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
        super().__init__(f"{file} has {count}; nothing was touched:\n" + "\n".join(f"  {line}" for line in mistakes))
        self.mistakes = mistakes


def parse(file: str, document: Any, besides: Sequence[str] = ()) -> Cluster:
    """The cluster that a stack file declares. Raises `StackFileError` with all that is wrong in it, and what is `besides`.

    What a program has as outputs stays so, and is not looked at here: see `resolved`.
    """
    cluster = document if isinstance(document, Cluster) else _validated(file, document, besides)
    # Before anything is asked: parsing is all that has happened so far.
    refused = allowed.mistakes(cluster, Path.cwd(), os.environ)
    if mistakes := [*contradictions(_assumed(cluster)), *refused, *besides]:
        raise StackFileError(file, mistakes)
    return cluster


def _validated(file: str, document: Any, besides: Sequence[str]) -> Cluster:
    try:
        document = json.loads(document) if isinstance(document, str) else document
        json.dumps(later.filled(document, dict.fromkeys(later.paths(document))), ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError):  # of half a character, too
        raise StackFileError(file, ["cluster: must be a mapping of settings", *besides]) from None
    if told := former_form.sentence(document):
        raise StackFileError(file, [f"cluster: {told}", *besides])
    try:
        return Cluster.model_validate(document, by_name=False)
    except ValidationError as error:
        details = error.errors()
        raise StackFileError(file, [*map(_mistake, details), *_left(document, details), *besides]) from None


def _assumed(cluster: Cluster) -> Cluster:
    """With something in the place of each output."""
    document = later.document(cluster)
    if not (assumed := later.placeholders(document)):
        return cluster
    return Cluster.model_validate(later.filled(document, assumed), by_name=False)


def resolved(file: str, cluster: Cluster, values: Sequence[later.Value]) -> Cluster:
    """The same cluster with the `values` of its outputs, in their order.

    Raises `StackFileError` with all that is wrong in them.
    """
    document = later.document(cluster)
    found, mistakes = later.placeholders(document), []
    for path, (value, secret) in zip(list(found), values, strict=True):
        if secret:
            mistakes.append(
                f"{_place(path)}: this output is a secret, and plans and states show it: pass pulumi.Output.unsecret of it"
            )
        elif value is None:
            mistakes.append(f"{_place(path)}: this output has no value")
        elif not later.is_unknown(value):
            found[path] = value
    if mistakes:
        raise StackFileError(file, mistakes)
    return parse(file, later.filled(document, found))


def _left(document: Any, details: Sequence[Any]) -> list[str]:
    """Contradictions in what is left without the sections that are wrong in themselves; defaults stand in for those, so
    servers are compared only where all of them are readable."""
    wrong = {detail["loc"][0] if detail["loc"] else "servers" for detail in details}
    if wrong & {"primary", "servers"}:
        return []
    rest = {key: value for key, value in document.items() if key not in wrong}
    return contradictions(_assumed(Cluster.model_validate(rest, by_name=False)))


def _place(path: Iterable[str | int]) -> str:
    return "cluster" + "".join(f"[{part}]" if isinstance(part, int) else f".{shown(part)}" for part in path)


def _mistake(detail: Any) -> str:
    """One of pydantic's errors as `key: sentence`."""
    parts = detail["loc"]
    # After "host" comes the kind that it was read as, which is no key of the stack file.
    path = [part for before, part in zip((None, *parts), parts, strict=False) if before != "host" or part not in KINDS]
    if path[2:] == ["[key]"]:  # the name of a server
        path.pop()
    return f"{_place(path)}: {later.WHICH if later.is_output(detail['input']) else _sentence(detail)}"


def _sentence(detail: Any) -> str:
    match detail["type"]:
        case "extra_forbidden" | "missing" as kind:
            return _WHOLE[kind]
        case "literal_error":
            return f"this must be {detail['ctx']['expected']}"
        case "value_error":
            return str(detail["ctx"]["error"])
        case "greater_than_equal":
            return f"this must be {detail['ctx']['ge']} or more"
        case kind if kind.endswith(("_type", "_parsing")):
            return f"this must be {_TYPES.get(kind, detail['msg'].removeprefix('Input should be '))}"
        case _:
            return f"{detail['msg'][0].lower()}{detail['msg'][1:]}"


_WHOLE = {"extra_forbidden": "there is no such setting", "missing": "this is missing"}
_TYPES = {
    "string_type": "a text",
    "int_type": "a whole number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}
