"""The environment in which plain `pulumi` commands work here, without taking anything from a user who has their own."""

import hashlib
import json
import os
import shlex
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

from bootstrap import embedded
from bootstrap.engine import Engine
from bootstrap.plugins import Plugins, own_home
from bootstrap.private import PASSPHRASE, PASSPHRASE_FILE
from bootstrap.project import BootstrapError, Project

MARK = "TDE_REPLICATION_ENVIRONMENT"
"""Names what was set here, with a digest of each value: in a shell that has sourced env.sh it is not the user's own."""


def own(environ: Mapping[str, str]) -> dict[str, str]:
    """Leave out what an earlier env.sh set and what still has its value: the rest is the user's own."""
    ours = dict(pair.split("=", 1) for pair in environ.get(MARK, "").split())
    return {name: value for name, value in environ.items() if name != MARK and ours.get(name) != _digest(value)}


def has_backend(environ: Mapping[str, str]) -> bool:
    """Whether the user (`environ` is their own) has a Pulumi login or state backend."""
    if environ.get("PULUMI_ACCESS_TOKEN") or environ.get("PULUMI_BACKEND_URL"):
        return True
    try:
        return bool(json.loads((_login(environ) / "credentials.json").read_text()).get("current"))
    except (OSError, ValueError):
        return False


def variables(
    project: Project,
    engine: Engine,
    plugins: Plugins,
    environ: Mapping[str, str],
    *,
    embedded_vault: bool,
    module: str = "bootstrap.vault",
) -> dict[str, str]:
    """Work out what to set for a user whose own variables are `environ`; `module` is what runs the embedded Vault."""
    new = {"PULUMI_SKIP_UPDATE_CHECK": "true"}
    if environ.get("PYTHONDONTWRITEBYTECODE"):
        # Many images have it set. Each command starts five Pythons, and each would compile every module of ours anew.
        new["PYTHONDONTWRITEBYTECODE"] = ""
    if plugins.stand_ins:
        new["PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION"] = "true"
    if plugins.home != own_home(environ):
        new["PULUMI_HOME"] = str(plugins.home)
        if has_backend(environ):
            new["PULUMI_CREDENTIALS_PATH"] = str(_login(environ))
    if not has_backend(environ):
        new["PULUMI_BACKEND_URL"] = project.backend
        if PASSPHRASE not in environ and PASSPHRASE_FILE not in environ:
            new[PASSPHRASE_FILE] = str(project.passphrase)
    if embedded_vault and "VAULT_ADDR" not in environ:
        new |= _vault(project, module)
    # The embedded server's programs come last: psql for somebody who has none.
    new["PATH"] = _path([engine.bin, project.venv / "bin"], environ.get("PATH", ""), embedded.programs(project))
    return new


def shell(old: Mapping[str, str], new: Mapping[str, str]) -> str:
    """Commands for a POSIX shell that turn the environment `old` into one with `new`."""
    stale = {pair.split("=", 1)[0] for pair in old.get(MARK, "").split()} - set(new)
    lines = [f"unset {name}" for name in sorted(stale) if name not in own(old)]
    lines += [f"export {name}={shlex.quote(value)}" for name, value in new.items()]
    lines.append(f"export {MARK}={shlex.quote(mark(new))}")
    return "\n".join(lines)


def asking_first(project: Project) -> str:
    """A function `pulumi` for bash and zsh: it looks at the stack's Vault first, for the engine would not, and after a
    `destroy` at what that leaves in the state; see `by_hand`."""
    root, python = shlex.quote(str(project.root)), shlex.quote(str(project.python))
    module = f"(CDPATH= cd -- {root} && exec {python} -m bootstrap.by_hand"
    ask, tidy = (f'{module} {when} "$OLDPWD" "$@")' for when in ("before", "after"))
    destroys = "|".join(f'*" {word} "*' for word in ("destroy", "down", "dn"))
    # "function", for an alias of that name would be put in the place of a word that is followed by parentheses.
    return f'function pulumi {{ {ask} && command pulumi "$@" && case " $* " in {destroys}) {tidy} ;; esac; }}'


def mark(new: Mapping[str, str]) -> str:
    return " ".join(f"{name}={_digest(value)}" for name, value in new.items() if name != "PATH")


def _login(environ: Mapping[str, str]) -> Path:
    return Path(environ.get("PULUMI_CREDENTIALS_PATH") or own_home(environ))


def _path(first: Iterable[Path], path: str, last: Iterable[Path]) -> str:
    before, after = [str(place) for place in first], [str(place) for place in last]
    return os.pathsep.join(before + [place for place in path.split(os.pathsep) if place not in before + after] + after)


def _vault(project: Project, module: str) -> dict[str, str]:
    """Address, CA and token of the embedded Vault; nothing where none was made."""
    done = subprocess.run(
        [project.python, "-m", module, "env"], cwd=project.root, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise BootstrapError(done.stderr.strip())
    words = (shlex.split(line) for line in done.stdout.splitlines())
    return dict(pair.split("=", 1) for export, pair in words if export == "export")


def _digest(value: str) -> str:
    return hashlib.sha256(value.encode()).hexdigest()[:12]
