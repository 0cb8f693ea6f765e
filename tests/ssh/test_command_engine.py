"""The stand-in for pulumi-command, and the official plugin where it can be had, under the real engine with its classes."""

import getpass
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.official import programs
from tests.offline.stack import Stack
from tests.ssh.sshd import MISSING, Sshd

pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING)
PROGRAM = """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)
import pulumi
from pulumi_command import remote

connection = remote.ConnectionArgs(**declared["connection"])
source = pulumi.FileArchive("conf/") if declared.get("all") else pulumi.FileAsset("conf/f")
copied = remote.CopyToRemote(
    "copied", connection=connection, source=source, remote_path=declared["path"], triggers=[declared["trigger"]]
)
told = remote.Command(
    "told", connection=connection, create=f"echo {declared['trigger']}", logging=remote.Logging.NONE,
    triggers=[declared["trigger"]], opts=pulumi.ResourceOptions(depends_on=[copied]),
)
pulumi.export("ids", [copied.id, told.id])
pulumi.export("told", told.stdout)
"""


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[Sshd]:
    home = tmp_path / "sshd"
    home.mkdir()
    started = Sshd(home, {"Subsystem": "sftp internal-sftp"}).start()
    yield started
    started.stop()


@pytest.mark.parametrize("whose", programs("command"))
def test_life_of_a_stack(tmp_path: Path, sshd: Sshd, whose: str) -> None:
    place, target = tmp_path / "stack", tmp_path / "target" / "f"
    (place / "conf").mkdir(parents=True)
    source = place / "conf" / "f"
    source.write_text("1")
    stack = Stack(place, PROGRAM, "command", whose, {})
    key = sshd.key.read_text()
    connection = {
        "host": sshd.address,
        "port": sshd.port,
        "user": getpass.getuser(),
        "host_key": " ".join(sshd.known_hosts.read_text().split()[1:]),
        "private_key": key,
    }
    declared = {"connection": connection, "path": str(target), "trigger": "a"}
    stack.declare(**declared)
    assert stack.planned() == {"create": 3}
    assert not target.exists()
    assert stack.up() == {"created": 3}
    assert (target.read_text(), stack.outputs()["told"]) == ("1", "a")
    assert stack.planned() == {"unchanged": 3}
    assert key.splitlines()[1] not in stack.state()

    source.write_text("2")
    assert stack.planned() == {"update": 1, "unchanged": 2}
    assert stack.up() == {"updated": 1, "unchanged": 2}
    assert target.read_text() == "2"

    before = stack.outputs()["ids"]
    stack.declare(**declared | {"trigger": "b"})
    assert stack.up() == {"replaced": 2, "unchanged": 1}
    assert not set(before) & set(stack.outputs()["ids"])
    assert stack.outputs()["told"] == "b"

    stack.declare(**declared | {"trigger": "b", "all": True, "path": str(target.parent / "all")})
    assert stack.up() == {"updated": 1, "unchanged": 2}
    assert (target.parent / "all" / "f").read_text() == "2"
    assert stack.planned() == {"unchanged": 3}
    stack.destroy()
    assert target.exists()
