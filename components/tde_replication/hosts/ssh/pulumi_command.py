"""How pulumi-command reaches a machine: the same way as our own ssh goes, as far as it can."""

import os
import re
import subprocess
from pathlib import Path
from typing import Any

from tde_replication.errors import UserError
from tde_replication.hosts.account import PROJECT
from tde_replication.hosts.ssh.login import Login, connection_settings, known_host_keys

DIAL_ATTEMPTS = 6
"""A default sshd drops some of ten logins at once (MaxStartups), in a few cases three times in a row."""


HOST_KEYS = ("ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "ssh-rsa", "ssh-ed25519")


"""In the order in which pulumi-command's ssh wants them of a host."""


def through(login: Login) -> Login | None:
    """The jump host on the way: the stack file's, else the one of the user's own ssh configuration."""
    if login.jump:
        return login.hop(login.jump[0])
    settings = connection_settings(login)
    if "proxycommand" in settings:
        raise UserError(
            f"pulumi-command, which prepares the machine, takes no ProxyCommand, as your ssh configuration has it for "
            f"{login}: name a jump host there (ProxyJump), or in host.jump"
        )
    *before, last = settings.get("proxyjump", ["none"])[0].split(",")
    if before:
        raise UserError(
            f"pulumi-command, which prepares the machine, goes through one jump host, and your ssh configuration names "
            f"{len(before) + 1} on the way to {login}"
        )
    # With nothing of the stack file's: so does ssh itself go there. (It shows an IPv4 address in brackets too.)
    return None if last == "none" else Login(login.host).hop(re.sub(r"\[([^]:]+)\]", r"\1", last))


def reached(login: Login) -> dict[str, Any]:
    """pulumi-command's connection to one machine, as the user's own ssh would make it. A private key in it is a secret."""
    settings = connection_settings(login)
    found: dict[str, Any] = {
        "host": settings["hostname"][0],
        "port": int(settings["port"][0]),
        "user": settings["user"][0],
        "host_key": _host_key(settings),
        "dial_error_limit": DIAL_ATTEMPTS,
    }
    if key := _private_key(login, settings):
        found["private_key"] = key
    return found


def _host_key(settings: dict[str, list[str]]) -> str:
    """The key that known_hosts has; "", which matches none, for an unknown host: without one, any would be believed."""
    known = known_host_keys(settings)
    return next((known[kind] for kind in HOST_KEYS if kind in known), "")


def _private_key(login: Login, settings: dict[str, list[str]]) -> str | None:
    """The content of the key file that ssh would use; None where the agent has the key (then none gets into the state)."""
    if login.certificate or (not login.key and _in_agent()):
        return None
    for file in settings.get("identityfile", []):
        path = Path(file).expanduser()
        if not path.exists():
            continue
        command = ["ssh-keygen", "-y", "-P", "", "-f", str(path)]
        if subprocess.run(command, capture_output=True, check=False).returncode == 0:  # it has no passphrase
            return path.read_text()
    return None


def _in_agent() -> set[str]:
    """The keys and certificates that the agent holds, in base 64; none where there is no agent."""
    if "SSH_AUTH_SOCK" not in os.environ:
        return set()
    command = ["ssh-add", "-L"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return {line.split()[1] for line in done.stdout.splitlines()} if done.returncode == 0 else set()


def agent_holds(certificate: str) -> bool:
    path = PROJECT / Path(certificate).expanduser()
    try:
        _, content, *_ = path.read_text().split()
    except (OSError, ValueError):
        raise UserError(f"host.certificate: {path} is not a readable certificate") from None
    return content in _in_agent()
