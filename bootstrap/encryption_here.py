"""What gets encryption on this machine, whose PostgreSQL has no pg_tde: found out, as commands to paste.

    python -m bootstrap.encryption_here

It changes nothing, and asks Docker and the package manager that is there.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from getpass import getuser
from pathlib import Path

import yaml

from bootstrap.project import HERE
from tde_replication.errors import UserError
from tde_replication.hosts.docker.daemon import daemon

DEADLINE = 5
"""Seconds for each question."""
MAJORS = (18, 17)
"""Of Percona Server for PostgreSQL, the newest first."""
PAGE = "https://docs.percona.com/postgresql/"


@dataclass(frozen=True)
class Way:
    """Commands that lead to an encrypted cluster; empty: none does, and `note` says why not."""

    commands: str
    note: str


def by_docker(stack_file: Path) -> Way:
    """Stack docker, whose file names the image."""
    image = next(iter(yaml.safe_load(stack_file.read_text())["config"]["tde-replication:cluster"]["servers"].values()))
    name = str(image["host"]["docker"])
    try:
        with daemon() as client:
            client.timeout = DEADLINE
            client.ping()
    except UserError:
        place = os.environ.get("DOCKER_HOST", "its default socket")
        return Way("", f"dockerd does not answer at {place}, or denies access to {getuser()}")
    try:
        with daemon() as client:
            client.timeout = DEADLINE
            if client.images(name):
                return Way("make up STACK=docker", f"its image {name} is here")
            client.inspect_distribution(name)  # type: ignore[no-untyped-call]
    except UserError as why:
        return Way("", f"image {name} is not here and cannot be pulled: {why}")
    return Way("make up STACK=docker", f"Docker pulls the image {name} first")


@dataclass(frozen=True)
class Manager:
    name: str
    packages: tuple[str, str]
    """Of the server and of pg_tde; {} stands for the major version."""
    known: Callable[[list[str]], set[str]]
    """Which of these it can install."""


def _known_to_apt(packages: list[str]) -> set[str]:
    told = re.findall(
        r"^(\S+):\n(?:  .*\n)*?  Candidate: (\S+)", _asked(["apt-cache", "policy", *packages]), re.MULTILINE
    )
    return {package for package, candidate in told if candidate != "(none)"}


def _known_to_dnf(packages: list[str]) -> set[str]:
    told = _asked(["dnf", "--quiet", "--cacheonly", "list", "--available", *packages])
    return {line.split()[0].rpartition(".")[0] for line in told.splitlines() if line.strip()}


MANAGERS = (
    Manager("apt-get", ("percona-postgresql-{}", "percona-pg-tde{}"), _known_to_apt),
    Manager("dnf", ("percona-postgresql{}-server", "percona-pg_tde{}"), _known_to_dnf),
)


def by_packages() -> Way:
    manager = next((one for one in MANAGERS if shutil.which(one.name)), None)
    if manager is None:
        return Way("", f"neither apt-get nor dnf is installed here; for other ways, see {PAGE}")
    wanted = {major: [package.format(major) for package in manager.packages] for major in MAJORS}
    known = manager.known([package for packages in wanted.values() for package in packages])
    for major, packages in wanted.items():
        if set(packages) <= known:
            install = f"{'sudo ' if os.geteuid() else ''}{manager.name} install {' '.join(packages)}"
            told = f"{manager.name} has Percona Server for PostgreSQL {major}"
            return Way(f"make destroy; {install}; make up", told)
    return Way("", f"Percona's are not available to {manager.name}; to add the repository, see {PAGE}")


def _asked(command: list[str]) -> str:
    """What it writes; nothing where it cannot be asked."""
    with suppress(OSError, subprocess.TimeoutExpired):
        environ = {**os.environ, "LC_ALL": "C"}
        done = subprocess.run(
            command,
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
        return done.stdout
    return ""


def lines(ways: dict[str, Way]) -> list[str]:
    """First what can be done, then why the rest cannot."""
    can = [f"{way.commands}   # {way.note}" for way in ways.values() if way.commands]
    told = [f"{'or:     ' if number else 'encrypt:'}  {line}" for number, line in enumerate(can)]
    return told + [
        f"{name} cannot be used for encryption: {way.note}" for name, way in ways.items() if not way.commands
    ]


if __name__ == "__main__":
    found = {"Docker": by_docker(HERE.root / "stacks" / "Pulumi.docker.yaml"), "packages": by_packages()}
    print("\n".join(lines(found)))
