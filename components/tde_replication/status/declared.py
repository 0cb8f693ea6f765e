"""What a stack file declares, read without Pulumi's engine, its state or its lock."""

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pulumi
import yaml
from pulumi.runtime import Settings, configure, set_all_config

from tde_replication import credentials, hosts, stack_file
from tde_replication.errors import UserError
from tde_replication.hosts.placement import Placement, PlacementContext
from tde_replication.parallel import parallel_map
from tde_replication.settings import Cluster, Server
from tde_replication.vault import configuration as vault
from tde_replication.vault.address import VaultAddress

DEADLINE = 30.0
"""Seconds for Pulumi to decrypt the configuration."""


@dataclass(frozen=True)
class DeclaredServer:
    name: str
    is_primary: bool
    placement: Placement | None
    """None where its place cannot be told."""
    problem: str = ""
    """Why."""
    upstream: str | None = None
    """Of a standby: the server that it is to stream from."""


@dataclass(frozen=True)
class Declared:
    directory: Path
    """The Pulumi project's."""
    stack: str
    cluster: Cluster
    servers: tuple[DeclaredServer, ...]
    vault: VaultAddress | None
    vault_problem: str = ""
    """Why no token may be sent to the Vault, or it cannot be asked."""


def declared(stack: str, directory: Path) -> Declared:
    """The cluster of a stack of the Pulumi project that `directory` lies in. Raises `UserError` with what is wrong there."""
    root, project = _project(directory)
    path = root / str(project.get("stackConfigDir", "")) / f"Pulumi.{stack}.yaml"
    source = str(path.relative_to(root))
    config = _yaml(path, f"there is no {source}: set STACK, or --stack, to the name of a stack").get("config") or {}
    name = str(project.get("name", ""))
    problem = _use(root, name, stack, config if isinstance(config, Mapping) else {})
    document = config.get(f"{name}:cluster") if isinstance(config, Mapping) else None
    cluster = stack_file.parse(source, {} if document is None else document)
    return Declared(root, stack, cluster, _servers(cluster, name, stack), *_vault(cluster, problem))


def _project(directory: Path) -> tuple[Path, dict[str, Any]]:
    for place in (directory, *directory.parents):
        if (place / "Pulumi.yaml").exists():
            return place, _yaml(place / "Pulumi.yaml", "")
    raise UserError(
        f"there is no Pulumi.yaml in {directory} or above it: run this in the directory of a Pulumi project"
    )


def _yaml(path: Path, absent: str) -> dict[str, Any]:
    try:
        found = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise UserError(absent) from None
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise UserError(f"{path.name} cannot be read: {' '.join(str(error).split())[:300]}") from None
    if not isinstance(found, dict):
        raise UserError(f"{path.name} is not a mapping")
    return found


def _use(root: Path, project: str, stack: str, config: Mapping[str, Any]) -> str:
    """Let all of the package find the stack's configuration, as it does in a Pulumi program. Returns what could not be read."""
    secret = {str(key) for key, value in config.items() if isinstance(value, dict) and "secure" in value}
    texts = {
        str(key): value if isinstance(value, str) else json.dumps(value)
        for key, value in config.items()
        if str(key) not in secret
    }
    problem = ""
    if secret:
        try:
            texts |= _decrypted(root, stack, secret)
        except UserError as why:
            problem = str(why)
    configure(Settings(project, stack))
    set_all_config(texts, sorted(secret))
    credentials.configure(pulumi.Config(project).get)
    return problem


def _decrypted(root: Path, stack: str, secret: set[str]) -> dict[str, str]:
    command = ["pulumi", "config", "--json", "--show-secrets", "--non-interactive", "--stack", stack]
    failed = "the stack file has encrypted values, and `pulumi config` cannot decrypt them"
    try:
        done = subprocess.run(
            command, cwd=root, env=os.environ, capture_output=True, text=True, timeout=DEADLINE, check=False
        )
        if done.returncode:
            raise UserError(f"{failed}: {done.stderr.strip()[-300:]}")
        found = json.loads(done.stdout)
        return {key: str(found[key]["value"]) for key in secret if key in found}
    except (OSError, subprocess.TimeoutExpired):
        raise UserError(f"{failed}: it cannot be run, or does not end") from None
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{failed}: its output is not as expected") from None


def _servers(cluster: Cluster, project: str, stack: str) -> tuple[DeclaredServer, ...]:
    context = PlacementContext(project, stack, stack, cluster.vault.network)

    def place(server: Server) -> DeclaredServer:
        is_primary = server.name == cluster.primary
        upstream = None if is_primary else cluster.upstream(server).name
        try:
            found = hosts.resolve_placement(server, cluster.port(server), context)
        except UserError as why:
            return DeclaredServer(server.name, is_primary, None, str(why), upstream)
        return DeclaredServer(server.name, is_primary, found, upstream=upstream)

    return tuple(parallel_map(place, cluster.members))


def _vault(cluster: Cluster, problem: str) -> tuple[VaultAddress | None, str]:
    """The Vault, if it can be asked now; else why not. Rules for where a token may go are those of `vault.configuration`."""
    if problem:
        return None, problem
    if mistakes := vault.missing():
        return None, "; ".join(mistakes)
    try:
        found = vault.configured(cluster.vault.ca)
    except UserError as why:
        return None, str(why)
    return replace(found, namespace=cluster.vault.namespace or found.namespace), ""
