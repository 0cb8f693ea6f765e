"""Passwords that sudo asks logins for, each bound to one machine: a machine that was taken over reads what is sent to it.

A password stands beside its machine's line of known_hosts, in a value that is encrypted or in the environment. So neither a name
nor a key file that somebody proposes in a stack file leads it elsewhere.

It goes to sudo over standard input (sudo(8), *-S*), ahead of everything else. A sudo that needs none leaves that line where it
is, so what runs behind it passes over all lines up to `BEGIN`.
"""

import json
import os
from dataclasses import dataclass, field
from functools import cache

from tde_replication.credentials import configured
from tde_replication.errors import UserError
from tde_replication.host_keys import is_key

ENVIRONMENT = "TDE_REPLICATION_SUDO_PASSWORD"
SETTING = "sudoPassword"
"""Of the stack's configuration, ``tde-replication:sudoPassword``."""
BEGIN = "tde-replication begins:"
SKIP = f'while read -r line; do case $line in "{BEGIN}"*) break;; esac; done'
"""What a shell reads before its own input; POSIX `read` takes no byte beyond the line. It holds no single quote."""
EXAMPLE = '{"db1.example.net ssh-ed25519 AAAA…": "the password"}'
HOW = f"`pulumi config set --secret tde-replication:{SETTING} '{EXAMPLE}'`, or {ENVIRONMENT}"
PORT = 22


@dataclass(frozen=True)
class Password:
    """One machine's."""

    value: str = field(repr=False)
    host_key: str
    """The key that the machine must show before it is sent: its kind, and base 64."""


def password(host: str, port: int | None) -> Password | None:
    """None where sudo is expected to ask for none. The environment's go before the configuration's.

    Raises `UserError` for passwords that cannot be read.
    """
    name = host if port in {None, PORT} else f"[{host}]:{port}"
    sources = {ENVIRONMENT: os.environ.get(ENVIRONMENT), f"tde-replication:{SETTING}": configured(SETTING)}
    found = [_read(text, where).get(name) for where, text in sources.items() if text]
    return next((one for one in found if one), None)


def mistakes(*, secret: bool) -> list[str]:
    """What is wrong with them; `secret`: whether the stack file has them encrypted."""
    found = []
    if configured(SETTING) and not secret:
        found.append(f"{SETTING}: the stack file has it in clear: {HOW}")
    try:
        password("", None)
    except UserError as problem:
        found.append(str(problem))
    return found


@cache
def _read(text: str, where: str) -> dict[str, Password]:
    """By the machine's name in known_hosts. No error quotes the text: it holds passwords."""
    try:
        lines = json.loads(text)
    except ValueError:
        lines = None
    if not isinstance(lines, dict):
        raise UserError(
            f"{where}: one password for all machines would be sent to each, also to one that was taken over. Bind each to its "
            f"machine's line of known_hosts: {HOW}"
        )
    found: dict[str, Password] = {}
    for number, (line, value) in enumerate(lines.items(), start=1):
        names, _, key = line.strip().partition(" ")
        key = " ".join(key.split()[:2])
        if not is_key(key) or any(char in names for char in "*?!|"):
            raise UserError(
                f"{where}: its line {number} does not name a machine and a host key as known_hosts does: write {EXAMPLE}"
            )
        if not isinstance(value, str) or not value or "\n" in value or "\0" in value:
            raise UserError(f"{where}: the password in its line {number} must be a text on one line")
        found |= dict.fromkeys(names.split(","), Password(value, key))
    return found


def command(account: str, *, asked: bool) -> str:
    """What makes a command behind it run as `account`; `asked`: it may ask for the password."""
    return f"sudo -S -p '' -u {account} -- " if asked else f"sudo -n -u {account} -- "
