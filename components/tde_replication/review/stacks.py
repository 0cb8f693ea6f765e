"""Which stacks a pull request concerns: git diff --name-only BASE... | python -m tde_replication.review.stacks [LEFT OUT…]

A stack file concerns its stack; whatever else a program is made of, also beside the stack files, concerns all. The output is a
JSON list, for a job's matrix.
"""

import json
import re
import sys
from collections.abc import Collection, Iterable
from pathlib import Path

from tde_replication.errors import UserError

_FILE = re.compile(r"stacks/Pulumi\.(.+)\.yaml")
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,100}")
_NO_PROGRAM = re.compile(r"(docs|tests|benchmarks|examples|\.github)/|.*\.md$")
"""Files of which no plan is made."""


def concerned(changed: Iterable[str], stacks: Collection[str]) -> list[str]:
    """Of `stacks`, those that a change of these files concerns. Raises `UserError` for a name that Pulumi would not take."""
    names = set()
    for path in changed:
        if file := _FILE.fullmatch(path):
            names.add(file[1])
        elif not _NO_PROGRAM.match(path):
            names.update(stacks)
    found = sorted(names & set(stacks))
    if wrong := [name for name in found if not _NAME.fullmatch(name)]:
        raise UserError(f"{wrong[0]!r} is not the name of a stack")
    return found


def main(left_out: list[str]) -> int:
    files = sorted(Path("stacks").glob("Pulumi.*.yaml"))
    names = {file.name.removeprefix("Pulumi.").removesuffix(".yaml") for file in files} - set(left_out)
    sys.stdout.write(json.dumps(concerned(sys.stdin.read().splitlines(), names)) + "\n")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except UserError as error:
        sys.exit(f"error: {error}")
