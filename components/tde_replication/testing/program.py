"""The Pulumi program of a test cluster: `temporary` puts a `__main__.py` that runs it beside the stack file."""

import json
import sys
from pathlib import Path
from typing import Any

import pulumi

from tde_replication import EncryptedReplication, UserError
from tde_replication.testing.outputs import FILE, NAMES

TOLD = 32
"""The exit status to which Pulumi's Python host adds no error of its own: the program has told what is wrong."""


def main() -> None:
    try:
        made = EncryptedReplication(pulumi.get_stack(), pulumi.Config().require("cluster"), source="the test cluster")
    except UserError as problem:
        pulumi.log.error(str(problem))
        sys.exit(TOLD)
    pulumi.Output.all(**{name: getattr(made, name) for name in NAMES}).apply(_tell)


def _tell(values: dict[str, Any]) -> None:
    """Whoever waits for the cluster reads them there: to ask the engine takes another command of half a second."""
    file = Path(FILE)
    file.touch(mode=0o600)
    file.write_text(json.dumps(values))
