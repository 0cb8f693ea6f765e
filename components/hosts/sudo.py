"""The password that sudo asks a login for, where it asks for one: the same on all machines of a stack.

It goes to sudo over standard input (sudo(8), *-S*), ahead of everything else. A sudo that needs none leaves that line where it
is, so what runs behind it passes over all lines up to `BEGIN`.
"""

import os
from typing import ClassVar

from components.errors import Problem

ENVIRONMENT = "TDE_REPLICATION_SUDO_PASSWORD"
SETTING = "sudoPassword"
"""Of the stack's configuration, ``tde-replication:sudoPassword``."""
BEGIN = "tde-replication begins:"
SKIP = f'while read -r line; do case $line in "{BEGIN}"*) break;; esac; done'
"""What a shell reads before its own input; POSIX `read` takes no byte beyond the line. It holds no single quote."""


class _Configured:
    password: ClassVar[str | None] = None


def configure(found: str | None) -> None:
    """Take the password from the stack's configuration; the environment's goes before it."""
    _Configured.password = found or None


def password() -> str | None:
    """None where sudo is expected to ask for none. Raises `Problem` for one that cannot be typed."""
    found = os.environ.get(ENVIRONMENT) or _Configured.password
    if found and ("\n" in found or "\0" in found):
        raise Problem(f"the password for sudo ({ENVIRONMENT}, tde-replication:{SETTING}) cannot hold a line break")
    return found


def command(account: str) -> str:
    """What makes a command behind it run as `account`."""
    return f"sudo -S -p '' -u {account} -- " if password() else f"sudo -n -u {account} -- "


def answer() -> str:
    """What sudo is to read, whether or not it does."""
    found = password()
    return f"{found}\n" if found else ""
