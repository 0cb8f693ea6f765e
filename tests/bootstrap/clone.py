"""A clone of the project as a newcomer has it, and `make` in it."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from bootstrap import venv
from bootstrap.project import HERE, Project, fingerprint
from tde_replication.hosts.account import Account, local_root
from tde_replication.waiting import until
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
        for file in (root / "stacks").glob("*.yaml"):  # a stack of this checkout has left its salt there
            file.write_text(re.sub(r"^encryptionsalt:.*\n", "", file.read_text(), flags=re.MULTILINE))
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
        """Nothing of a stack is left: no process, data, state or Vault."""
        assert until(lambda: self.processes() == [], seconds=30), self.processes()
        root = local_root(self.project.root)
        assert not {"vault", "local", "docker", "postgresql"} & {path.name for path in root.glob("*")}
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
def clone(*destroy: str, owner: Account | None = None) -> Iterator[Clone]:
    """One that is gone afterwards; `destroy` are the arguments of the `make` that takes its stack away."""
    base = base_directory()
    made = Clone(base / "a clone", base, owner)
    try:
        yield made
    finally:
        made.run("make", "destroy", *destroy)
        shutil.rmtree(base)
