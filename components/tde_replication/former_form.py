"""The former form of a stack file, which named the primary apart from a list of standbys: told with its content in today's."""

from collections.abc import Mapping
from typing import Any

import yaml

TODAY = "the servers are one mapping now, and primary names one of them"
UNSHOWN = (
    "write each server's settings below its name in servers, and the name of one in primary (see docs/settings.md)"
)
PRIMARY, STANDBY = "primary", "standby1"
"""What servers that a file left out were called."""


def sentence(document: Any) -> str | None:
    """What to write instead of a document in the former form; None for any other."""
    if not isinstance(document, Mapping):
        return None
    if "standbys" not in document and not isinstance(document.get("primary"), Mapping):
        return None
    return f"{TODAY}; {shown}" if (shown := _shown(document)) else f"{TODAY}; {UNSHOWN}"


def _shown(document: Mapping[str, Any]) -> str | None:
    """None where it has a shape that no former file had, or what no file can hold, as the output of another resource."""
    standbys = document.get("standbys", [{"name": STANDBY}])
    if "servers" in document or not isinstance(standbys, list):
        return None
    servers = [document.get("primary", {"name": PRIMARY}), *standbys]
    if not all(isinstance(server, Mapping) and isinstance(server.get("name"), str) for server in servers):
        return None
    by_name = {server["name"]: {key: server[key] for key in server if key != "name"} for server in servers}
    if len(by_name) < len(servers):
        return None
    today = {"primary": servers[0]["name"], "servers": by_name}
    try:
        text = yaml.dump(today, Dumper=_OnOneLine, default_flow_style=True, sort_keys=False, width=float("inf"))
    except (yaml.YAMLError, RecursionError):
        return None
    return f"write: {text.strip()[1:-1]}"


class _OnOneLine(yaml.SafeDumper):
    """In quotes is what another reader of YAML could take for a number, or what would break the line."""

    def ignore_aliases(self, _data: Any) -> bool:
        return True

    def text(self, value: str) -> yaml.ScalarNode:
        plain = value.isprintable() and (value[:1].isalpha() or value.startswith("/"))
        return self.represent_scalar("tag:yaml.org,2002:str", value, None if plain else '"')


_OnOneLine.add_representer(str, _OnOneLine.text)
