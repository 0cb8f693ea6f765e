"""The plugins of the installed pulumi-… packages: the official ones, or the stand-ins of offline/plugins."""

import json
import os
import shlex
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from bootstrap import download, records
from bootstrap.engine import Engine
from bootstrap.project import BootstrapError, Project, fingerprint, is_script, run_quietly, say


@dataclass(frozen=True)
class Plugin:
    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name} {self.version}"

    @property
    def directory(self) -> str:
        """Its name in the engine's cache."""
        return f"resource-{self.name}-v{self.version}"

    def stand_in(self, project: Project) -> Path:
        return project.root / "offline" / "plugins" / f"{self.name}.py"


@dataclass(frozen=True)
class Plugins:
    home: Path
    stand_ins: str
    """What is a stand-in, for a person; empty when nothing is."""


def own_home(environ: Mapping[str, str]) -> Path:
    """Where the user's own Pulumi keeps plugins and login."""
    return Path(environ.get("PULUMI_HOME") or Path.home() / ".pulumi")


def ensure(project: Project, engine: Engine, environ: Mapping[str, str]) -> Plugins:
    """Have every plugin where the engine finds it; `environ` is the user's own."""
    needed = sorted(_needed(project), key=lambda plugin: plugin.name)
    home = own_home(environ)
    available = [plugin.name for plugin in needed if plugin.stand_in(project).exists()]
    key = fingerprint(str(project.root), str(home), str(engine.bin), *map(str, needed), *available)
    known = records.read(project, "plugins", key)
    if known and all((Path(known["home"]) / "plugins" / place).exists() for place in known["places"].split()):
        return Plugins(Path(known["home"]), known["stand_ins"])
    plugins, places = _install(project, engine, environ, needed)
    decision = {"home": str(plugins.home), "stand_ins": plugins.stand_ins, "places": " ".join(places)}
    records.write(project, "plugins", key, decision)
    return plugins


def _install(
    project: Project, engine: Engine, environ: Mapping[str, str], needed: list[Plugin]
) -> tuple[Plugins, list[str]]:
    home = own_home(environ)
    official = [plugin for plugin in needed if _official(home, plugin) or _downloaded(engine, home, environ, plugin)]
    missing = [plugin for plugin in needed if plugin not in official]
    stand_ins = [plugin for plugin in missing if plugin.stand_in(project).exists()]
    if stand_ins and "PULUMI_HOME" not in environ:
        for plugin in official:
            shutil.copytree(
                home / "plugins" / plugin.directory, project.home / "plugins" / plugin.directory, dirs_exist_ok=True
            )
        home = project.home
    for plugin in stand_ins:
        _install_stand_in(project, engine, {**environ, "PULUMI_HOME": str(home)}, plugin)
    text = ", ".join(map(str, stand_ins))
    why = f"({download.SITE} cannot be reached)"
    if official:
        say(f"plugins: {', '.join(map(str, official))}")
    if stand_ins:
        say(f"plugins: offline stand-in for {text} {why}")
    if absent := [str(plugin) for plugin in missing if plugin not in stand_ins]:
        say(f"plugins: none for {', '.join(absent)} {why}; stacks that use it cannot run")
    return Plugins(home, text), [plugin.directory for plugin in official + stand_ins]


def _needed(project: Project) -> Iterator[Plugin]:
    """Each package of the virtual environment names its plugin in a file of its own."""
    for path in project.venv.glob("lib/python3*/site-packages/pulumi_*/pulumi-plugin.json"):
        content = json.loads(path.read_text())
        if content.get("resource"):
            yield Plugin(content["name"], content["version"])


def _official(home: Path, plugin: Plugin) -> bool:
    binary = home / "plugins" / plugin.directory / f"pulumi-resource-{plugin.name}"
    return binary.exists() and not is_script(binary)


def _downloaded(engine: Engine, home: Path, environ: Mapping[str, str], plugin: Plugin) -> bool:
    checksum = download.plugin_checksum(plugin.name, plugin.version)
    if checksum is None:
        return False
    try:
        _plugin_install(engine, {**environ, "PULUMI_HOME": str(home)}, plugin, "--checksum", checksum)
    except BootstrapError as error:
        say(str(error))
        return False
    return True


def _install_stand_in(project: Project, engine: Engine, environ: Mapping[str, str], plugin: Plugin) -> None:
    """Install a launcher, which names this project: the source and its interpreter stay where they are."""
    command = shlex.join([str(project.python), str(plugin.stand_in(project))])
    with tempfile.TemporaryDirectory() as directory:
        launcher = Path(directory) / f"pulumi-resource-{plugin.name}"
        launcher.write_text(f'#!/bin/sh\n# Offline stand-in, see offline/.\nexec {command} "$@"\n')
        launcher.chmod(0o755)
        _plugin_install(engine, environ, plugin, "--reinstall", "--file", str(launcher))


def _plugin_install(engine: Engine, environ: Mapping[str, str], plugin: Plugin, *options: str) -> None:
    run_quietly(
        [engine.pulumi, "plugin", "install", "resource", plugin.name, plugin.version, *options],
        f"pulumi plugin install of {plugin}",
        environ={**os.environ, **environ, "PULUMI_SKIP_UPDATE_CHECK": "true"},
    )
