"""The component for programs in other languages: in a plugin, which Pulumi's engine calls."""

import json
import sys
from typing import Any, TypedDict

import pulumi
from pulumi.provider import main
from pulumi.provider.experimental.component import ComponentProvider

from tde_replication import replication
from tde_replication.errors import UserError
from tde_replication.schema import with_types

VERSION = "0.1.0"
"""Of the package, as pyproject.toml says it."""


class Args(TypedDict):
    cluster: dict[str, Any]
    """The settings, with the keys of a stack file. Plain values: no outputs of other resources."""


class EncryptedReplication(replication.EncryptedReplication):
    """A PostgreSQL primary and its streaming standbys, encrypted by pg_tde with keys from Vault."""

    def __init__(self, name: str, args: Args, opts: pulumi.ResourceOptions | None = None) -> None:
        try:
            super().__init__(name, _whole(args["cluster"]), opts)
        except UserError as problem:
            raise problem.with_traceback(None) from None


def _whole(value: Any) -> Any:
    """Whole numbers as such: all numbers of a program arrive as floats."""
    match value:
        case dict():
            return {key: _whole(one) for key, one in value.items()}
        case list():
            return [_whole(one) for one in value]
        case float() if value.is_integer():
            return int(value)
    return value


def serve() -> None:
    """Be the plugin, for as long as the engine wants one."""
    provider = ComponentProvider([EncryptedReplication], replication.TYPE.partition(":")[0], None, VERSION)
    provider.schema = json.dumps(with_types(json.loads(provider.schema or "{}"), replication.TYPE))
    main(provider, sys.argv[1:])
