"""Asks beside other work what gets encryption on this machine: `encryption_here` takes a second, and the virtual environment."""

import subprocess
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from bootstrap.project import Project


class Asking:
    """Nothing is asked until somebody wants to know; whatever is still being asked in the end is not waited for."""

    def __init__(self, project: Project, environ: Mapping[str, str]) -> None:
        self._project, self._environ = project, environ
        self._process: subprocess.Popen[str] | None = None

    def begin(self) -> subprocess.Popen[str]:
        self._process = self._process or subprocess.Popen(
            [str(self._project.python), "-m", "bootstrap.encryption_here"],
            cwd=self._project.root,
            env=self._environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        return self._process

    def answer(self) -> str:
        return self.begin().communicate()[0]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, why: BaseException | None, at: TracebackType | None) -> None:
        if self._process:
            with self._process as left:
                left.kill()
