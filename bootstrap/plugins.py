"""The plugins of the installed pulumi-… packages: the official ones, or the stand-ins of offline/plugins."""

import json
import os
import pwd
import shlex
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from bootstrap import download, records
from bootstrap.engine import Engine
from bootstrap.project import STAND_IN, BootstrapError, Project, fingerprint, is_stand_in, run_quietly, say


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

    def binary(self, home: Path) -> Path:
        return home / "plugins" / self.directory / f"pulumi-resource-{self.name}"

    def stand_in(self, project: Project) -> Path:
        return project.root / "offline" / "plugins" / f"{self.name}.py"


@dataclass(frozen=True)
class Plugins:
    home: Path
    stand_ins: str
    """What is a stand-in, for a person; empty when nothing is."""


def own_home(environ: Mapping[str, str]) -> Path:
    """Where the user's own Pulumi keeps plugins and login."""
    named = environ.get("PULUMI_HOME")
    return Path(named) if named else account_home() / ".pulumi"


def account_home() -> Path:
    """As the engine has it: from the account's entry, not from $HOME, which is another in some containers."""
    try:
        return Path(pwd.getpwuid(os.getuid()).pw_dir)
    except KeyError:
        return Path.home()


def ensure(project: Project, engine: Engine, environ: Mapping[str, str]) -> Plugins:
    """Have every plugin where the engine finds it; `environ` is the user's own."""
    needed = sorted(_needed(project), key=lambda plugin: plugin.name)
    home = own_home(environ)
    available = [plugin.name for plugin in needed if plugin.stand_in(project).exists()]
    key = fingerprint(str(project.root), str(home), str(engine.bin), *map(str, needed), *available)
    known = records.read(project, "plugins", key)
    if known and _is_so(known, home, needed):
        return Plugins(Path(known["home"]), known["stand_ins"])
    found, official = _install(project, engine, environ, needed)
    decision = {"home": str(found.home), "stand_ins": found.stand_ins, "official": " ".join(official)}
    records.write(project, "plugins", key, decision)
    return found


def _is_so(known: Mapping[str, str], own: Path, needed: list[Plugin]) -> bool:
    """Whether what was decided is there still, and nothing better: somebody may have put another file in its place."""
    home, official = Path(known["home"]), known.get("official", "").split()
    stand_ins = known["stand_ins"].split(", ")
    return all(
        _official(home, plugin)
        if plugin.directory in official
        else not _official(own, plugin) and (str(plugin) not in stand_ins or is_stand_in(plugin.binary(home)))
        for plugin in needed
    )


def _install(
    project: Project, engine: Engine, environ: Mapping[str, str], needed: list[Plugin]
) -> tuple[Plugins, list[str]]:
    """The plugins, and which of them are official, by their directories."""
    home = own_home(environ)
    if home != project.home:
        _clear(home, needed)
    official = [
        plugin
        for plugin in needed
        if _official(home, plugin)
        or _official(project.home, plugin)  # somebody put it into the place of a stand-in
        or _downloaded(engine, home, environ, plugin)
    ]
    missing = [plugin for plugin in needed if plugin not in official]
    stand_ins = [plugin for plugin in missing if plugin.stand_in(project).exists()]
    if stand_ins or not all(_official(home, plugin) for plugin in official):
        for plugin in official:
            if not _official(project.home, plugin):
                shutil.rmtree(project.home / "plugins" / plugin.directory, ignore_errors=True)
                shutil.copytree(home / "plugins" / plugin.directory, project.home / "plugins" / plugin.directory)
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
    return Plugins(home, text), [plugin.directory for plugin in official]


def _clear(home: Path, needed: list[Plugin]) -> None:
    """Take stand-ins out of the user's own home, where an earlier version put them and other projects take them for official."""
    for plugin in needed:
        if is_stand_in(plugin.binary(home)):
            shutil.rmtree(home / "plugins" / plugin.directory)
            (home / "plugins" / f"{plugin.directory}.lock").unlink(missing_ok=True)
            say(f"plugins: removed the offline stand-in for {plugin} from {home}")


def _needed(project: Project) -> Iterator[Plugin]:
    """Each package of the virtual environment names its plugin in a file of its own."""
    for path in project.venv.glob("lib/python3*/site-packages/pulumi_*/pulumi-plugin.json"):
        content = json.loads(path.read_text())
        if content.get("resource"):
            yield Plugin(content["name"], content["version"])


def _official(home: Path, plugin: Plugin) -> bool:
    binary = plugin.binary(home)
    return binary.exists() and not is_stand_in(binary)


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
        launcher.write_text(f'#!/bin/sh\n{STAND_IN}\nexec {command} "$@"\n')
        launcher.chmod(0o755)
        _plugin_install(engine, environ, plugin, "--reinstall", "--file", str(launcher))


def _plugin_install(engine: Engine, environ: Mapping[str, str], plugin: Plugin, *options: str) -> None:
    run_quietly(
        [engine.pulumi, "plugin", "install", "resource", plugin.name, plugin.version, *options],
        f"pulumi plugin install of {plugin}",
        environ={**os.environ, **environ, "PULUMI_SKIP_UPDATE_CHECK": "true"},
    )
