"""One machine of every kind of host, for the tests of what all kinds promise."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pytest

from tde_replication import hosts
from tde_replication.host_settings import SUPPORTED
from tde_replication.hosts.account import PROJECT, service_account
from tde_replication.hosts.base import Host
from tde_replication.hosts.installation import find_installation
from tde_replication.hosts.local.machine import LocalHost
from tde_replication.hosts.ssh import scripts
from tests.docker import lab
from tests.ssh import sshd
from tests.ssh.booted import BINARIES

UNIT = "tde-contract"


@dataclass(frozen=True)
class Machine:
    host: Host
    room: PurePosixPath
    """A directory there of the account's own, which goes with the test run."""
    binaries: PurePosixPath
    launcher: Host
    """What starts and stops servers there: the host itself, but where no systemd runs."""

    @property
    def launches(self) -> bool:
        return self.launcher is self.host


@contextmanager
def _room() -> Iterator[Path]:
    """On this machine, where the service account can work."""
    with tempfile.TemporaryDirectory(prefix="tde-contract-", dir="/tmp") as name:
        directory = Path(name)
        account = service_account()
        if account.switches:
            shutil.chown(directory, account.uid, account.gid)
        yield directory


def _binaries() -> PurePosixPath:
    return PurePosixPath(find_installation(PROJECT, None, SUPPORTED).binaries)


@contextmanager
def local(_request: pytest.FixtureRequest) -> Iterator[Machine]:
    with _room() as room:
        host = LocalHost()
        yield Machine(host, PurePosixPath(room), _binaries(), host)


@contextmanager
def ssh(_request: pytest.FixtureRequest) -> Iterator[Machine]:
    """This machine again, through an sshd on a loopback port."""
    if sshd.MISSING:
        pytest.skip(sshd.MISSING)
    with tempfile.TemporaryDirectory(prefix="tde-sshd-", dir="/tmp") as home, _room() as room:
        daemon = sshd.Sshd(Path(home)).start()
        try:
            host = hosts.host(daemon.login(service_account().name).address())
            yield Machine(host, PurePosixPath(room), _binaries(), LocalHost())
        finally:
            daemon.stop()


@contextmanager
def booted(request: pytest.FixtureRequest) -> Iterator[Machine]:
    """A machine of its own with systemd, where another account logs in and becomes the server's by sudo."""
    machine = request.getfixturevalue("laboratory").boot("contract")[0]
    room = PurePosixPath("/var/lib/postgresql")
    values = {"name": "contract", "stack": "tests", "account": "postgres", "unit": UNIT, "binaries": BINARIES}
    machine.root(scripts.UNIT, "make", UNIT, scripts.UNIT_TEXT.format(data=room / "server" / "data", **values))
    host = hosts.host(machine.login().address(unit=UNIT))
    yield Machine(host, room, PurePosixPath(BINARIES), host)


@contextmanager
def container(request: pytest.FixtureRequest) -> Iterator[Machine]:
    """A container, as pulumi-docker makes it."""
    daemon, image = request.getfixturevalue("daemon"), request.getfixturevalue("image")
    with lab.server_container(daemon, image, lab.ROOM / "server" / "data") as name:
        host = hosts.host(f"docker://{name}")
        yield Machine(host, lab.ROOM, lab.BINARIES, host)


KINDS: dict[str, Callable[[pytest.FixtureRequest], AbstractContextManager[Machine]]] = {
    "local": local,
    "ssh": ssh,
    "booted": booted,
    "docker": container,
}
