"""What no other account of this machine may read: the state of stacks, and the passphrase that its secrets are encrypted by."""

import json
import os
import secrets
import stat
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from bootstrap.project import BootstrapError, Project, say
from tde_replication.hosts.account import local_root, service_account

PASSPHRASE = "PULUMI_CONFIG_PASSPHRASE"  # noqa: S105
PASSPHRASE_FILE = f"{PASSPHRASE}_FILE"
OTHERS = 0o077


def close(project: Project) -> None:
    """Keep other accounts out of what is made here, also out of what an earlier version has made."""
    passed = service_account().switches and local_root(project.root) == project.local
    _make(project.local, 0o711 if passed else 0o700)  # on the way to the servers' own directories
    for directory in (project.state, project.home):
        if not directory.exists():
            continue
        was_open = bool(stat.S_IMODE(directory.stat().st_mode) & OTHERS)
        directory.chmod(0o700)
        if was_open:
            for path in (path for path in directory.rglob("*") if not path.is_symlink()):
                path.chmod(stat.S_IMODE(path.stat().st_mode) & ~OTHERS)
        if was_open and directory == project.state:
            say(f"state: {directory} could be read by other accounts of this machine; now it is this user's alone")


def make_state(project: Project) -> None:
    _make(project.state, 0o700)


def _make(directory: Path, mode: int) -> None:
    directory.mkdir(mode=mode, parents=True, exist_ok=True)
    if stat.S_IMODE(directory.stat().st_mode) & OTHERS & ~mode:
        directory.chmod(mode)


def passphrase(project: Project, environ: Mapping[str, str], stack: str, release: Callable[[str], int]) -> None:
    """Have a passphrase of this project's own, in the file that `environ` names.

    Before there was one, it was empty: what is encrypted by that is encrypted anew, and told. Only then the file gets its name,
    so that a run that was killed meanwhile is followed by one that goes on. `stack` is the one that is used now; `release` takes
    away the lock of a Pulumi that was killed.
    """
    path = Path(environ.get(PASSPHRASE_FILE, ""))
    if path != project.passphrase:
        return  # the user's own
    if path.exists():
        path.chmod(0o600)
        return
    draft = path.with_name(f"{path.name}.new")
    if not draft.exists():
        write(draft, secrets.token_urlsafe(32))
    empty = {name: value for name, value in environ.items() if name != PASSPHRASE_FILE} | {PASSPHRASE: ""}
    known = set(_stacks(project))
    settings = project.root / "stacks" / f"Pulumi.{stack}.yaml"
    if stack not in known and settings.exists() and "encryptionsalt:" in settings.read_text():
        done = _pulumi(project, empty, "stack", "init", stack)  # settings outlived the stack
        known |= set() if done.returncode else {stack}
    for name in sorted(known):
        release(name)
        _encrypt_anew(project, name, draft, empty)
    draft.rename(path)


def write(path: Path, text: str) -> None:
    """Make a file for this user alone."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def forget_passphrase(project: Project) -> None:
    """Once no state and no setting of a stack is encrypted by it."""
    settings = (project.root / "stacks").glob("Pulumi.*.yaml")
    if not any("encryptionsalt:" in file.read_text() for file in settings) and not set(_stacks(project)):
        project.passphrase.unlink(missing_ok=True)


def _stacks(project: Project) -> Iterator[str]:
    """Those in the project's own state whose secrets are encrypted by a passphrase."""
    for file in (project.state / ".pulumi" / "stacks").glob("*/*.json"):
        try:
            latest = json.loads(file.read_text())["checkpoint"]["latest"] or {}
            kind = latest.get("secrets_providers", {}).get("type", "passphrase")
        except (ValueError, KeyError, AttributeError):
            kind = "passphrase"  # Pulumi says what is wrong with it
        if kind == "passphrase":
            yield file.stem


def _encrypt_anew(project: Project, stack: str, new: Path, empty: Mapping[str, str]) -> None:
    """By the passphrase in `new`, where it was the empty one; what is encrypted by that already, or by a user's own, stays."""
    change = ("stack", "change-secrets-provider", "passphrase", "--stack", stack)
    done = _pulumi(project, empty, *change, text=new.read_text())
    if not done.returncode:
        say(
            f"stack {stack}: its secrets were encrypted by an empty passphrase, and are now by the one in {project.passphrase}: "
            "keep that file, and source env.sh again in open shells"
        )
    elif "incorrect passphrase" not in done.stderr:
        raise BootstrapError(
            f"the secrets of stack {stack} are encrypted by an empty passphrase, and could not be encrypted again:\n"
            f"{done.stderr.strip()}"
        )


def _pulumi(
    project: Project, environ: Mapping[str, str], *arguments: str, text: str = ""
) -> subprocess.CompletedProcess[str]:
    command = ["pulumi", "--non-interactive", *arguments]
    return subprocess.run(
        command, cwd=project.root, env=environ, input=text, capture_output=True, text=True, check=False
    )
