"""The global key providers as a data directory has them, whether its server runs or not.

pg_tde keeps them in a file of its own, with their options as plain text. While the server runs, a standby's tells what it has
replayed; SQL would fail there where the token file of any provider is missing.
"""

import json
import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from tde_replication.errors import AccessDenied
from tde_replication.hosts.base import Host

FILE = "pg_tde/1664_providers"
RECORD = re.compile(rb"([\x21-\x7e]{1,127})\0+(\{[^\0]*\})\0")
"""A name, and its options as JSON: both are filled up with zeros. One that was deleted is all zeros."""


@dataclass(frozen=True)
class ProviderOnDisk:
    name: str
    options: dict[str, Any]

    def option(self, name: str) -> str:
        """Empty where it is not set, however that was written."""
        return str(self.options.get(name) or "")

    @property
    def files(self) -> set[str]:
        """The names of those that it opens beside the data directory."""
        paths = (PurePosixPath(self.option(name)) for name in ("tokenPath", "caPath"))
        return {path.name for path in paths if path.name}


def providers(host: Host, data: PurePosixPath) -> list[ProviderOnDisk]:
    """None where there is no data directory, no pg_tde in it, or it is another account's."""
    try:
        content = host.read(data / FILE) or b""
    except AccessDenied:
        return []
    found = []
    for name, options in RECORD.findall(content):
        try:
            parsed = json.loads(options)
        except ValueError:
            continue
        if isinstance(parsed, dict):
            found.append(ProviderOnDisk(name.decode(), parsed))
    return found
