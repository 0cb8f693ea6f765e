"""actionlint for the workflows, built once of its Go modules: its package on PyPI only downloads a program."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping

from bootstrap.project import HERE, BootstrapError, Project, run_quietly, say

VERSION = "1.7.12"
MODULE = "github.com/rhysd/actionlint/cmd/actionlint"
BUILD = {"GOTOOLCHAIN": "local", "CGO_ENABLED": "0", "GOFLAGS": "", "GOWORK": "off"}


def actionlint(project: Project, environ: Mapping[str, str]) -> int:
    """The exit status; what it finds is printed."""
    program = project.local / f"actionlint-{VERSION}" / "actionlint"
    if not program.exists():
        go = shutil.which("go", path=environ.get("PATH"))
        if go is None:
            say("actionlint: SKIPPED: there is no Go to build it")
            return 0
        say(f"actionlint: building {VERSION} from its Go modules (half a minute, once)")
        try:
            # Go compares what it downloads with the public checksum database.
            run_quietly(
                [go, "install", f"{MODULE}@v{VERSION}"],
                "go install",
                environ={**environ, **BUILD, "GOBIN": str(program.parent)},
            )
        except BootstrapError as error:
            say(f"actionlint: SKIPPED: {error}")
            return 0
    return subprocess.run([program], cwd=project.root, env=environ, check=False).returncode


if __name__ == "__main__":
    sys.exit(actionlint(HERE, os.environ))
