"""How long the servers' Vault tokens live. Vault is asked by a token's accessor, which opens nothing; the state has it."""

import json
import subprocess
from typing import Any

from tde_replication.errors import UserError
from tde_replication.status.declared import Declared
from tde_replication.status.model import Token
from tde_replication.vault.client import Client, Rejected

DEADLINE = 30.0
"""Seconds for Pulumi to export the state."""
TOKEN_TYPE = "dynamic/vault:Token"  # noqa: S105 - a type of resource


def tokens(declared: Declared) -> dict[str, Token]:
    """By server; each says why, where its time is not known. Nothing is sent where the Vault may not be given a token."""
    names = [server.name for server in declared.servers]
    if declared.vault is None:
        return dict.fromkeys(names, Token(problem=declared.vault_problem))
    try:
        accessors = _accessors(declared)
    except UserError as why:
        return dict.fromkeys(names, Token(problem=str(why)))
    client = declared.vault.client
    return {name: _token(client, accessors.get(name)) for name in names}


def _token(client: Client, accessor: str | None) -> Token:
    if not accessor:
        return Token(problem="Pulumi's state has no token for it")
    try:
        data = client.post("auth/token/lookup-accessor", {"accessor": accessor}).get("data")
    except Rejected:  # "invalid accessor": revoked or expired
        return Token(gone=True)
    except UserError as why:
        return Token(problem=str(why))
    left, period = (data.get("ttl"), data.get("period")) if isinstance(data, dict) else (None, None)
    if not isinstance(left, int):
        return Token(problem="Vault does not report its time")
    return Token(seconds_left=left, period=period if isinstance(period, int) else None)


def _accessors(declared: Declared) -> dict[str, str]:
    """From Pulumi's state, which an export neither locks nor decrypts."""
    command = ["pulumi", "stack", "export", "--non-interactive", "--stack", declared.stack]
    failed = "`pulumi stack export`, for the accessors of the tokens,"
    try:
        done = subprocess.run(
            command, cwd=declared.directory, capture_output=True, text=True, timeout=DEADLINE, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        raise UserError(f"{failed} cannot be run, or does not end") from None
    if done.returncode:
        raise UserError(f"{failed} failed: {done.stderr.strip()[-300:]}")
    try:
        resources = json.loads(done.stdout)["deployment"].get("resources") or []
        found = (_accessor(resource) for resource in resources)
        return dict(one for one in found if one)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{failed} gave no state") from None


def _accessor(resource: dict[str, Any]) -> tuple[str, str] | None:
    outputs = resource.get("outputs") or {}
    if not str(resource.get("type", "")).endswith(TOKEN_TYPE) or resource.get("delete"):
        return None
    server, accessor = outputs.get("server"), outputs.get("accessor")
    return (server, accessor) if isinstance(server, str) and isinstance(accessor, str) else None
