"""The virtual environment, made again when a requirements file changes."""

import shutil
import sys

from bootstrap.project import Project, fingerprint, run_quietly, say

REQUIREMENTS, DEVELOPMENT = "requirements.txt", "requirements-dev.txt"


def ensure(project: Project, *, development: bool) -> None:
    """Have `.venv` hold the requirements, and those of tests and lint where asked for."""
    files = [project.root / REQUIREMENTS, project.root / DEVELOPMENT]
    # Scripts in bin/ name the environment by its path: a moved clone needs a new one.
    wanted = fingerprint(str(project.root), files=files)
    stamp = project.venv / "requirements.stamp"
    made = stamp.read_text().split() if stamp.exists() and project.python.exists() else []
    if made[:1] == [wanted] and (not development or "development" in made):
        return
    if not made:
        shutil.rmtree(project.venv, ignore_errors=True)
    say(f".venv: installing {DEVELOPMENT if development else REQUIREMENTS} (about a minute, once)")
    if not project.python.exists():
        run_quietly([sys.executable, "-m", "venv", project.venv], "python -m venv (Debian: install python3-venv)")
    requirements = project.root / (DEVELOPMENT if development else REQUIREMENTS)
    run_quietly(
        [project.python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", requirements],
        "pip install",
    )
    stamp.write_text(f"{wanted} development" if development else wanted)
