"""Whose a data directory is: the marker that a stack writes into it."""

import json
import re
from collections.abc import Mapping
from pathlib import PurePosixPath

from tde_replication.hosts.base import Host

MARKER = "tde-replication.json"


def marker(host: Host, path: PurePosixPath) -> dict[str, str]:
    """What says whose a data directory is: `stack`, `name`, `madeAt`, `kind`; empty for one that no stack made."""
    try:
        found = json.loads(host.read(path / MARKER) or b"{}")
    except (ValueError, RecursionError):
        return {}
    if not (isinstance(found, dict) and "stack" in found and all(isinstance(value, str) for value in found.values())):
        return {}
    return {**found, "madeAt": found.get("madeAt") or "unknown"}


def of_another_stack(maker: str, stack: str) -> str | None:
    """What is said of something that stack `maker` has made, as project/stack/component; None where it is no such name.

    A stack cannot be renamed: its default directories and ports, containers, units and what it has in Vault are named after it.
    """
    found = re.fullmatch(r"([\w.-]+)/([\w.-]+)/([\w.-]+)", maker)
    if not found:
        return None
    return (
        f'is of stack "{found[2]}" ({maker}), and this one is {stack}: nothing is changed. Where the stack was renamed, give it '
        f"its name back: `pulumi stack rename {found[2]}`"
    )


def why_not_ours(made: Mapping[str, str], stack: str) -> str:
    """What is said of a directory that another stack has made, or nobody's."""
    if former := of_another_stack(str(made.get("stack", "")), stack):
        return f"{former}. Else name another dataDirectory"
    return "is not empty and was not made by this stack: it is never written to. Move it away, or name another dataDirectory"
