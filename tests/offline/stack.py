"""A stack under the real engine, in a Pulumi that knows of no plugins but those of a test."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests import official
from tests.offline.harness import PROJECT


class Failed(Exception):
    """What Pulumi printed."""


class Stack:
    """`program` is Python text; it reads what a test `declares` as `declared`. `whose` is one of `official.programs`."""

    def __init__(self, place: Path, program: str, plugin: str, whose: str, environment: Mapping[str, str]) -> None:
        assert shutil.which("pulumi"), "a Pulumi engine is needed on PATH: `make test` brings one"
        self._place = place
        self.environment = os.environ | {
            "PULUMI_HOME": str(place / "home"),
            "PULUMI_BACKEND_URL": f"file://{place}/state",
            "PULUMI_CONFIG_PASSPHRASE": "",
            "PULUMI_SKIP_UPDATE_CHECK": "true",
            "PULUMI_SKIP_CONFIRMATIONS": "",
            "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
            **environment,
        }
        (place / "state").mkdir()
        settings = {"name": "python", "options": {"virtualenv": sys.prefix}}
        (place / "Pulumi.yaml").write_text(json.dumps({"name": "offline", "runtime": settings}))
        reading = "import json, pathlib\ndeclared = json.loads(pathlib.Path('declared.json').read_text())\n"
        (place / "__main__.py").write_text(reading + program)
        binary = official.plugin(plugin) if whose == "official" else self._stand_in(plugin)
        installed = version(f"pulumi-{plugin}")
        self.pulumi("plugin", "install", "resource", plugin, installed, "--file", str(binary))
        self.pulumi("stack", "init", "dev")

    def _stand_in(self, plugin: str) -> Path:
        launcher = self._place / f"pulumi-resource-{plugin}"
        launcher.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{PROJECT}/offline/plugins/{plugin}.py" "$@"\n')
        launcher.chmod(0o755)
        return launcher

    def pulumi(self, *arguments: str) -> str:
        done = subprocess.run(
            ["pulumi", *arguments, "--non-interactive", "--color=never"],
            cwd=self._place,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=120,
        )
        if done.returncode:
            raise Failed(done.stdout)
        return done.stdout

    def declare(self, **declared: Any) -> None:
        (self._place / "declared.json").write_text(json.dumps(declared))

    def up(self, *options: str) -> dict[str, int]:
        return _counts(self.pulumi("up", "--yes", "--skip-preview", *options))

    def planned(self) -> dict[str, int]:
        """Say what a preview says that has looked at the live world."""
        return _counts(self.pulumi("preview", "--refresh"))

    def outputs(self) -> dict[str, Any]:
        return dict(json.loads(self.pulumi("stack", "output", "--json", "--show-secrets")))

    def state(self) -> str:
        return self.pulumi("stack", "export")

    def destroy(self) -> None:
        self.pulumi("destroy", "--yes", "--skip-preview")


def _counts(printed: str) -> dict[str, int]:
    """Read the last lines: `+ 2 to create`, `6 unchanged`."""
    summary = printed.rpartition("Resources:")[2]
    return {kind: int(count) for count, kind in re.findall(r"(\d+) (?:to )?([a-z]+)$", summary, re.MULTILINE)}
