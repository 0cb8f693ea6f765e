"""Patroni with two servers on this machine: the parameters of the script's servers, all else as Patroni has it by default."""

import json
import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psycopg
import yaml

from benchmarks.others import Tools
from benchmarks.place import BenchmarkError, run
from bootstrap.ports import free_ports
from bootstrap.project import HERE
from tde_replication.hosts.account import service_account
from tde_replication.hosts.installation import Installation
from tde_replication.waiting import until

SCOPE = "bench"
SERVERS = ("primary", "standby")
PATIENCE = 120.0
"""Seconds: a round of Patroni takes ten, and its first standby waits for several."""
RULES = (
    "local all all trust",
    "host replication replicator 127.0.0.1/32 scram-sha-256",
    "host all all 127.0.0.1/32 scram-sha-256",
)


class Patroni:
    """Agents of both servers, and a third member that only votes. They agree by Patroni's own Raft, which pip alone installs."""

    def __init__(self, root: Path, installation: Installation, tools: Tools) -> None:
        self.root = root
        self._tools = tools
        self._account = service_account()
        os.chown(root, self._account.uid, self._account.gid)
        socket = root / "run"
        socket.mkdir()
        os.chown(socket, self._account.uid, self._account.gid)
        ports = iter(free_ports(3 * len(SERVERS) + 1))
        self._ports = {name: next(ports) for name in SERVERS}
        voters = {name: f"127.0.0.1:{next(ports)}" for name in (*SERVERS, "witness")}
        self._environ = {"PATH": os.environ["PATH"], "HOME": str(root), "LC_ALL": "C.UTF-8"}
        for name, address in voters.items():
            others = [one for one in voters.values() if one != address]
            raft = {"data_dir": str(root / f"raft-{name}"), "self_addr": address, "partner_addrs": others}
            agent = self._agent(name, next(ports), installation.binaries) if name in SERVERS else {}
            self._file(name).write_text(yaml.safe_dump({"scope": SCOPE, "name": name, "raft": raft, **agent}))

    def _file(self, name: str) -> Path:
        return self.root / f"{name}.yaml"

    def _agent(self, name: str, rest: int, binaries: Any) -> Mapping[str, Any]:
        api, here = f"127.0.0.1:{rest}", f"127.0.0.1:{self._ports[name]}"
        initdb = [{"encoding": "UTF8"}, {"locale-provider": "builtin"}, {"locale": "C.UTF-8"}, "data-checksums"]
        parameters = {"unix_socket_directories": str(self.root / "run"), "max_slot_wal_keep_size": "4GB"}
        users = {"replication": "replicator", "superuser": "postgres", "rewind": "rewinder"}
        return {
            "restapi": {"listen": api, "connect_address": api},
            "bootstrap": {
                "dcs": {"postgresql": {"use_pg_rewind": True, "use_slots": True}},
                "initdb": initdb,
            },
            "postgresql": {
                "listen": here,
                "connect_address": here,
                "use_unix_socket": True,
                "data_dir": str(self.root / name),
                "bin_dir": str(binaries),
                "pgpass": str(self.root / f"{name}.pgpass"),
                "authentication": {role: {"username": user, "password": "bench"} for role, user in users.items()},
                "parameters": parameters,
                "pg_hba": list(RULES),
            },
        }

    def up(self) -> None:
        self._start("patroni_raft_controller", "witness")
        for number, name in enumerate(SERVERS, start=1):
            self._start("patroni", name)
            self._until_settled(number)

    def _start(self, program: str, name: str) -> None:
        command = self._account.command([str(self._tools.bin / program), str(self._file(name))])
        with (self.root / f"{name}.log").open("wb") as log:
            subprocess.Popen(
                [HERE.python, "-m", "benchmarks.init", *command],
                cwd=HERE.root,
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def where(self, server: str) -> tuple[str, int]:
        """The directory of its socket, and its port."""
        return str(self.root / "run"), self._ports[server]

    def switch(self, former: str, name: str) -> None:
        self._ctl("switchover", SCOPE, "--leader", former, "--candidate", name, "--force")

    def list(self) -> list[dict[str, Any]]:
        members: list[dict[str, Any]] = json.loads(self._ctl("list", SCOPE, "--format", "json"))
        return members

    def settle(self) -> None:
        """Wait until Patroni itself sees both servers as what they shall be."""
        self._until_settled(len(SERVERS))

    def _until_settled(self, servers: int) -> None:
        wanted = sorted([("Leader", "running"), ("Replica", "streaming")][:servers])

        def settled() -> bool:
            return sorted((one["Role"], one["State"]) for one in self.list()) == wanted

        self._until(settled, f"{servers} servers to run")

    def until_follows(self, primary: str) -> None:
        """Wait until a standby streams from this server."""
        directory, port = self.where(primary)
        with psycopg.connect(host=directory, port=port, user="postgres", dbname="postgres", autocommit=True) as session:
            state = "SELECT 1 FROM pg_stat_replication WHERE state = 'streaming' AND application_name <> %s"
            self._until(
                lambda: session.execute(state, [primary]).fetchone() is not None, "the former primary to follow"
            )

    def _until(self, reached: Callable[[], bool], what: str) -> None:
        if not until(reached, seconds=PATIENCE):
            raise BenchmarkError(f"Patroni: waited {PATIENCE:g} s for {what} in vain: " + self._said())

    def _said(self) -> str:
        return "\n".join((self.root / f"{name}.log").read_text(errors="replace")[-2000:] for name in SERVERS)

    def _ctl(self, *words: str) -> str:
        command = self._account.command(
            [str(self._tools.bin / "patronictl"), "-c", str(self._file(SERVERS[0])), *words]
        )
        return run(command, cwd=self.root, environ=self._environ)
