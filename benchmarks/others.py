"""What people use besides a script: Ansible, with the same steps as a playbook, and pglift, for the part that it has."""

import json
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import yaml

from benchmarks.by_hand import SCRIPT, ByHand
from benchmarks.place import run
from bootstrap.project import HERE
from tde_replication.hosts.account import service_account
from tde_replication.hosts.installation import Installation

PLAYBOOK, REQUIREMENTS = (Path(__file__).with_name(name) for name in ("playbook.yml", "requirements.txt"))


@dataclass(frozen=True)
class Tools:
    """A virtual environment with both, of locked versions."""

    bin: Path

    @property
    def account_can_run(self) -> bool:
        return all(service_account().can_reach(path.resolve()) for path in (self.bin / "pglift", self.bin / "python"))


def install(root: Path) -> Tools:
    """Raises `BenchmarkError` where the packages cannot be had."""
    venv = root / "others"
    run([_python(), "-m", "venv", "--without-pip", str(venv)], cwd=root, environ={})
    options = ("--quiet", "--disable-pip-version-check", "--require-hashes", "--requirement", str(REQUIREMENTS))
    run(
        [HERE.python, "-m", "pip", "--python", venv / "bin" / "python", "install", *options],
        cwd=root,
        environ=dict(os.environ),
    )
    return Tools(venv / "bin")


def _python() -> str:
    """One that the servers' account can run too, where there is one: that of root often lies in root's home."""
    system = shutil.which("python3", path="/usr/local/bin:/usr/bin")
    ours = str(Path(sys.executable).resolve())
    return next((path for path in (ours, system) if path and service_account().can_reach(Path(path).resolve())), ours)


class Ansible(ByHand):
    """The playbook on this machine, with the settings that make it fastest."""

    def __init__(self, root: Path, installation: Installation, tools: Tools) -> None:
        super().__init__(root, installation)
        self._tools = tools
        own = {name.lower(): value for name, value in self.environ.items()}
        self._variables = root / "variables.json"
        self._variables.write_text(
            json.dumps(
                {
                    **own,
                    "as_account": service_account().command([]),
                    "script": str(SCRIPT),
                    "script_environment": self.environ,
                    "ansible_python_interpreter": str(tools.bin / "python"),
                }
            )
        )

    def up(self) -> None:
        settings = {
            "HOME": str(self.root),
            "ANSIBLE_HOME": str(self.root / "ansible"),
            "ANSIBLE_PIPELINING": "1",
            "ANSIBLE_LOCALHOST_WARNING": "0",
        }
        run(
            [self._tools.bin / "ansible-playbook", "-i", "localhost,", "-e", f"@{self._variables}", PLAYBOOK],
            cwd=self.root,
            environ={**self.environ, **settings},
        )


class Pglift(ByHand):
    """The two servers by pglift. It knows nothing of a Vault, and waits for no replay: there the script does it."""

    def __init__(self, root: Path, installation: Installation, tools: Tools) -> None:
        super().__init__(root, installation)
        self._tools = tools
        account = service_account()
        shutil.chown(root, account.uid, account.gid)
        settings = {
            "prefix": str(root),
            "run_prefix": str(root),
            "postgresql": {
                "versions": [{"version": str(installation.major), "bindir": str(installation.binaries)}],
                "auth": {"local": "trust", "host": "scram-sha-256", "passfile": str(root / "passfile")},
                "initdb": {"locale": "C.UTF-8", "data_checksums": True},
                "replrole": "replicator",
                "socket_directory": "run",
            },
        }
        directory = root / "config" / "pglift"
        directory.mkdir(parents=True)
        (directory / "settings.yaml").write_text(yaml.safe_dump(settings))

    def up(self) -> None:
        self.script("vault")
        primary, standby = self.environ["PRIMARY_PORT"], self.environ["STANDBY_PORT"]
        password = (self.root / "password").read_text().strip()
        self._pglift("site-configure", "install")
        create = ("instance", "create", "--port")
        self._pglift(*create, primary, "--slot", "tde_standby1", "--replrole-password", password, "primary")
        self._pglift(
            *("pghba", "-i", "primary", "add", "--connection-type", "host", "--connection-address", "127.0.0.1/32"),
            *("--user", "replicator", "--database", "replication", "--method", "scram-sha-256"),
        )
        self._pglift("instance", "reload", "primary")
        upstream = f"host=127.0.0.1 port={primary} user=replicator"
        follow = ("--standby-for", upstream, "--standby-slot", "tde_standby1", "--standby-password", password)
        self._pglift(*create, standby, *follow, "standby")
        self.script("streaming")

    def _pglift(self, *words: str) -> None:
        command = [str(self._tools.bin / "pglift"), "--non-interactive", *words]
        environ = {"HOME": str(self.root), "XDG_CONFIG_HOME": str(self.root / "config"), **self.environ}
        run(service_account().command(command), cwd=self.root, environ=environ)
