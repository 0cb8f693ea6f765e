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
        linked = Path(link.read_text().partition("\n")[0]) if link.exists() else Path()
        # Not in place of one that serves: the environment may be another checkout's, which a link leads to.
        components = linked if linked.is_absolute() and linked.is_dir() else project.root / "components"
        text = f"{components}\n{_watching(components / 'tde_replication' / 'engine_watch.py')}\n"
        if not link.exists() or link.read_text() != text:
            link.write_text(text)


def _watching(watch: Path) -> str:
    """A line of a .pth file, which every Python of the environment runs as it starts: it has the process for dynamic providers
    end with its engine from its first moment on. Pulumi starts that process itself, and loads code of ours only to configure a
    provider; where the engine is killed before, it would wait for ever."""
    started = "sys.orig_argv[-3:-1] == ['-m', 'pulumi.dynamic']"
    return (
        f"import sys; {started} and __import__('runpy').run_path({str(watch)!r})['end_with_engine'](sys.orig_argv[-1])"
    )


def _moved(project: Project) -> bool:
    """Whether the clone was moved since: scripts in bin/ name the environment by the path that it was made at."""
    configuration = project.venv / "pyvenv.cfg"
    if project.venv.is_symlink() or not configuration.exists():
        return False
    made = [line for line in configuration.read_text().splitlines() if line.startswith("command = ")]
    return bool(made) and not made[0].endswith(str(project.venv))
