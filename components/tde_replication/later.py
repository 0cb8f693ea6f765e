"""Settings that are outputs of other resources, as the address of a machine that the same program makes.

In a preview such an output may be unknown. A placeholder stands for it then, in the settings and in all that is made of them, and
what holds one is registered as unknown (`tde_replication.unknown`). An `up` knows all of them before it begins.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, TypeGuard, TypeVar

from pydantic import BaseModel, WrapValidator

from tde_replication.placeholders import placeholder

T = TypeVar("T")
Path = tuple[str | int, ...]
"""Of a value in a document: keys, and numbers in lists."""
Value = Sequence[Any]
"""Of an output: the value, or that it is unknown, and whether it is a secret."""
WHICH = "only host.ssh, host.jump, host.hostKeys, listen and address may be outputs"


def is_output(value: object) -> "TypeGuard[Output[Any]]":
    """Pulumi is not imported for this: where it is not loaded, nothing can be an output."""
    pulumi = sys.modules.get("pulumi")
    return pulumi is not None and isinstance(value, pulumi.Output)


def is_unknown(value: object) -> bool:
    """Of the value of an output."""
    pulumi = sys.modules.get("pulumi")
    return pulumi is not None and isinstance(value, pulumi.output.Unknown)


if TYPE_CHECKING:
    from pulumi import Output

    Later: TypeAlias = T | Output[T]
    """A setting that may be an output; it is taken as it is."""
else:
    Later = Annotated[T, WrapValidator(lambda value, validate: value if is_output(value) else validate(value))]


def known(value: "str | Output[str]") -> str:
    """A setting of which `filled` has made a text."""
    assert isinstance(value, str), WHICH  # noqa: S101 - else a bug of ours
    return value


def outputs(document: Any, path: Path = ()) -> "Iterator[tuple[Path, Output[Any]]]":
    """All in a document, with their places."""
    if is_output(document):
        yield path, document
    elif isinstance(document, Mapping):
        for key, value in document.items():
            yield from outputs(value, (*path, key))
    elif isinstance(document, list | tuple):
        for number, value in enumerate(document):
            yield from outputs(value, (*path, number))


def paths(document: Any) -> list[Path]:
    return [path for path, _ in outputs(document)]


def document(model: BaseModel) -> dict[str, Any]:
    """A model as the mapping that it can be made of again."""
    return model.model_dump(by_alias=True, exclude_unset=True, warnings=False)


def outputs_of(model: BaseModel) -> "list[Output[Any]]":
    return [output for _, output in outputs(document(model))]


def placeholders(document: Mapping[str, Any]) -> dict[Path, str]:
    """A text for each output of a valid document. One output has one: two servers with it are on one machine."""
    names: dict[int, str] = {}
    found: dict[Path, str] = {}
    for path, output in outputs(document):
        _, server, *_ = path  # below `servers`
        key = next(part for part in reversed(path) if isinstance(part, str))
        of = str(server) if key == "ssh" else f"{key.lower()}.{server}"
        found[path] = names.setdefault(id(output), placeholder(of))
    return found


def filled(document: Any, values: Mapping[Path, Any], path: Path = ()) -> Any:
    """The same document with `values` in the places of its outputs."""
    if path in values:
        return values[path]
    if isinstance(document, Mapping):
        return {key: filled(value, values, (*path, key)) for key, value in document.items()}
    if isinstance(document, list | tuple):
        return [filled(value, values, (*path, number)) for number, value in enumerate(document)]
    return document
