import io
import json
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bootstrap.project import BootstrapError, Project
from bootstrap.stack import Stack
from tde_replication.reap import LEFT
from tde_replication.records import Cost
from tests.bootstrap.commands import Commands
from tests.unit.previews import Stream, changed


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


OUTPUTS = {
    "summary": "local: 1 primary",
    "encryption": {"mode": "if-available", "inForce": False, "reason": "no pg_tde"},
}
PULUMI = f"""echo "$*" >> "$0.calls"; [ "$3" != --json ] || echo '{json.dumps(OUTPUTS)}'"""


class Trial:
    """A stack whose pulumi only writes down what it was asked."""

    def __init__(self, project: Project, commands: Commands) -> None:
        self.project, self.commands = project, commands
        self.pulumi(PULUMI)
        Commands(project.venv / "bin").add("python", 'echo "$*" >> "$0.calls"')
        self.settings = project.root / "stacks" / "Pulumi.local.yaml"
        self.asking = commands.directory / "asking"
        self.script = PULUMI

    def pulumi(self, script: str) -> None:
        self.commands.add("pulumi", script)

    def stack(self, name: str = "local", *, embedded_vault: bool = True, **more: str) -> Stack:
        backend = {"PULUMI_BACKEND_URL": self.project.backend, **more}
        return Stack(self.project, name, self.commands.environ(**backend), embedded_vault)

    def writes(self, events: str, command: str = "preview", code: int = 0) -> None:
        """Have a command of Pulumi's write them where it is told to, and end with `code`."""
        file = self.commands.directory / "events"
        file.write_text(events)
        copied = f'[ "$PULUMI_DEBUG_COMMANDS" ] && cp "{file}" "$3" && exit {code}'
        self.pulumi(f'{PULUMI}; [ "$1" != {command} ] || {{ {copied}; }}')

    def exists(self, outputs: dict[str, object] | None = None) -> None:
        path = self.project.state / ".pulumi" / "stacks" / "trial" / "local.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(outputs or {}, indent=4))

    def lock(self, pid: int, hostname: str) -> None:
        path = self.project.state / ".pulumi" / "locks" / "organization" / "trial" / "local" / "1.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"pid": pid, "hostname": hostname}))

    @property
    def asked(self) -> list[str]:
        return self._calls(self.commands.directory / "pulumi.calls")

    @property
    def vault(self) -> list[str]:
        return self._calls(self.project.venv / "bin" / "python.calls")

    @staticmethod
    def _calls(path: Path) -> list[str]:
        return re.sub(r"(?<= --event-log )\S+", "FILE", path.read_text()).splitlines() if path.exists() else []


@pytest.fixture
def trial(project: Project, commands: Commands) -> Trial:
    return Trial(project, commands)


def test_up_selects_updates_and_shows_the_summary(trial: Trial, capsys: pytest.CaptureFixture[str]) -> None:
    assert trial.stack().up() == 0
    told = capsys.readouterr()
    assert told.out == "local: 1 primary\n"
    assert "psql" in told.err
    assert trial.asked == [
        "stack select --create local",
        "up --event-log FILE --suppress-outputs --yes --skip-preview --stack local",
        "stack output --json --stack local",
    ]


CLEAR: dict[str, object] = {"mode": "if-available", "inForce": False}
FORCED: dict[str, object] = {"mode": "required", "inForce": True}
WAYS = "encrypt:  make up STACK=docker"


@pytest.mark.parametrize(
    ("name", "before", "encryption", "shown"),
    [
        ("local", None, CLEAR, True),
        ("local", CLEAR, CLEAR, True),
        ("local", FORCED, CLEAR, True),
        ("local", None, {"mode": "off", "inForce": False}, False),
        ("local", None, FORCED, False),
        ("docker", None, CLEAR, False),
    ],
)
@pytest.mark.parametrize("backend", ["", "s3://mine"])
def test_a_cluster_that_is_not_encrypted_says_what_encrypts_one_here(
    trial: Trial,
    capsys: pytest.CaptureFixture[str],
    name: str,
    before: dict[str, object] | None,
    encryption: dict[str, object],
    backend: str,
    *,
    shown: bool,
) -> None:
    """At every update, wherever its state is kept."""
    asking(trial, encryption)
    if before:
        trial.exists({"encryption": before})
    assert trial.stack(name, PULUMI_BACKEND_URL=backend or trial.project.backend).up() == 0
    assert capsys.readouterr().out == "local: 1 primary\n" + (f"{WAYS}\n" if shown else "")


def test_it_is_asked_beside_the_update_and_not_at_all_where_the_last_one_was_encrypted(trial: Trial) -> None:
    asking(trial, CLEAR)
    trial.pulumi(f'[ "$1" != up ] || until [ -e "{trial.asking}" ]; do sleep 0.01; done; {trial.script}')
    assert trial.stack().up() == 0
    trial.asking.unlink()
    asking(trial, FORCED)
    trial.exists({"encryption": FORCED})
    assert trial.stack().up() == 0
    assert not trial.asking.exists()
    # A failed update waits for no answer.
    Commands(trial.project.venv / "bin").add("python", "exec sleep 60")
    trial.pulumi("exit 3")
    began = time.monotonic()
    assert trial.stack(PULUMI_BACKEND_URL="s3://mine").up() != 0
    assert time.monotonic() - began < 30


def asking(trial: Trial, encryption: dict[str, object]) -> None:
    """What an update puts out, and a machine that has a way to encrypt."""
    outputs = json.dumps({**OUTPUTS, "encryption": encryption})
    trial.script = f"[ \"$3\" != --json ] || echo '{outputs}'"
    trial.pulumi(trial.script)
    python = Commands(trial.project.venv / "bin")
    python.add("python", f"[ \"$2\" != bootstrap.encryption_here ] || {{ touch '{trial.asking}'; echo '{WAYS}'; }}")


def test_outputs_that_cannot_be_read_are_a_failure(trial: Trial, capsys: pytest.CaptureFixture[str]) -> None:
    trial.pulumi("echo why >&2")
    assert trial.stack().up() == 1
    assert "stack local: its outputs cannot be read: why" in capsys.readouterr().err


def test_a_failed_up_shows_no_summary(trial: Trial, capsys: pytest.CaptureFixture[str]) -> None:
    trial.pulumi(f'{PULUMI}; [ "$1" != up ]')
    assert trial.stack().up() == 1
    assert capsys.readouterr().err == ""
    assert trial.asked[-1].startswith("up ")


ROLE = {"passwordMatches": True}


@pytest.mark.parametrize("stack", ["local", "docker"])
def test_an_update_that_nobody_saw_a_preview_of_says_what_it_repaired(
    trial: Trial, capsys: pytest.CaptureFixture[str], stack: str
) -> None:
    drifted = Stream(stack).change("ReplicationRole", "replicator", ROLE, {"passwordMatches": False}, ROLE)
    trial.writes(drifted.say("NOT ENCRYPTED", "warning").text, "up")
    assert trial.stack(stack).up() == 0
    assert capsys.readouterr().err.partition("try:")[0].partition("then:")[0] == (
        "what this `up` did, as `make preview` says it:\n"
        f"{stack}: changes without interruption\n"
        "changed behind Pulumi's back (found → after `up`):\n"
        "  ReplicationRole replicator: its password was changed → it is set again; nobody is disconnected\n"
    )
    assert not [call for call in trial.asked if call.startswith("preview")]


@pytest.mark.parametrize(
    ("events", "code"),
    [
        (Stream("local").refresh("ReplicationRole", "replicator", ROLE, ROLE), 0),  # nothing to do
        (Stream("local").plan("create", "ReplicationRole", "replicator", None, ROLE), 0),  # the first one
        (Stream("local").change("ReplicationRole", "replicator", ROLE, {"passwordMatches": False}, ROLE), 3),
    ],
)
def test_where_there_is_no_more_to_say_the_summary_is_all(
    trial: Trial, capsys: pytest.CaptureFixture[str], events: Stream, code: int
) -> None:
    trial.writes(events.text, "up", code)
    assert trial.stack().up() == code
    assert "what this `up` did" not in capsys.readouterr().err


UPDATE = "up --suppress-outputs --yes --skip-preview --stack production"
EVENTS = changed(Stream("production").record(Cost(kind="restart", server="db1", of="Server")), max_connections="9").text


@pytest.mark.parametrize(("answer", "goes_on"), [("yes", True), ("no", False), ("", False), ("y", False)])
def test_a_stack_that_is_not_ours_is_updated_after_a_yes_to_its_review(
    trial: Trial, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, answer: str, *, goes_on: bool
) -> None:
    trial.writes(EVENTS)
    monkeypatch.setattr(sys, "stdin", Terminal(f"{answer}\n"))
    assert (trial.stack("production", embedded_vault=False).up() == 0) == goes_on
    said = capsys.readouterr()
    assert "production: interrupts db1 (primary)" in said.err
    assert "Update stack production?" in said.out
    assert (UPDATE in trial.asked) == goes_on
    assert ("make preview STACK=production" in said.err) == goes_on
    assert trial.vault == []


def test_where_nobody_can_be_asked_a_stack_that_is_not_ours_is_not_updated(
    trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("yes\n"))
    with pytest.raises(BootstrapError, match="needs confirmation: run this in a terminal, or set PULUMI_SKIP_CONFIRM"):
        trial.stack("production", embedded_vault=False).up()
    assert UPDATE not in trial.asked
    assert trial.stack("production", embedded_vault=False, PULUMI_SKIP_CONFIRMATIONS="true").up() == 0
    assert trial.asked[-2:] == [UPDATE, "stack output --json --stack production"]


def test_a_failed_preview_updates_nothing(trial: Trial) -> None:
    trial.pulumi(f'{PULUMI}; [ "$1" != preview ]')
    assert trial.stack("production", embedded_vault=False, PULUMI_SKIP_CONFIRMATIONS="true").up() == 1
    assert UPDATE not in trial.asked


def test_a_preview_ends_with_its_review(trial: Trial, capsys: pytest.CaptureFixture[str]) -> None:
    trial.writes(EVENTS)
    assert trial.stack().preview() == 0
    assert capsys.readouterr().err.startswith("production: interrupts db1 (primary); loses nothing\n")


def test_a_stack_that_is_not_ours_is_destroyed_as_pulumi_asks(trial: Trial) -> None:
    assert trial.stack("production", embedded_vault=False).destroy() == 0
    assert trial.asked[-2:] == ["destroy --stack production", "stack export --stack production"]
    assert trial.vault == []


@pytest.mark.parametrize(("code", "says"), [(0, "no drift: "), (7, "drift: "), (255, "")])
def test_drift_is_said_in_a_sentence(trial: Trial, capsys: pytest.CaptureFixture[str], code: int, says: str) -> None:
    trial.pulumi(f'{PULUMI}; [ "$1" != refresh ] || exit {code}')
    assert trial.stack().drift() == code
    said = capsys.readouterr().err
    assert said.startswith(says)
    assert bool(said) == bool(says)
    assert trial.asked[-1] == "refresh --preview-only --expect-no-changes --stack local"


@pytest.mark.parametrize(
    ("code", "ends", "says"), [(0, 8, "has not drifted"), (7, 8, "there is drift"), (255, 255, "")]
)
def test_a_drift_check_that_could_not_ask_everything_names_it_and_ends_with_8(
    trial: Trial, capsys: pytest.CaptureFixture[str], code: int, ends: int, says: str
) -> None:
    noted = "printf 'Server db2\\tdb2 cannot be reached\\n' >>\"$TDE_REPLICATION_UNASKED\""
    trial.pulumi(f'{PULUMI}; [ "$1" != refresh ] || {{ {noted}; exit {code}; }}')
    assert trial.stack().drift() == ends
    said = capsys.readouterr().err
    assert says in said
    assert ("  db2 cannot be reached. Not checked: Server db2" in said) == (ends == 8)


def test_drift_drops_the_variable_that_pulumi_refuses_beside_it(trial: Trial) -> None:
    trial.pulumi('[ "$1" != refresh ] || [ -z "$PULUMI_SKIP_CONFIRMATIONS" ]')
    assert trial.stack(PULUMI_SKIP_CONFIRMATIONS="true").drift() == 0


def pending(kind: str, name: str) -> dict[str, object]:
    return {"resource": {"urn": f"urn:pulumi:production::trial::a:b:C${kind}::{name}"}, "type": "creating"}


@pytest.mark.parametrize(
    ("state", "forgotten"),
    [
        ({"pending_operations": [pending("pulumi-python:dynamic/postgres:Server", "db1")]}, True),
        ({"pending_operations": [pending("vault:index/mount:Mount", "tde")], "resources": []}, True),
        ({"pending_operations": [pending("vault:index/mount:Mount", "tde")], "resources": [{}]}, False),
        ({"pending_operations": None}, False),
        ({}, False),
    ],
)
def test_destroy_forgets_what_a_killed_up_was_making(
    trial: Trial, capsys: pytest.CaptureFixture[str], state: dict[str, object], *, forgotten: bool
) -> None:
    trial.pulumi(f"{PULUMI}; [ \"$2\" != export ] || echo '{json.dumps({'deployment': state})}'")
    assert trial.stack("production", embedded_vault=False).destroy() == 0
    forget = "refresh --clear-pending-creates --yes --skip-preview --suppress-outputs --stack production"
    assert (forget in trial.asked) == forgotten
    said = capsys.readouterr().err
    [left] = LEFT.findall(said) or [""]  # what `make reap` shows of it, too
    assert ("was making vault:index/mount:Mount tde: check whether it exists" in left) == (
        forgotten and "Mount" in json.dumps(state)
    )


def test_destroying_nothing_asks_no_pulumi(trial: Trial, capsys: pytest.CaptureFixture[str]) -> None:
    assert trial.stack().destroy() == 0
    assert trial.asked == []
    assert trial.vault == ["-m bootstrap.vault remove"]
    assert "it does not exist" in capsys.readouterr().err


def test_destroy_takes_all_but_the_settings(trial: Trial) -> None:
    trial.exists()
    trial.settings.write_text("config:\n  a: b\nencryptionsalt: v1:abc=\n")
    assert trial.stack().destroy() == 0
    assert trial.asked == [
        "destroy --yes --skip-preview --stack local",
        "stack rm --yes --preserve-config --stack local",
    ]
    assert trial.vault == ["-m bootstrap.vault start", "-m bootstrap.vault remove"]  # its resources lie in it
    assert trial.settings.read_text() == "config:\n  a: b\n"
    assert not trial.project.state.exists()


def test_a_secret_in_the_settings_keeps_its_salt(trial: Trial) -> None:
    trial.exists()
    trial.settings.write_text("config:\n  a: {secure: v1:x}\nencryptionsalt: v1:abc=\n")
    trial.project.passphrase.write_text("what it is encrypted by")
    trial.stack().destroy()
    assert "encryptionsalt" in trial.settings.read_text()
    assert trial.project.passphrase.exists()


def test_the_passphrase_goes_with_the_last_stack(trial: Trial) -> None:
    trial.exists()
    trial.project.passphrase.write_text("secret")
    trial.settings.write_text("encryptionsalt: v1:abc=\n")
    other = trial.project.state / ".pulumi" / "stacks" / "trial" / "docker.json"
    other.write_text("{}")
    trial.stack().destroy()
    assert trial.project.passphrase.exists()
    other.unlink()
    trial.stack().destroy()
    assert not trial.project.passphrase.exists()


def test_a_failed_destroy_keeps_state_and_vault(trial: Trial) -> None:
    trial.exists()
    trial.pulumi('[ "$1" != destroy ] || exit 3')
    assert trial.stack().destroy() == 3
    assert trial.project.state.exists()
    assert "-m bootstrap.vault remove" not in trial.vault


def test_an_own_backend_is_left_alone(trial: Trial) -> None:
    trial.settings.write_text("encryptionsalt: v1:abc=\n")
    trial.exists()
    assert trial.stack(PULUMI_BACKEND_URL="s3://mine").destroy() == 0
    assert "destroy --yes --skip-preview --stack local" in trial.asked
    assert trial.project.state.exists()
    assert "encryptionsalt" in trial.settings.read_text()


def ended() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.mark.parametrize(
    ("holder", "host", "cancelled"),
    [("dead", socket.gethostname(), True), ("alive", socket.gethostname(), False), ("dead", "elsewhere", False)],
)
def test_only_a_dead_pulumis_lock_is_taken_away(trial: Trial, holder: str, host: str, *, cancelled: bool) -> None:
    trial.lock(ended() if holder == "dead" else os.getpid(), host)
    assert trial.stack().up() == 0
    assert ("cancel --yes --stack local" in trial.asked) == cancelled
