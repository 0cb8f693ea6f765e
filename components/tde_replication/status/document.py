"""The JSON document of `--json`: a stable shape, described in docs/status.md."""

import json
import re
from typing import Any

from tde_replication.status.due import due
from tde_replication.status.encryption_checks import is_encrypted, not_encrypted
from tde_replication.status.figures import faults_of
from tde_replication.status.finding import Verdict
from tde_replication.status.model import Server, Snapshot
from tde_replication.status.topology import links

FORMAT = 1
"""Goes up when a key changes its meaning or goes; a new key does not count."""
CI_COMMAND = re.compile(r"##|::")


def document(snapshot: Snapshot, verdict: Verdict) -> str:
    whole = {
        "format": FORMAT,
        "status": verdict.level.word.lower(),
        "code": verdict.level.value,
        "encrypted": is_encrypted(snapshot),
        "notEncrypted": not_encrypted(snapshot),
        "findings": [
            {"level": one.level.word.lower(), "check": one.check, "server": one.server or None, "text": one.whole}
            for one in verdict.findings
        ],
        **snapshot.model_dump(mode="json", by_alias=True),
    }
    whole["due"] = [{"when": one.when and one.when.isoformat(), "what": one.what} for one in due(snapshot)]
    known = links(snapshot)
    for server, found in zip(snapshot.servers, whole["servers"], strict=True):
        link = known.get(server.name)
        found |= {"role": _role(server), "upstream": link.upstream.name if link else None, "faults": faults_of(server)}
    return _shown(json.dumps(whole, indent=2)) + "\n"


def _role(server: Server) -> str | None:
    return server.instance.role if server.instance else None


def _shown(document: str) -> str:
    """A CI system obeys "##[…]" and "::…::" in what it shows. JSON has both in texts alone, where an escape means
    the same."""
    return CI_COMMAND.sub(lambda found: "".join(f"\\u{ord(char):04x}" for char in found[0]), document)


def problem(stack: str, text: str) -> str:
    """For a cluster that could not be looked at: the same keys, as far as there is something to say."""
    whole: dict[str, Any] = {"format": FORMAT, "status": "cannot tell", "code": 3, "stack": stack, "problem": text}
    return _shown(json.dumps(whole, indent=2)) + "\n"
