"""The policy pack of `policies/`: its virtual environment, made on first use, and the options by which Pulumi runs it."""

import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from bootstrap.project import BootstrapError, Project, fingerprint, run_quietly, say
from tde_replication.records import FACTS

ASKED = {FACTS: "true"}
"""In the environment of a preview that policies judge."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
_KEY = "tde-replication:policies"
_SETTING = re.compile(rf"^\s+[\"']?{_KEY}[\"']?:[ \t]*[\"']?([^\s\"'#]+)", re.MULTILINE)


def environment(project: Project) -> Path:
    """Where PulumiPolicy.yaml says that it is."""
    return project.root / "policies" / ".venv"


def ensure(project: Project) -> None:
    """An environment of the pack's own: pulumi-policy needs an older protobuf than the program."""
    lock, venv = project.root / "policies" / "requirements.txt", environment(project)
    python, stamp = venv / "bin" / "python", venv / "requirements.stamp"
    wanted = fingerprint(str(venv), files=[lock])
    if python.exists() and stamp.exists() and stamp.read_text() == wanted:
        return
    say("policies: installing policies/requirements.txt (half a minute, once)")
    shutil.rmtree(venv, ignore_errors=True)
    run_quietly([sys.executable, "-m", "venv", venv], "python -m venv (Debian: install python3-venv)")
    options = ("--quiet", "--disable-pip-version-check", "--require-hashes", "--requirement")
    run_quietly([python, "-m", "pip", "install", *options, lock], "pip install")
    stamp.write_text(wanted)


def file_of(project: Project, stack: str, environ: Mapping[str, str]) -> Path | None:
    """The file of the environment that POLICIES names; where it is not set, the stack's file (``tde-replication:policies:
    production``). None: no policies.

    Raises `BootstrapError` where there is no such environment.
    """
    settings = project.root / "stacks" / f"Pulumi.{stack}.yaml"
    where, name = "POLICIES", environ.get("POLICIES", "")
    if not name and settings.exists():
        where, text = settings.name, settings.read_text()
        found = _SETTING.search(text)
        if _KEY in text and not found:
            raise BootstrapError(f"{where}: {_KEY} must be a line of its own below config: `  {_KEY}: NAME`")
        name = found[1] if found else ""
    if not name:
        return None
    files = sorted((project.root / "policies").glob("*.json"))
    file = project.root / "policies" / f"{name}.json"
    if not NAME.fullmatch(name) or file not in files:
        names = ", ".join(one.stem for one in files)
        raise BootstrapError(f"{where} names the policies {name}: there are {names} (policies/*.json)")
    return file


def options(file: Path) -> list[str]:
    """Of `pulumi preview` and `pulumi up`."""
    return ["--policy-pack", str(file.parent), "--policy-pack-config", str(file)]


def labels(environ: Mapping[str, str]) -> list[str]:
    """What a person allows for this one run; a workflow gives the labels of the pull request."""
    return environ.get("TDE_REPLICATION_LABELS", "").split()
