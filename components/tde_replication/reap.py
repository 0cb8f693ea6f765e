"""python -m tde_replication.reap: destroy the stacks of a Pulumi project whose clusters have expired, and no others.

What counts is what the state says, and what the stack file says now, where it declares a cluster: both must say that the
cluster is disposable and that its time has come. Exit status 0; 1 where a stack could not be looked at or destroyed.
"""

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from tde_replication.errors import UserError, escaped
from tde_replication.postgres.expiry import minute
from tde_replication.values import length

CLUSTER = "tde:index:EncryptedReplication"
EXPIRY = "pulumi-python:dynamic/postgres:Expiry"
DIRECTORY = "pulumi-python:dynamic/postgres:DataDirectory"
ADOPTED = "adopted"
"""The origin of a data directory that the stack did not make."""
MOUNT = "vault:index/mount:Mount"
PLURALS = {"server": "servers", "data directory": "data directories", "Vault mount": "Vault mounts"}
LEFT = re.compile(r"(?:left behind: |a killed `up` was making ).*")
AROUND = ("pulumi:pulumi:Stack", "pulumi:providers:")
"""What a stack has besides clusters, without being anything by itself."""

Destroy = Callable[[str], subprocess.CompletedProcess[str]]
"""Takes a stack away by its name, with its state."""


@dataclass(frozen=True)
class Verdict:
    due: bool
    why: str


def judge(resources: Sequence[Mapping[str, Any]], declared: Mapping[str, Any] | None, now: datetime) -> Verdict:
    """Whether a stack is to be destroyed now.

    `resources` are those of its state; `declared` is the cluster of its stack file, None where that declares none.
    """
    if not resources:
        return Verdict(due=False, why="it has no resources")
    if why := _kept(resources) or (declared is not None and _kept_by_file(declared)):
        return Verdict(due=False, why=str(why))
    expiries = [one["outputs"] for one in resources if one["type"] == EXPIRY]
    times = [datetime.fromisoformat(one["expiresAt"]) for one in expiries]
    if declared is not None:
        times += [datetime.fromisoformat(one["madeAt"]) + length(declared["expires"]) for one in expiries]
    last = max(times)
    return Verdict(due=last <= now, why=f"{'expired' if last <= now else 'expires'} {minute(last)}")


def _kept(resources: Sequence[Mapping[str, Any]]) -> str:
    """What in the state keeps the stack, whatever the time is; empty: nothing."""
    clusters = [one["urn"] for one in resources if one["type"] == CLUSTER]
    expiring = {one.get("parent") for one in resources if one["type"] == EXPIRY}
    if not clusters or not expiring.issuperset(clusters):
        return "it does not expire"
    parents = {one["urn"]: one.get("parent", "") for one in resources}
    for one in resources:
        name = one["urn"].rpartition("::")[2]
        if not one["type"].startswith(AROUND) and not _is_in(one["urn"], parents, clusters):
            return f"it has {one['type']} {name} too, which does not expire"
        if one.get("inputs", {}).get("disposable") is False:
            return f"{name} is not disposable in its state"
        if one.get("protect"):
            return f"{name} is protected"
    return ""


def _is_in(urn: str, parents: Mapping[str, str], clusters: Sequence[str]) -> bool:
    while urn and urn not in clusters:
        urn = parents.get(urn, "")
    return bool(urn)


def _kept_by_file(declared: Mapping[str, Any]) -> str:
    if declared.get("disposable") is not True:
        return "its stack file does not say that it is disposable"
    return "" if declared.get("expires") else "its stack file does not say that it expires"


def reap(project: Path, destroy: Destroy, *, now: datetime | None = None) -> int:
    """Look at every stack of the project in `project`, and print a line for each. The exit status."""
    failed = False
    for stack in _stacks(project):
        try:
            resources = _resources(project, stack)
            verdict = judge(resources, _declared(project, stack), now or datetime.now(UTC))
        except UserError as problem:
            failed, line = True, f"FAILED: {problem}"
        else:
            line = f"left: {verdict.why}"
            done = destroy(stack) if verdict.due else None
            if done and done.returncode:
                failed, line = (
                    True,
                    f"FAILED: {verdict.why}, and was not destroyed:\n{(done.stdout + done.stderr).strip()}",
                )
            elif done:
                line = "\n  ".join([f"destroyed: {verdict.why}; {gone(resources)}", *_left(done.stdout + done.stderr)])
        sys.stdout.write(escaped(f"{stack}  {line}\n"))
        sys.stdout.flush()
    return int(failed)


def gone(resources: Sequence[Mapping[str, Any]]) -> str:
    """What a stack had that goes with it, by its state. An adopted server stays."""
    outputs = [(one["type"], one.get("inputs", {}) | one.get("outputs", {})) for one in resources]
    directories = [of for kind, of in outputs if kind == DIRECTORY and of.get("origin") != ADOPTED]
    found = {
        "server": [str(of.get("name")) for of in directories],
        "data directory": [str(of.get("dataDirectory")) for of in directories],
        "Vault mount": [str(of.get("path")) for kind, of in outputs if kind == MOUNT],
    }
    told = [
        f"{len(names)} {word if len(names) == 1 else PLURALS[word]} ({', '.join(names)})"
        for word, names in found.items()
        if names
    ]
    return f"with it {', '.join(told)}" if told else "it had no server"


def _left(output: str) -> list[str]:
    """What a destroy says that somebody has to look after, each line once."""
    return list(dict.fromkeys(found[0].strip() for found in LEFT.finditer(output)))


def pulumi(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run it without a question."""
    command = ["pulumi", "--non-interactive", *arguments]
    return subprocess.run(command, cwd=project, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)


def remove(project: Path, stack: str) -> subprocess.CompletedProcess[str]:
    """Destroy a stack, and forget it. Its configuration stays: it may be committed."""
    done = pulumi(project, "destroy", "--yes", "--skip-preview", "--stack", stack)
    return done if done.returncode else forget(project, stack, done)


def forget(project: Path, stack: str, destroyed: subprocess.CompletedProcess[str]) -> subprocess.CompletedProcess[str]:
    """Remove a stack that is destroyed from its backend; both have said something."""
    done = pulumi(project, "stack", "rm", stack, "--yes", "--preserve-config")
    said = destroyed.stdout + done.stdout, destroyed.stderr + done.stderr
    return subprocess.CompletedProcess(done.args, done.returncode, *said)


def _stacks(project: Path) -> list[str]:
    return sorted(one["name"] for one in _document(project, "stack", "ls", "--json"))


def _resources(project: Path, stack: str) -> list[dict[str, Any]]:
    found = _document(project, "stack", "export", "--stack", stack)
    return list((found.get("deployment") or {}).get("resources") or [])


def _document(project: Path, *arguments: str) -> Any:
    done = pulumi(project, *arguments)
    if done.returncode:
        raise UserError(f"pulumi {arguments[0]} {arguments[1]} failed: {done.stderr.strip()}")
    return json.loads(done.stdout)


def _declared(project: Path, stack: str) -> Mapping[str, Any] | None:
    """The cluster of its stack file; None where there is no file, or a program of one's own that does not take it from there."""
    settings = yaml.safe_load((project / "Pulumi.yaml").read_text())
    file = project / str(settings.get("stackConfigDir", "")) / f"Pulumi.{stack.rpartition('/')[2]}.yaml"
    if not file.exists():
        return None
    try:
        config = (yaml.safe_load(file.read_text()) or {}).get("config") or {}
        cluster = config.get(f"{settings['name']}:cluster")
        cluster = json.loads(cluster) if isinstance(cluster, str) else cluster
        if isinstance(cluster, Mapping) and cluster.get("expires"):
            length(str(cluster["expires"]))
    except (OSError, ValueError, AttributeError, KeyError, OverflowError, yaml.YAMLError):
        raise UserError(f"{file.relative_to(project)} cannot be read: make preview says why") from None
    return cluster if isinstance(cluster, Mapping) else None


def options(arguments: Sequence[str]) -> None:
    """There are none."""
    parser = argparse.ArgumentParser(
        prog="python -m tde_replication.reap", description="Destroy the stacks of this project that have expired."
    )
    parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    options(arguments)
    project = Path.cwd()
    if not (project / "Pulumi.yaml").exists():
        raise UserError("there is no Pulumi.yaml here: run this in the directory of a Pulumi project")
    return reap(project, lambda stack: remove(project, stack))


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except UserError as error:
        sys.exit(f"error: {error}")
