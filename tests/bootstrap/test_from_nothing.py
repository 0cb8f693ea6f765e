"""What a newcomer types, in a clone of their own: `make up`, `make drift`, `make destroy`, with the stack file as it comes."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from bootstrap import venv
from bootstrap.ports import free_ports
from bootstrap.project import HERE, Project, fingerprint
from components.hosts.account import Account, local_root, service_account
from components.hosts.installation import find_installation
from components.settings import SUPPORTED
from tests.engine.cluster import base_directory

OURS = ("PULUMI", "VAULT", "TDE_", "PG", "MAKE", "MFLAGS", "STACK", "PYTEST")
"""Beginnings of variables that somebody new has not set."""


class Clone:
    """The tracked files, below a path with a space; what takes minutes to make is there already.

    With an `owner`, all is theirs and run by them, with a virtual environment that they make: ours may lie where they cannot go.
    """

    def __init__(self, root: Path, home: Path, owner: Account | None = None) -> None:
        self.project, self._owner = Project(root), owner
        tracked = subprocess.run(["git", "ls-files", "-z"], cwd=HERE.root, capture_output=True, text=True, check=True)
        for name in filter(None, tracked.stdout.split("\0")):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(HERE.root / name, root / name)
        if not owner:
            self._environment()
        if HERE.engine.exists():
            shutil.copytree(HERE.engine, self.project.engine)
        places = (Path(place) for place in os.environ["PATH"].split(os.pathsep))
        path = [
            str(place)
            for place in places
            if not place.is_relative_to(HERE.root) and (not owner or (place.is_dir() and owner.can_reach(place)))
        ]
        self.environ = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
        self.environ |= {"HOME": str(home), "PATH": os.pathsep.join(path)}
        self.ports = free_ports(2)
        self._declare_ports()
        if owner:
            for file in (root, *root.rglob("*")):
                os.lchown(file, owner.uid, owner.gid)

    def _environment(self) -> None:
        """A virtual environment of its own, with the packages of ours."""
        self.project.venv.mkdir()
        for name in ("bin", "lib", "pyvenv.cfg"):
            (self.project.venv / name).symlink_to(HERE.venv / name)
        files = [self.project.root / name for name in (venv.REQUIREMENTS, venv.DEVELOPMENT)]
        stamp = fingerprint(str(self.project.root), files=files)
        (self.project.venv / "requirements.stamp").write_text(stamp)

    def _declare_ports(self) -> None:
        """The stack file as it comes, but for its ports: those may be in use here."""
        text, shipped = self.stack_file.read_text(), "standbys: [{name: standby1}]"
        assert shipped in text
        one, other = self.ports
        ports = f"primary: {{name: primary, port: {one}}}\n    standbys: [{{name: standby1, port: {other}}}]"
        self.stack_file.write_text(text.replace(shipped, ports))

    @property
    def stack_file(self) -> Path:
        return self.project.root / "stacks" / "Pulumi.local.yaml"

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Its output and errors in one, as on a terminal."""
        owner = self._owner
        return subprocess.run(
            command,
            user=owner.uid if owner else None,
            group=owner.gid if owner else None,
            extra_groups=() if owner else None,
            cwd=self.project.root,
            env=self.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=300,
        )

    def make(self, *arguments: str) -> str:
        done = self.run("make", *arguments)
        assert done.returncode == 0, done.stdout
        return done.stdout

    def files(self) -> dict[str, bytes]:
        """What is tracked."""
        return {
            str(path): path.read_bytes()
            for path in self.project.root.rglob("*")
            if path.is_file() and not {".venv", ".local", "__pycache__"} & set(path.parts)
        }

    def gone(self) -> None:
        """Nothing of the stack is left: no process, socket, data, state or Vault."""
        assert self.processes() == []
        assert not [path for port in self.ports for path in Path("/tmp").glob(f".s.PGSQL.{port}*")]
        root = local_root(self.project.root)
        assert not {"vault", "local", "postgresql"} & {path.name for path in root.glob("*")}
        assert not self.project.state.exists()

    def processes(self) -> list[str]:
        """Whatever works in it, or for it."""
        places = [str(self.project.root), str(local_root(self.project.root))]
        return [
            " ".join(process.info["cmdline"])
            for process in psutil.process_iter(["cwd", "cmdline"])
            if any(place in " ".join([process.info["cwd"] or "", *(process.info["cmdline"] or [])]) for place in places)
        ]


@contextmanager
def a_clone(owner: Account | None = None) -> Iterator[Clone]:
    base = base_directory()
    made = Clone(base / "a clone", base, owner)
    yield made
    made.run("make", "destroy")
    shutil.rmtree(base)


@pytest.fixture
def clone() -> Iterator[Clone]:
    with a_clone() as made:
        yield made


def test_up_again_drift_and_destroy(clone: Clone) -> None:
    up_again_drift_and_destroy(clone)


@pytest.mark.soak
def test_the_same_by_an_ordinary_user() -> None:
    account = service_account()
    if not account.switches:
        pytest.skip("this is one already")
    with a_clone(account) as clone:
        if clone.run("python3", "-c", "import sys; sys.exit(sys.version_info < (3, 11))").returncode:
            pytest.skip("there is no Python 3.11 for others than root")
        assert "PostgreSQL does not run as root" not in up_again_drift_and_destroy(clone)


def up_again_drift_and_destroy(clone: Clone) -> str:
    """What the first `up` said."""
    before = clone.files()
    encrypted = find_installation(HERE.root, None, SUPPORTED).has_pg_tde
    state = "encrypted by pg_tde" if encrypted else "NOT ENCRYPTED: this PostgreSQL"

    first = clone.make("up")
    summary = first[first.index("local: 1 primary, 1 standby, streaming") :]
    assert state in summary.splitlines()[0]
    assert [int(port) for port in re.findall(r"127\.0\.0\.1:(\d+)", summary)] == clone.ports
    assert "psql" in summary
    assert "make destroy" in summary

    assert state in clone.make("preview") or encrypted
    again = clone.make("up")
    assert re.search(r"Resources:\n\s+\d+ unchanged\n", again), again
    assert state in again
    assert "no drift: " in clone.make("drift")

    clone.make("destroy")
    clone.gone()
    assert clone.files() == before
    return first


def test_a_stack_of_ones_own_by_hand(clone: Clone) -> None:
    (clone.project.root / "stacks" / "Pulumi.orders.yaml").write_text("config: {}\n")
    clone.environ["STACK"] = "orders"
    done = clone.run("bash", "-c", ". ./env.sh && pulumi stack init orders && pulumi stack rm --yes --preserve-config")
    assert done.returncode == 0, done.stdout


def test_root_is_told_whose_the_servers_are_with_a_vault_of_its_own_too(clone: Clone) -> None:
    clone.environ |= {"VAULT_ADDR": "http://127.0.0.1:1", "VAULT_TOKEN": "a token"}
    done = clone.run("make", "up")
    assert done.returncode
    assert "nothing listens at http://127.0.0.1:1" in done.stdout
    account = service_account()
    told = f"servers: on this machine as {account.name}, for PostgreSQL does not run as root"
    assert (told in done.stdout) == account.switches
