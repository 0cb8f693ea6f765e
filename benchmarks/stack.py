"""A stack in a directory of its own, by the commands that people use; with a Vault, or the floor, which needs none."""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from benchmarks.place import BenchmarkError, run
from bootstrap.plugins import own_home
from bootstrap.project import HERE
from bootstrap.vault import Vault
from tde_replication.hosts.account import service_account

INHERITED = ("PATH", "DOCKER_HOST", "PULUMI_SKIP_UPDATE_CHECK", "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION")
START_VAULT = (
    "import sys, pathlib; from bootstrap import vault; from tde_replication.hosts.account import service_account; "
    "vault.Vault(pathlib.Path(sys.argv[1]), service_account()).start()"
)


class Program:
    """A Pulumi program below `root`: engine and plugins are those that are there already; home and state are its own."""

    source = HERE.root
    """Where its files lie."""
    files: tuple[str, ...] = ("__main__.py", "Pulumi.yaml")

    def __init__(self, root: Path) -> None:
        self.root = root
        self.project = root / "project"
        (self.project / "stacks").mkdir(parents=True)
        for file in (*(self.source / name for name in self.files), HERE.venv):
            (self.project / file.name).symlink_to(file)
        self.stack = f"bench-{os.getpid()}"
        self._environ = self._environment()

    def _environment(self) -> dict[str, str]:
        if not shutil.which("pulumi"):
            raise BenchmarkError("there is no pulumi on PATH: run it as `make bench`, or source env.sh first")
        home, state = self.root / "home", self.root / "state"
        home.mkdir()
        state.mkdir()
        (home / "plugins").symlink_to(own_home(os.environ) / "plugins")
        return {name: os.environ[name] for name in INHERITED if name in os.environ} | {
            "HOME": str(self.root),
            "PULUMI_HOME": str(home),
            "PULUMI_BACKEND_URL": f"file://{state}?metadata=skip",  # as bootstrap has it
            "PULUMI_CONFIG_PASSPHRASE": "",
            "PULUMI_DEBUG_COMMANDS": "true",  # has --event-log
        }

    def init(self) -> None:
        self.pulumi("stack", "init", self.stack)

    def up(self, *options: str) -> None:
        self.pulumi("up", "--yes", "--skip-preview", "--stack", self.stack, *options)

    def preview(self) -> None:
        self.pulumi("preview", "--expect-no-changes", "--stack", self.stack)

    def drift(self) -> None:
        self.pulumi("refresh", "--preview-only", "--expect-no-changes", "--stack", self.stack)

    def destroy(self) -> None:
        self.pulumi("destroy", "--yes", "--skip-preview", "--stack", self.stack)

    def status(self, *options: str) -> None:
        self.run(str(HERE.python), "-m", "tde_replication.status", "--stack", self.stack, *options)

    def resources(self) -> int:
        state = json.loads(self.pulumi("stack", "export", "--stack", self.stack))
        return len(state["deployment"]["resources"])

    def pulumi(self, *arguments: str) -> str:
        return self.run("pulumi", *arguments)

    def run(self, *command: str, cwd: Path | None = None, **environ: str) -> str:
        return run(command, cwd=cwd or self.project, environ=self._environ | environ)


class Floor(Program):
    """What two trivial dynamic resources take, with the same engine, hosts and virtual environment."""

    source = Path(__file__).with_name("floor")
    files = (*Program.files, "trivial.py")


class Stack(Program):
    """A stack of this project, and its Vault."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._vault = Vault(root, service_account())

    def write(self, cluster: Mapping[str, Any]) -> None:
        """Declare this cluster; without encryption, whatever server the machine has: the plain side has none either."""
        file = self.project / "stacks" / f"Pulumi.{self.stack}.yaml"
        salt = yaml.safe_load(file.read_text()) if file.exists() else {}  # Pulumi keeps it there
        declared = {"tde-replication:cluster": {"encryption": "off", "disposable": True, **cluster}}
        file.write_text(yaml.safe_dump({**salt, "config": declared}))

    def vault(self) -> None:
        run([HERE.python, "-c", START_VAULT, str(self.root)], cwd=HERE.root, environ=self._environ)
        self._environ |= {
            "VAULT_ADDR": self._vault.address,
            "VAULT_CACERT": str(self._vault.ca),
            "VAULT_TOKEN": self._vault.token,
        }
