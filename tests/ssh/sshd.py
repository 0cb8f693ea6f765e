"""An sshd of the tests' own: on a loopback port, with its own host key, configuration and accepted key."""

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bootstrap.ports import free_ports
from tde_replication.hosts.ssh.login import Login
from tde_replication.waiting import until

SSHD = shutil.which("sshd") or "/usr/sbin/sshd"
MISSING = "" if Path(SSHD).exists() else "no sshd on this machine: apt-get install openssh-server"
RUN = Path("/run/sshd")
"""Where sshd, as root, gives up its privileges."""


@dataclass
class Sshd:
    """Listens from `start` to `stop`; each start may have other `options` and another port stays out of the question."""

    home: Path
    options: dict[str, str] = field(default_factory=dict)
    address: str = "127.0.0.1"
    port: int = 0
    process: subprocess.Popen[bytes] | None = None

    @property
    def key(self) -> Path:
        return self.home / "id"

    @property
    def known_hosts(self) -> Path:
        return self.home / "known_hosts"

    @property
    def log(self) -> str:
        return (self.home / "log").read_text()

    def make_keys(self) -> None:
        for name in ("host", "id"):
            generate(self.home / name)
        (self.home / "authorized").write_bytes((self.home / "id.pub").read_bytes())

    def start(self) -> "Sshd":
        if not self.key.exists():
            self.make_keys()
        self.port = self.port or free_ports(1, self.address)[0]
        if os.geteuid() == 0:
            RUN.mkdir(mode=0o755, exist_ok=True)
        settings = {
            "HostKey": self.home / "host",
            "AuthorizedKeysFile": self.home / "authorized",
            "PidFile": "none",
            "UsePAM": "no",
            "StrictModes": "no",
            "PermitRootLogin": "prohibit-password",
            "ListenAddress": self.address,
            "Port": self.port,
            "LogLevel": "VERBOSE",
            **self.options,
        }
        config = self.home / "sshd_config"
        config.write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
        host = (self.home / "host.pub").read_text().split()[:2]
        self.known_hosts.write_text(f"[{self.address}]:{self.port} {' '.join(host)}\n")
        with (self.home / "log").open("wb") as log:
            self.process = subprocess.Popen([SSHD, "-D", "-e", "-f", config], stderr=log, start_new_session=True)
        deadline = time.monotonic() + 10
        while not _answers(self.address, self.port):
            assert self.process.poll() is None, self.log
            assert time.monotonic() < deadline, self.log
            time.sleep(0.02)
        return self

    def stop(self) -> None:
        if self.process:
            self.process.terminate()
            self.process.wait()
            self.process = None

    def login(self, account: str = "", **more: Any) -> Login:
        """As the user who runs the tests; `account` by default is that user."""
        user = getpass.getuser()
        known: dict[str, Any] = {"host": self.address, "port": self.port, "user": user, "account": account or user}
        return Login(**(known | {"key": str(self.key), "known_hosts": str(self.known_hosts)} | more))


def generate(path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)


def _answers(address: str, port: int) -> bool:
    try:
        with socket.create_connection((address, port), timeout=1) as probe:
            return bool(probe.recv(4))
    except OSError:
        return False


def generated(path: Path) -> Path:
    generate(path)
    return path


def signed(key: Path, authority: Path, user: str) -> Path:
    """A new key's certificate for the login `user`."""
    generate(key)
    subprocess.run(["ssh-keygen", "-q", "-s", authority, "-I", user, "-n", user, f"{key}.pub"], check=True)
    return key.with_name(f"{key.name}-cert.pub")


@contextmanager
def running_agent(directory: Path) -> Iterator[str]:
    """The socket of an ssh-agent without keys."""
    place = directory / "agent"
    with subprocess.Popen(["ssh-agent", "-D", "-a", place], stdout=subprocess.DEVNULL) as agent:
        assert until(place.exists, seconds=10)
        try:
            yield str(place)
        finally:
            agent.terminate()


def own_configuration(directory: Path, setenv: Callable[[str, str], object]) -> Path:
    """A file that `ssh` reads in place of the user's own configuration, which it finds by no variable."""
    file, programs = directory / "ssh_config", directory / "programs"
    programs.mkdir()
    file.touch()
    (programs / "ssh").write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F "{file}" "$@"\n')
    (programs / "ssh").chmod(0o755)
    setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    return file
