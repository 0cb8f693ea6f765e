"""What no other account of this machine may read, and the passphrase of the state."""

import json
import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from bootstrap import private
from bootstrap.private import PASSPHRASE, PASSPHRASE_FILE
from bootstrap.project import BootstrapError, Project
from tde_replication.hosts.account import local_root, service_account

SALTED = {"checkpoint": {"latest": {"secrets_providers": {"type": "passphrase"}}}}


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def none(_: str) -> int:
    return 0


def test_what_is_made_is_closed(project: Project) -> None:
    before = os.umask(0)
    try:
        private.close(project)
        private.make_state(project)
    finally:
        os.umask(before)
    passed = service_account().switches and local_root(project.root) == project.local
    assert mode(project.local) == (0o711 if passed else 0o700)
    assert mode(project.state) == 0o700


def test_what_was_open_is_closed_and_told_once(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    """As earlier versions left it, backups, history and a home of Pulumi's own too."""
    files = [
        project.state / ".pulumi" / "stacks" / "trial" / "local.json",
        project.state / ".pulumi" / "backups" / "trial" / "local" / "local.1.json",
        project.state / ".pulumi" / "history" / "trial" / "local" / "local-1.history.json",
        project.home / "credentials.json",
    ]
    elsewhere = project.root / "elsewhere"
    elsewhere.write_text("")
    elsewhere.chmod(0o644)
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("secret")
        file.chmod(0o644)
    (project.state / "link").symlink_to(elsewhere)
    for directory in (project.local, project.state, project.home):
        directory.chmod(0o755)
    private.close(project)
    for file in files:
        assert mode(file) == 0o600
        assert mode(file.parent) == 0o700
    assert mode(project.state) == mode(project.home) == 0o700
    assert not mode(project.local) & 0o066
    assert mode(elsewhere) == 0o644
    assert capsys.readouterr().err.count("could be read by other accounts") == 1
    private.close(project)
    assert capsys.readouterr().err == ""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become a stranger")
def test_a_stranger_reads_neither_state_nor_passphrase(project: Project) -> None:
    for above in (project.root, *project.root.parents[:3]):
        above.chmod(0o755)
    private.close(project)
    private.make_state(project)
    secret = project.state / "secret"
    secret.write_text("x")
    secret.chmod(0o644)
    private.passphrase(project, {PASSPHRASE_FILE: str(project.passphrase)}, "local", none)
    for path in (secret, project.passphrase):
        done = subprocess.run(["cat", path], user=65534, group=65534, extra_groups=[], capture_output=True, check=False)
        assert (done.stdout, done.returncode) == (b"", 1)


def test_a_users_own_passphrase_is_left_alone(project: Project) -> None:
    own = project.root / "own"
    own.write_text("mine")
    own.chmod(0o644)
    for environ in ({PASSPHRASE_FILE: str(own)}, {PASSPHRASE: "mine"}, {}):
        private.passphrase(project, environ, "local", none)
    assert mode(own) == 0o644
    assert not project.passphrase.exists()


class Pulumi:
    """The real engine, on the project's own state."""

    def __init__(self, project: Project, home: Path) -> None:
        self.project = project
        own = {name: value for name, value in os.environ.items() if not name.startswith(PASSPHRASE)}
        self.environ = {**own, "PULUMI_BACKEND_URL": project.backend, "PULUMI_HOME": str(home)}
        self.before = {**self.environ, PASSPHRASE: ""}
        self.now = {**self.environ, PASSPHRASE_FILE: str(project.passphrase)}

    def __call__(self, *arguments: str, environ: dict[str, str], text: str = "") -> subprocess.CompletedProcess[str]:
        command = ["pulumi", "--non-interactive", *arguments]
        return subprocess.run(
            command, cwd=self.project.root, env=environ, input=text, capture_output=True, text=True, check=False
        )

    def stack(self, name: str, passphrase: str = "") -> None:
        """One with a secret in its settings and one in its state."""
        environ = {**self.environ, PASSPHRASE: passphrase}
        for arguments in (["stack", "init", name], ["config", "set", "--secret", "sudo", "hidden", "--stack", name]):
            done = self(*arguments, environ=environ)
            assert not done.returncode, done.stderr
        exported = json.loads(self("stack", "export", "--stack", name, environ=environ).stdout)
        secret = {"4dabf18193072939515e22adb298388d": "1b47061264138c4ac30d75fd1eb44270", "plaintext": '"shown"'}
        urn = f"urn:pulumi:{name}::trial::pulumi:pulumi:Stack::trial-{name}"
        exported["deployment"]["resources"] = [
            {"urn": urn, "custom": False, "type": "pulumi:pulumi:Stack", "outputs": {"password": secret}}
        ]
        done = self("stack", "import", "--stack", name, environ=environ, text=json.dumps(exported))
        assert not done.returncode, done.stderr

    def secrets(self, name: str, environ: dict[str, str]) -> list[str]:
        asked = (
            self("config", "get", "sudo", "--stack", name, environ=environ),
            self("stack", "output", "password", "--show-secrets", "--stack", name, environ=environ),
        )
        return [done.stdout.strip() for done in asked]


@pytest.fixture
def pulumi(project: Project, tmp_path: Path) -> Pulumi:
    if not shutil.which("pulumi"):
        pytest.fail("no pulumi on PATH: run the tests by `make test`, or source env.sh first")
    (project.root / "Pulumi.yaml").write_text("name: trial\nruntime: python\nstackConfigDir: stacks\n")
    private.close(project)
    private.make_state(project)
    return Pulumi(project, tmp_path / "home")


def test_what_an_empty_passphrase_encrypts_is_encrypted_anew(
    pulumi: Pulumi, capsys: pytest.CaptureFixture[str]
) -> None:
    pulumi.stack("local")
    pulumi.stack("staging")
    pulumi.stack("theirs", "a passphrase of the user's")
    released: list[str] = []

    def release(name: str) -> int:
        released.append(name)
        return 0

    private.passphrase(pulumi.project, pulumi.now, "local", release)
    told = capsys.readouterr().err
    assert mode(pulumi.project.passphrase) == 0o600
    for name in ("local", "staging"):
        assert f"stack {name}: its secrets were encrypted by an empty passphrase" in told
        assert pulumi.secrets(name, pulumi.now) == ["hidden", "shown"]
        assert pulumi.secrets(name, pulumi.before) == ["", ""]
    assert "theirs" not in told
    assert pulumi.secrets("theirs", {**pulumi.environ, PASSPHRASE: "a passphrase of the user's"}) == ["hidden", "shown"]
    assert released == ["local", "staging", "theirs"]
    private.passphrase(pulumi.project, pulumi.now, "local", none)
    assert capsys.readouterr().err == ""


def test_a_run_that_was_killed_meanwhile_is_finished(pulumi: Pulumi) -> None:
    pulumi.stack("local")
    pulumi.stack("staging")

    def killed(name: str) -> int:
        if name == "staging":
            raise KeyboardInterrupt
        return 0

    with pytest.raises(KeyboardInterrupt):
        private.passphrase(pulumi.project, pulumi.now, "local", killed)
    assert not pulumi.project.passphrase.exists()
    private.passphrase(pulumi.project, pulumi.now, "local", none)
    for name in ("local", "staging"):
        assert pulumi.secrets(name, pulumi.now) == ["hidden", "shown"]


def test_settings_that_outlived_their_stack_can_still_be_read(pulumi: Pulumi) -> None:
    pulumi.stack("local")
    shutil.rmtree(pulumi.project.state / ".pulumi")
    private.passphrase(pulumi.project, pulumi.now, "local", none)
    assert pulumi.secrets("local", pulumi.now)[0] == "hidden"


def test_what_cannot_be_encrypted_anew_is_told(pulumi: Pulumi) -> None:
    file = pulumi.project.state / ".pulumi" / "stacks" / "trial" / "local.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(SALTED | {"version": 99}))
    with pytest.raises(
        BootstrapError, match="the secrets of stack local are encrypted by an empty passphrase, and could"
    ):
        private.passphrase(pulumi.project, pulumi.now, "local", none)
    assert not pulumi.project.passphrase.exists()
