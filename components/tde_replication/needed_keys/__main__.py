"""python -m tde_replication.needed_keys: which principal keys open which data, and whether Vault still has them.

It looks at every server's data directory and at the ones that were set aside beside it, as pg_tde's own files have it, so that
no server has to run; and at the directories and archives of base backups that are named. It changes nothing.
Exit status: 0, Vault has every key; 1, it lacks one; 3, it cannot tell of all.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from tde_replication.errors import UserError, escaped
from tde_replication.hosts import facts
from tde_replication.needed_keys.in_vault import Names, StackVault, names
from tde_replication.needed_keys.model import UNKNOWN, Needed, NeededKey
from tde_replication.needed_keys.reading import of_backup, of_server
from tde_replication.parallel import parallel_map
from tde_replication.status.declared import Declared, declared


def needed(found: Declared, given: Sequence[Path]) -> Needed:
    """All of the stack's servers, and the `given` directories and archives on this machine."""
    with facts.shared():
        read = [one for server in parallel_map(of_server, found.servers) for one in server] + [
            of_backup(path) for path in given
        ]
        told = (names(server, found.cluster.database) for server in found.servers)
        vault = StackVault(found, next(filter(None, told), Names()))
    data = [one.model_copy(update={"keys": tuple(vault.completed(key) for key in one.keys)}) for one in read]
    used = {key.name for one in data for key in one.keys}
    return Needed(
        stack=found.stack, mount=vault.mount, data=tuple(data), others=tuple(sorted(vault.of_this_cluster() - used))
    )


def text(found: Needed) -> str:
    """For a person: each data directory, and below it the keys that open it."""
    lines = [f"{found.stack}: the keys that open its data, as pg_tde's files have it; Vault's mount {found.mount}"]
    for one in found.data:
        lines.append("   ".join(part for part in (one.server, one.path, one.use if one.server else "") if part))
        lines += [f"   {_row(key)}" for key in one.keys]
        lines += [f"   CANNOT BE READ: {one.problem}"] if one.problem else []
        lines += [] if one.keys or one.problem else ["   no key: nothing in it is encrypted"]
    if found.others:
        lines.append(f"in Vault, and not needed for these: {', '.join(found.others)}. Other backups may need them")
    return escaped("\n".join(lines)) + "\n"


def _row(key: NeededKey) -> str:
    of = key.database or f"with oid {key.database_oid}"
    scope = f"database {of}" if key.scope == "database" else f"{key.scope} key"
    words = {"held": "in Vault", "not looked up": "not looked up", "unknown": "NOT KNOWN"}
    state = words.get(key.vault, f"{key.vault.upper()}, so that this data cannot be opened")
    told = f"{scope}: {key.name} of {key.provider} since {key.since:%Y-%m-%d}: {state}"
    return f"{told}: {key.problem}" if key.problem else told


def options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tde_replication.needed_keys", description="Which keys open which data?"
    )
    parser.add_argument("--stack", default=os.environ.get("STACK") or "local", help="default: STACK, else local")
    parser.add_argument("--json", action="store_true", help="one JSON document, see docs/encryption.md")
    parser.add_argument(
        "backups", nargs="*", type=Path, help="data directories and base.tar files on this machine, to look at too"
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    given = options(arguments)
    try:
        found = needed(declared(given.stack, Path.cwd()), given.backups)
    except UserError as problem:
        sys.stderr.write(f"error: {problem}\n")
        return UNKNOWN
    sys.stdout.write(found.model_dump_json(by_alias=True, indent=2) + "\n" if given.json else text(found))
    return found.code


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
