"""The component for programs in other languages: in a plugin, which Pulumi's engine calls."""

from typing import Any, TypedDict

import pulumi
from pulumi.provider.experimental import component_provider_host

from tde_replication import replication
from tde_replication.errors import UserError


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
    component_provider_host([EncryptedReplication], replication.TYPE.partition(":")[0])
