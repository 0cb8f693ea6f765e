"""Commands that are small scripts."""

import os
from pathlib import Path


class Commands:
    """A directory for PATH."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)

    def add(self, name: str, script: str) -> Path:
        path = self.directory / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path

    def environ(self, **more: str) -> dict[str, str]:
        return {"PATH": f"{self.directory}{os.pathsep}/usr/bin{os.pathsep}/bin", **more}
