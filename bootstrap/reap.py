"""`make reap`: `tde_replication.reap` for the stacks of this checkout, each destroyed as `make destroy` does, without a question.

It runs in the virtual environment. A stack whose Vault is this project's own has it started for that, and removed.
"""

import os
import subprocess
import sys

from bootstrap.project import HERE
from bootstrap.stack import VAULTS
from tde_replication import reap
from tde_replication.errors import UserError


def destroy(stack: str) -> "subprocess.CompletedProcess[str]":
    """As `make destroy STACK=…`; and forget the stack, which that does for this project's own alone."""
    name = stack.rpartition("/")[2]
    done = subprocess.run(
        [sys.executable, "-m", "bootstrap", "--stack", name, "destroy"],
        cwd=HERE.root,
        env={**os.environ, "PULUMI_SKIP_CONFIRMATIONS": "true"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode or name in VAULTS:
        return done
    return reap.forget(HERE.root, stack, done)


if __name__ == "__main__":
    try:
        sys.exit(reap.reap(HERE.root, destroy))
    except UserError as error:
        sys.exit(f"error: {error}")
