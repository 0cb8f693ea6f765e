"""What Pulumi does not know yet: as the value of an output, and as the input of a resource."""

from collections.abc import Sequence
from typing import Any

import pulumi
from pulumi.output import UNKNOWN

from tde_replication.later import Value
from tde_replication.placeholders import is_placeholder


def gathered(found: Sequence[pulumi.Output[Any]]) -> pulumi.Output[list[Value]]:
    return pulumi.Output.all(*(pulumi.Output.all(one, one.is_secret()) for one in found))


def as_input(value: Any) -> Any:
    """The same value as an input of a resource: each text in it that was made of a placeholder is unknown."""
    match value:
        case str() if is_placeholder(value):
            return pulumi.Output.from_input(UNKNOWN)
        case dict():
            return {key: as_input(one) for key, one in value.items()}
        case list() | tuple():
            return [as_input(one) for one in value]
    return value
