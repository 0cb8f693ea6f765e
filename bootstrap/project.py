"""Where things lie in this checkout, and the few ways in which every step of the bootstrap speaks and runs commands."""

import hashlib
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


class BootstrapError(Exception):
    """One sentence for the person at the terminal."""


@dataclass(frozen=True)
class Project:
    root: Path

    @property
    def local(self) -> Path:
        """Everything made here that is not committed."""
        return self.root / ".local"

    @property
    def venv(self) -> Path:
        return self.root / ".venv"

    @property
    def python(self) -> Path:
        return self.venv / "bin" / "python"

    @property
    def engine(self) -> Path:
        """The `bin` of an engine that the project installed or built for itself."""
        return self.local / "engine" / "bin"

    @property
    def state(self) -> Path:
        """The state backend of somebody who has none."""
        return self.local / "state"

    @property
    def passphrase(self) -> Path:
        """What the secrets in that are encrypted by, where the user has no passphrase."""
        return self.local / "passphrase"

    @property
    def backend(self) -> str:
        """PULUMI_BACKEND_URL of that. Without the metadata files beside the state: Pulumi does not write those in one piece,
        and when it is killed then, it cannot read the state any more ("failed to load checkpoint: EOF")."""
        return f"file://{self.state}?metadata=skip"

    @property
    def home(self) -> Path:
        """PULUMI_HOME where stand-in plugins are used: in the user's own they would be taken for the official ones."""
        return self.local / "pulumi"


STAND_IN = "# Offline stand-in, see offline/."
"""A line of every launcher of ours: what Pulumi ships does not have it."""

HERE = Project(Path(__file__).resolve().parent.parent)


def say(text: str) -> None:
    """Tell it on stderr: stdout is for what is asked for."""
    print(text, file=sys.stderr, flush=True)


def fingerprint(*parts: str, files: Iterable[Path] = ()) -> str:
    digest = hashlib.sha256("\0".join(parts).encode())
    for path in files:
        digest.update(b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def is_script(path: Path) -> bool:
    """Whether it is one of our launchers: what Pulumi ships is compiled."""
    with path.open("rb") as file:
        return file.read(2) == b"#!"


def is_stand_in(path: Path) -> bool:
    """Whether it is one of our launchers, wherever it lies."""
    with suppress(OSError), path.open("rb") as file:
        return STAND_IN.encode() in file.read(1024)
    return False


def run_quietly(
    command: Sequence[str | Path], what: str, *, cwd: Path | None = None, environ: Mapping[str, str] | None = None
) -> str:
    """Run a command and return what it printed; when it fails, a BootstrapError ends with its last lines."""
    done = subprocess.run(
        command, cwd=cwd, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode:
        last = "\n".join(done.stdout.strip().splitlines()[-8:])
        raise BootstrapError(f"{what} failed:\n{last}")
    return done.stdout
