"""The virtual environment, made again when a requirements file changes."""

import shutil
import sys
from pathlib import Path

from bootstrap.project import Project, fingerprint, run_quietly, say

REQUIREMENTS, DEVELOPMENT = "requirements.txt", "requirements-dev.txt"


def ensure(project: Project, *, development: bool) -> None:
    """Have `.venv` hold the requirements, and those of tests and lint where asked for."""
    files = [project.root / REQUIREMENTS, project.root / DEVELOPMENT]
    wanted = fingerprint(str(project.root), files=files)
    stamp = project.venv / "requirements.stamp"
    made = stamp.read_text().split() if stamp.exists() and project.python.exists() else []
    if made[:1] == [wanted] and (not development or "development" in made):
        _link(project)
        return
    if _moved(project):
        shutil.rmtree(project.venv)
    say(f".venv: installing {DEVELOPMENT if development else REQUIREMENTS} (about a minute, once)")
    if not project.python.exists():
        run_quietly([sys.executable, "-m", "venv", project.venv], "python -m venv (Debian: install python3-venv)")
    requirements = project.root / (DEVELOPMENT if development else REQUIREMENTS)
    # By hash: what an index serves under a version must be what was locked.
    options = ("--quiet", "--disable-pip-version-check", "--require-hashes", "--requirement")
    run_quietly([project.python, "-m", "pip", "install", *options, requirements], "pip install")
    _link(project)
    stamp.write_text(f"{wanted} development" if development else wanted)


def _link(project: Project) -> None:
    """Have the package of `components` imported from there; what is not from an index has no hash to install it by."""
    for packages in project.venv.glob("lib/python3*/site-packages"):
        link = packages / "tde_replication.pth"
        # Not in place of one that serves: the environment may be another checkout's, which a link leads to.
        if not link.exists() or not Path(link.read_text().strip()).is_dir():
            link.write_text(f"{project.root / 'components'}\n")


def _moved(project: Project) -> bool:
    """Whether the clone was moved since: scripts in bin/ name the environment by the path that it was made at."""
    configuration = project.venv / "pyvenv.cfg"
    if project.venv.is_symlink() or not configuration.exists():
        return False
    made = [line for line in configuration.read_text().splitlines() if line.startswith("command = ")]
    return bool(made) and not made[0].endswith(str(project.venv))
