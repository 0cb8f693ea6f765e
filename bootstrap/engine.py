"""Which Pulumi engine: one on PATH that is new enough, else Pulumi's release, else one built here."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from bootstrap import download, records
from bootstrap.project import STAND_IN, BootstrapError, Project, fingerprint, is_script, run_quietly, say

VERSION = "3.259.0"  # the oldest version that is accepted, and the one that is installed or built
LANGUAGE_HOST, PROVIDER_HOST = "pulumi-language-python", "pulumi-resource-pulumi-python"
_GO = (1, 25)  # the least that offline/engine/go.mod accepts


@dataclass(frozen=True)
class Engine:
    bin: Path
    why: str

    @property
    def pulumi(self) -> Path:
        return self.bin / "pulumi"


def ensure(project: Project, environ: Mapping[str, str]) -> Engine:
    """Choose, and where needed install or build, an engine. A choice is kept until what it was made from changes."""
    found = _on_path(project, environ)
    sources = [project.root / "offline" / "engine" / name for name in ("go.mod", "go.sum")]
    key = fingerprint(str(project.root), VERSION, _identity(found), *_launchers().values(), files=sources)
    known = records.read(project, "engine", key)
    if known and (Path(known["bin"]) / "pulumi").exists():
        return Engine(Path(known["bin"]), known["why"])
    engine = _choose(project, environ, found)
    say(f"engine: {engine.why}")
    records.write(project, "engine", key, {"bin": str(engine.bin), "why": engine.why})
    return engine


def _choose(project: Project, environ: Mapping[str, str], found: Path | None) -> Engine:
    refusal = "there is no pulumi on PATH"
    if found:
        version = _version(project, found)
        refusal = _refusal(found, version)
        if not refusal:
            return Engine(found.parent, f"pulumi {version} on PATH, {found}")
    own = project.engine / "pulumi"
    if own.exists() and _version(project, own) == VERSION:
        origin = "left from an earlier run"
    elif download.install_engine(project, VERSION):
        origin = f"from {download.SITE}"
    else:
        _build(project, environ, refusal)
        origin = f"built from its Go modules, because {download.SITE} cannot be reached"
    host = project.engine / LANGUAGE_HOST
    _write_launchers(project, [PROVIDER_HOST])
    if not host.exists() or is_script(host):
        _write_launchers(project, [LANGUAGE_HOST])
        origin += "; its Python language host is the offline stand-in"
    return Engine(project.engine, f"pulumi {VERSION} {origin} ({refusal})")


def _on_path(project: Project, environ: Mapping[str, str]) -> Path | None:
    """Find the user's own `pulumi`: not ours, which a sourced env.sh has put on PATH."""
    places = [place for place in environ.get("PATH", "").split(os.pathsep) if Path(place) != project.engine]
    found = shutil.which("pulumi", path=os.pathsep.join(places))
    return Path(found) if found else None


def _identity(found: Path | None) -> str:
    """Something that changes with the file, without running it."""
    if found is None:
        return "none"
    status = found.stat()
    return f"{found} {status.st_mtime_ns} {status.st_size}"


def _version(project: Project, pulumi: Path) -> str:
    """Return its version, or nothing where it does not tell; its log goes into our home, not the user's."""
    environ = {**os.environ, "PULUMI_SKIP_UPDATE_CHECK": "true", "PULUMI_HOME": str(project.home)}
    try:
        done = subprocess.run([pulumi, "version"], env=environ, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    match = re.search(r"^v?(\d+\.\d+\.\d+\S*)", done.stdout, re.MULTILINE)
    return match[1] if match and done.returncode == 0 else ""


def _refusal(found: Path, version: str) -> str:
    """Why this one is not taken; empty when it is."""
    if not version:
        return f"{found} does not report its version"
    if _numbers(version) < _numbers(VERSION):
        return f"{found} is {version}, older than {VERSION}"
    if not (found.resolve().parent / LANGUAGE_HOST).exists() and not (found.parent / LANGUAGE_HOST).exists():
        return f"{found} comes without {LANGUAGE_HOST}"
    return ""


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])


def _build(project: Project, environ: Mapping[str, str], refusal: str) -> None:
    """Build it in `offline/engine`, with the ordinary Go client and nothing that go.sum does not name."""
    go = shutil.which("go", path=environ.get("PATH"))
    tell = f"No Pulumi engine: {refusal}, {download.SITE} cannot be reached"
    if go is None:
        raise BootstrapError(f"{tell}, and there is no Go to build one. Install Pulumi, or Go {_GO[0]}.{_GO[1]}.")
    settings = {"GOTOOLCHAIN": "local", "CGO_ENABLED": "0", "GOFLAGS": "", "GOWORK": "off"}
    sources = project.root / "offline" / "engine"
    environ = {**environ, **settings}
    has = run_quietly([go, "env", "GOVERSION"], "go env", cwd=sources, environ=environ)
    if _numbers(has)[:2] < _GO:
        raise BootstrapError(f"{tell}, and {go} is {has.strip()}. Install Pulumi, or Go {_GO[0]}.{_GO[1]}.")
    say(f"engine: building pulumi {VERSION} from its Go modules (once; 4 to 6 minutes on 2 cores)")
    project.engine.mkdir(parents=True, exist_ok=True)
    unfinished = project.engine / "pulumi.unfinished"
    stamp = f"-s -w -X github.com/pulumi/pulumi/sdk/v3/go/common/version.Version=v{VERSION}"
    package = "github.com/pulumi/pulumi/pkg/v3/cmd/pulumi"
    run_quietly(
        [go, "build", "-trimpath", "-ldflags", stamp, "-o", unfinished, package],
        "go build",
        cwd=sources,
        environ=environ,
    )
    unfinished.rename(project.engine / "pulumi")


def _launchers() -> dict[str, str]:
    """Both hosts as scripts: what Pulumi ships for dynamic providers is one too."""
    root = '"${0%/*}/../../..'  # of the project, from .local/engine/bin
    programs = {LANGUAGE_HOST: "language_host.py", PROVIDER_HOST: "provider_host.py"}
    return {
        name: f'#!/bin/sh\n{STAND_IN}\nexec {root}/.venv/bin/python" -u {root}/offline/{program}" "$@"\n'
        for name, program in programs.items()
    }


def _write_launchers(project: Project, names: Iterable[str]) -> None:
    """Put them next to the engine: there it takes them for its own, elsewhere it warns at every command."""
    for name in names:
        path = project.engine / name
        path.write_text(_launchers()[name])
        path.chmod(0o755)
