"""Pulumi's gRPC classes and its encoding of property values.

A plugin is started for every command, so it takes the generated classes of the SDK without the SDK (`offline.sdk`).
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from google.protobuf.struct_pb2 import Struct, Value  # type: ignore[import-untyped]

from offline import sdk

if Path(sys.argv[0]).resolve().parent == Path(__file__).resolve().parent:  # only in a plugin's own process
    sdk.skip()

from pulumi.runtime.proto import (
    engine_pb2,
    engine_pb2_grpc,
    plugin_pb2,
    provider_pb2,
    provider_pb2_grpc,
    status_pb2,
)

__all__ = [
    "UNKNOWN",
    "Asset",
    "Properties",
    "Secret",
    "decode",
    "encode",
    "engine_pb2",
    "engine_pb2_grpc",
    "has_unknown",
    "plugin_pb2",
    "provider_pb2",
    "provider_pb2_grpc",
    "status_pb2",
]

SIGNATURE = "4dabf18193072939515e22adb298388d"
SECRET = "1b47061264138c4ac30d75fd1eb44270"  # noqa: S105
ASSET = "c44067f5952c0a294b673a41bacd8c17"
ARCHIVE = "0def7320c3a5731c473e5ecbe6d01bc7"
UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"  # a value that is known only after the update

Properties = dict[str, Any]


@dataclass(frozen=True)
class Secret:
    """An output for the engine to encrypt in its state and to hide."""

    value: Any


@dataclass(frozen=True)
class Asset:
    """A file, or an archive or directory, of the program's; two with the same content are equal."""

    signature: str
    hash: str | None = None
    path: str | None = field(default=None, compare=False)
    text: str | None = field(default=None, compare=False)
    uri: str | None = field(default=None, compare=False)
    assets: Any = field(default=None, compare=False)

    @property
    def archive(self) -> bool:
        return self.signature == ARCHIVE


def decode(properties: Struct) -> Properties:
    return {key: _decode(value) for key, value in properties.fields.items()}


def _decode(value: Value) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        inner = decode(value.struct_value)
        match inner.pop(SIGNATURE, None):
            case str(signature) if signature in (ASSET, ARCHIVE):
                return Asset(signature, **inner)
            case str(signature) if signature == SECRET:
                return inner["value"]
        return inner
    if kind == "list_value":
        return [_decode(item) for item in value.list_value.values]
    if kind == "number_value":
        number = value.number_value
        return int(number) if number.is_integer() else number
    return None if kind in (None, "null_value") else getattr(value, kind)


def encode(properties: Properties) -> Struct:
    struct = Struct()
    struct.update({key: _encode(value) for key, value in properties.items()})
    return struct


def _encode(value: Any) -> Any:
    match value:
        case Secret():
            return {SIGNATURE: SECRET, "value": _encode(value.value)}
        case Asset():
            parts = {part.name: _encode(getattr(value, part.name)) for part in fields(value)[1:]}
            return {SIGNATURE: value.signature} | {name: part for name, part in parts.items() if part is not None}
        case Mapping():
            return {key: _encode(item) for key, item in value.items()}
        case list() | tuple():
            return [_encode(item) for item in value]
    return value


def has_unknown(value: Any) -> bool:
    match value:
        case Mapping():
            return any(map(has_unknown, value.values()))
        case list():
            return any(map(has_unknown, value))
    return bool(value == UNKNOWN)
