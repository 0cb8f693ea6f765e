"""What is run as root on a machine goes by no link that the server's account has planted.

The scripts run here, in a directory below /tmp that nobody but root may change.
"""

import grp
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tde_replication.hosts.account import service_account
from tde_replication.hosts.ssh import scripts as ssh_scripts

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as several accounts"),
    pytest.mark.skipif(not shutil.which("runuser"), reason="there is no runuser here"),
]
ACCOUNT = service_account().name if os.geteuid() == 0 else ""


@pytest.fixture
def root() -> Iterator[Path]:
    """Root's; in it, `mine` is the account's, and `system` is a directory like /etc."""
    made = Path(tempfile.mkdtemp(prefix="tde it's 50% ", dir="/tmp"))
    made.chmod(0o755)
    for name in ("mine", "system"):
        (made / name).mkdir(mode=0o755)
    shutil.chown(made / "mine", ACCOUNT)
    yield made
    shutil.rmtree(made)


def run(script: str, *arguments: str | Path, **more: str) -> subprocess.CompletedProcess[str]:
    """As `placement` has it run."""
    command = ["/bin/sh", "-s", *map(str, arguments)]
    text = f'main() {{\n{script.strip()}\n}}\nmain "$@" </dev/null\n'
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C"} | more
    return subprocess.run(command, input=text, env=environment, capture_output=True, text=True, check=False)


def make(directory: Path, own: str = "yes") -> subprocess.CompletedProcess[str]:
    return run(ssh_scripts.DIRECTORY, "make", ACCOUNT, directory, own)


def remove(directory: Path, own: str = "yes") -> subprocess.CompletedProcess[str]:
    return run(ssh_scripts.DIRECTORY, "remove", ACCOUNT, directory, own)


def owner(path: Path) -> tuple[str, str, str]:
    status = path.lstat()
    return pwd.getpwuid(status.st_uid).pw_name, grp.getgrgid(status.st_gid).gr_name, f"{status.st_mode & 0o7777:o}"


def whose() -> tuple[str, str, str]:
    return ACCOUNT, grp.getgrgid(pwd.getpwnam(ACCOUNT).pw_gid).gr_name, "700"


def plant(link: Path, target: Path) -> None:
    """As the account."""
    subprocess.run(["runuser", "-u", ACCOUNT, "--", "ln", "-s", target, link], check=True)


@pytest.mark.parametrize("above", ["mine", "srv"])
def test_the_directory_is_made_once_and_taken_away(root: Path, above: str) -> None:
    directory = root / above / "18" / "tde-orders-db1"
    for _ in range(2):
        done = make(directory)
        assert (done.returncode, done.stderr) == (0, "")
        assert owner(directory) == whose()
    assert owner(directory.parent)[0] == (ACCOUNT if above == "mine" else "root")
    other = directory.with_name("tde-orders-db2")
    assert make(other).returncode == 0
    (directory / "data").mkdir()
    assert remove(directory).returncode == 0
    assert directory.exists()
    (directory / "data").rmdir()
    assert remove(directory, own="no").returncode == 0
    assert directory.exists()
    for place, left in ((directory, True), (other, False)):
        for _ in range(2):
            assert remove(place).returncode == 0
            assert not place.exists()
            assert directory.parent.exists() == left


def test_servers_whose_directories_are_made_at_once(root: Path) -> None:
    """By one stack on one machine: pulumi-command runs them side by side."""
    for turn in range(10):
        directories = [root / f"srv{turn}" / "pg" / "18" / f"tde-{number}" for number in range(3)]
        with ThreadPoolExecutor() as pool:
            assert [done.returncode for done in pool.map(make, directories)] == [0, 0, 0]
        assert {owner(directory) for directory in directories} == {whose()}


def test_root_makes_nothing_behind_a_link_of_the_account(root: Path) -> None:
    plant(root / "mine" / "18", root / "system")
    done = make(root / "mine" / "18" / "tde-orders-db1")
    assert list((root / "system").iterdir()) == []
    assert done.returncode == 1
    assert f"{ACCOUNT} cannot write to {root}/mine/18/tde-orders-db1: give it that directory" in done.stderr


def test_a_link_where_the_directory_would_be(root: Path) -> None:
    (root / "mine" / "18").mkdir()
    shutil.chown(root / "mine" / "18", ACCOUNT)
    for number, target in enumerate((root / "system", root / "system" / "new")):
        plant(root / "mine" / "18" / f"tde-{number}", target)
        assert make(root / "mine" / "18" / f"tde-{number}").returncode == 1
    assert owner(root / "system") == ("root", "root", "755")
    assert list((root / "system").iterdir()) == []


def test_root_takes_nothing_away_behind_a_link_of_the_account(root: Path) -> None:
    (root / "system" / "tde-orders-db1").mkdir()
    plant(root / "mine" / "18", root / "system")
    done = remove(root / "mine" / "18" / "tde-orders-db1")
    assert done.returncode == 1
    assert f"or a link of {ACCOUNT} leads there" in done.stderr
    assert (root / "system" / "tde-orders-db1").exists()


def test_a_link_that_is_put_there_meanwhile(root: Path) -> None:
    """Just before a directory is made, whoever makes it."""
    directory = root / "mine" / "18" / "tde-orders-db1"
    directory.parent.mkdir()
    shutil.chown(directory.parent, ACCOUNT)
    programs = root / "programs"
    programs.mkdir()
    for name in ("install", "mkdir", "chown", "runuser"):
        planted = f'[ -e "{directory}" ] || {shutil.which("ln")} -sfn "{root}/system" "{directory}"'
        (programs / name).write_text(f'#!/bin/sh\n{planted}\nexec {shutil.which(name)} "$@"\n')
        (programs / name).chmod(0o755)
    done = run(ssh_scripts.DIRECTORY, "make", ACCOUNT, directory, "yes", PATH=f"{programs}:{os.environ['PATH']}")
    assert directory.is_symlink()
    assert done.returncode == 1
    assert owner(root / "system") == ("root", "root", "755")


def test_a_way_by_roots_own_link(root: Path) -> None:
    """As where an administrator has put the data on another disk."""
    (root / "disk").mkdir()
    for name, target in (("absolute", root / "disk"), ("relative", Path("system/../disk"))):
        (root / name).symlink_to(target)
        directory = root / name / "18" / "tde-orders-db1"
        assert make(directory).returncode == 0
        assert owner(root / "disk" / "18" / "tde-orders-db1") == whose()
        assert remove(directory).returncode == 0
        assert list((root / "disk").iterdir()) == []


def test_what_an_earlier_version_made_as_root(root: Path) -> None:
    """Root's directory in one of the account's: it can make and remove nothing in there itself."""
    for name in ("tde-orders-db1", "tde-orders-db2"):
        (root / "mine" / "18").mkdir(exist_ok=True)
        assert make(root / "mine" / "18" / name).returncode == 0
        assert owner(root / "mine" / "18" / name) == whose()
    for name in ("tde-orders-db1", "tde-orders-db2"):
        assert remove(root / "mine" / "18" / name).returncode == 0
    assert list((root / "mine").iterdir()) == []


@pytest.mark.parametrize("mode", [0o777, 0o1777])
def test_where_everybody_may_write(root: Path, mode: int) -> None:
    """In a sticky directory nobody can take away what root has made; in another one, root makes nothing."""
    (root / "all").mkdir()
    (root / "all").chmod(mode)
    assert make(root / "all" / "18" / "tde-orders-db1").returncode == 0
    assert owner(root / "all" / "18")[0] == ("root" if mode & 0o1000 else ACCOUNT)
    assert owner(root / "all" / "18" / "tde-orders-db1") == whose()


def test_a_directory_of_another_account_is_not_roots_to_give(root: Path) -> None:
    os.chown(root / "mine", 1, 1)
    done = make(root / "mine" / "tde-orders-db1")
    assert done.returncode == 1
    assert f"{ACCOUNT} cannot write to" in done.stderr
    assert list((root / "mine").iterdir()) == []


def test_package_files_are_taken_away_as_the_login_whose_they_are(root: Path) -> None:
    """Run in the login's home, where its `.cache` may be a link."""
    place = ".cache/tde-replication/tde-orders-db1"
    script = f'cd "{root}/mine"\n{ssh_scripts.FILES}'
    for target in (root / "mine" / "cache", root / "system"):
        (target / "tde-replication" / "tde-orders-db1").mkdir(parents=True)
    for name in ("", "tde-replication", "tde-replication/tde-orders-db1"):
        shutil.chown(root / "mine" / "cache" / name, ACCOUNT)
    plant(root / "mine" / ".cache", root / "system")
    assert run(script, "remove", place, "./a.deb", SUDO_USER=ACCOUNT).returncode == 1
    assert (root / "system" / "tde-replication" / "tde-orders-db1").exists()
    (root / "mine" / ".cache").unlink()
    (root / "mine" / "cache").rename(root / "mine" / ".cache")
    for _ in range(2):
        assert run(script, "remove", place, "./a.deb", SUDO_USER=ACCOUNT).returncode == 0
    assert list((root / "mine").iterdir()) == []
    # A login as root has its own home.
    (root / "mine" / place).mkdir(parents=True)
    assert run(script, "remove", place, "./a.deb").returncode == 0
    assert list((root / "mine").iterdir()) == []
