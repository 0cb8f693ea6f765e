"""By ssh too, only programs are run that nobody else could have put there: a preview runs what a stack file names."""

import os
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tde_replication.errors import UserError
from tde_replication.hosts.account import service_account
from tde_replication.hosts.placement import Placement
from tde_replication.hosts.ssh.private_directory import control
from tests.graph.graph import installation
from tests.ssh.sshd import MISSING, Sshd
from tests.ssh.test_placement import declared
from tests.ssh.test_ssh import masters

pytestmark = [
    pytest.mark.filterwarnings("ignore:This resource is deprecated:DeprecationWarning"),
    pytest.mark.skipif(bool(MISSING), reason=f"SSH TESTS DID NOT RUN: {MISSING}"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another account"),
]


@pytest.fixture(scope="module")
def sshd() -> Iterator[Sshd]:
    with tempfile.TemporaryDirectory(prefix="tde-sshd-", dir="/tmp") as home:
        daemon, before = Sshd(Path(home)).start(), masters()
        yield daemon
        for name in masters() - before:
            subprocess.run(["ssh", "-O", "exit", "-S", control() / name, "x"], capture_output=True, check=False)
        daemon.stop()


@pytest.fixture
def root() -> Iterator[Path]:
    """Root's, with programs in `18/bin` that write down when they are run, and links to them."""
    made = Path(tempfile.mkdtemp(prefix="tde it's 50% ", dir="/tmp"))
    made.chmod(0o755)
    programs = installation(made / "18", pg_tde=True)
    (made / "ran").mkdir()
    (made / "ran").chmod(0o777)
    (programs / "postgres").write_text(f'#!/bin/sh\n: >"{made}/ran/$(id -un)"\necho 18.6\n')
    (made / "links").mkdir()
    (made / "links" / "second").symlink_to(programs)
    (made / "first").symlink_to("links/second")
    yield made
    shutil.rmtree(made)


def declare(sshd: Sshd, binaries: Path) -> Placement:
    login = sshd.login(service_account().name)
    ways = {"user": login.user, "account": login.account, "key": login.key, "knownHosts": login.known_hosts}
    server = {"adopt": True, "port": 5432, "dataDirectory": "/var/lib/postgresql/18/main", "binaries": str(binaries)}
    return declared({"ssh": sshd.address, "port": sshd.port, **ways}, **server)


def ran(root: Path) -> list[str]:
    return [path.name for path in (root / "ran").iterdir()]


@pytest.mark.parametrize("binaries", ["18/bin", "first", "dots"])
def test_those_that_nobody_else_may_change_are_run(sshd: Sshd, root: Path, binaries: str) -> None:
    (root / "dots").symlink_to("links/..//./18/bin/")
    site = declare(sshd, root / binaries)
    assert (site.version, site.has_pg_tde) == (18, binaries == "18/bin")
    assert ran(root) == [service_account().name]


def test_the_accounts_own_are_run(sshd: Sshd, root: Path) -> None:
    account = service_account()
    for path in (root / "18", root / "18" / "bin", root / "18" / "bin" / "postgres"):
        os.chown(path, account.uid, account.gid)
    assert declare(sshd, root / "18" / "bin").version == 18
    # Most systems make a group for each account alone.
    (root / "18").chmod(0o775)
    os.chown(root / "18", 0, 0)
    assert declare(sshd, root / "18" / "bin").version == 18


def _others(path: Path) -> None:
    path.chmod(path.stat().st_mode | 0o002)


def _group(path: Path) -> None:
    os.chown(path, -1, 1)
    path.chmod(path.stat().st_mode | 0o020)


def _stranger(path: Path) -> None:
    os.chown(path, 1, -1)


@pytest.mark.parametrize("where", ["18/bin/postgres", "18/bin/initdb", "18/bin", "18"])
@pytest.mark.parametrize("given", [_others, _group, _stranger])
def test_what_others_may_change_is_not_run(sshd: Sshd, root: Path, where: str, given: Callable[[Path], None]) -> None:
    given(root / where)
    for binaries in ("18/bin", "first"):
        _refused(sshd, root, binaries, root / where)


@pytest.mark.parametrize("given", [_others, _group, _stranger])
def test_a_link_on_the_way_that_others_may_change(sshd: Sshd, root: Path, given: Callable[[Path], None]) -> None:
    """One that lies neither in the path that is named nor in the one that it leads to."""
    given(root / "links")
    _refused(sshd, root, "first", root / "links")


def test_a_strangers_link_in_a_sticky_directory(sshd: Sshd, root: Path) -> None:
    (root / "links").chmod(0o1777)
    os.chown(root / "links" / "second", 1, 1, follow_symlinks=False)
    _refused(sshd, root, "first", root / "links" / "second")


def test_an_access_control_list_that_lets_in_others(sshd: Sshd, root: Path) -> None:
    """It shows in the mode as the right of a group, which is the owner's alone."""
    entries = [(0x01, 7, -1), (0x02, 7, 1), (0x04, 5, -1), (0x10, 7, -1), (0x20, 5, -1)]
    packed = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in entries)
    try:
        os.setxattr(root / "18", "system.posix_acl_access", packed)
    except OSError:
        pytest.skip("this file system has no access control lists")
    _refused(sshd, root, "18/bin", root / "18")


def _refused(sshd: Sshd, root: Path, binaries: str, place: Path) -> None:
    with pytest.raises(UserError) as caught:
        declare(sshd, root / binaries)
    assert str(caught.value) == (
        f"the programs in {root / binaries} on {sshd.address} are not run, because accounts other than root and "
        f"{service_account().name} may "
        f"change {place}: correct its owner and mode, or name another directory in binaries"
    )
    assert ran(root) == []
