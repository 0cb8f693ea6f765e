"""Why a machine runs nothing for us: what ssh, sudo or a login shell say, as a sentence for a person."""

import re
import subprocess

from tde_replication.errors import AccessDenied, Unavailable, UserError
from tde_replication.hosts.ssh import sudo
from tde_replication.hosts.ssh.login import CONNECT_SECONDS, Login, environment

SSH_FAILED = 255

REASONS: tuple[tuple[str, type[UserError], str], ...] = (
    (
        "IDENTIFICATION HAS CHANGED",
        AccessDenied,
        (
            "{host} shows another host key than the one known for it: nothing was sent to it. If the machine was rebuilt, put "
            "its new key into known_hosts in place of the old one, once you have compared its fingerprint"
        ),
    ),
    (
        "host key is known for|Host key verification failed",
        AccessDenied,
        (
            "the host key of {host} is not in known_hosts: nothing was sent to it. Put it there (ssh-keyscan shows it), once you "
            "have compared its fingerprint"
        ),
    ),
    (
        r"Permission denied \(([^)]*)\)",
        AccessDenied,
        "{host} denies access to {user} ({0}): load the right key into the agent, or name its file in the host's `key`",
    ),
    (
        "Too many authentication failures",
        AccessDenied,
        "{host} was offered too many keys: name the one in the host's `key`",
    ),
    (
        "sudo: a (?:password|terminal) is required|sudo: sorry, you must have a tty",
        AccessDenied,
        (
            "sudo on {host} asks {user} for a password: allow `{user} ALL=({account}) NOPASSWD: ALL` in its "
            f"sudoers, or give the password of {{user}} on this machine ({sudo.HOW.replace('{', '{{').replace('}', '}}')})"
        ),
    ),
    (
        r"incorrect password attempt|Sorry, try again|no password was provided",
        AccessDenied,
        (
            f"sudo on {{host}} rejects the password of {{user}} ({sudo.ENVIRONMENT}, tde-replication:{sudo.SETTING}): it "
            "was tried once, and is not tried again"
        ),
    ),
    (
        "is not allowed to (?:execute|run sudo)|not in the sudoers file|may not run sudo",
        AccessDenied,
        "sudo on {host} does not let {user} become {account}: allow `{user} ALL=({account}) NOPASSWD: ALL` in its sudoers",
    ),
    (
        r"sudo: unknown user:? (\S+)|runuser: user (\S+) does not exist",
        AccessDenied,
        "there is no account {account} on {host}",
    ),
    ("sudo.*(?:not found|No such file)", AccessDenied, "there is no sudo on {host}, and {user} is not {account}"),
)


def refusal(login: Login, code: int, said: str, account: str | None = None) -> UserError:
    """Why nothing ran as `account`: what ssh, sudo or the login shell `said` before it ended with `code`."""
    for pattern, kind, sentence in REASONS:
        if found := re.search(pattern, said):
            values = {"host": str(login), "account": account or login.account, "user": login.user or "this user"}
            return kind(sentence.format(*found.groups(), **values))
    last = next((line.strip() for line in reversed(said.splitlines()) if line.strip()), "it printed nothing")
    if code == SSH_FAILED:
        return _on_the_way(login) or Unavailable(f"{login} cannot be reached: {last}")
    return UserError(f"the login {login.login} runs no commands (status {code}): {last}")


def _on_the_way(login: Login) -> UserError | None:
    """What a jump host says against us: ssh keeps that to itself where connections are shared."""
    if not login.jump:
        return None
    *before, last = login.jump
    hop = login.hop(last, *before)
    command = ["ssh", *hop.options(), "--", hop.host, "exit"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment(), timeout=2 * CONNECT_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return Unavailable(f"{hop}, on the way to {login}, does not answer")
    if done.returncode != SSH_FAILED:
        return None  # it lets us in, whatever it says to a command
    reason = refusal(hop, SSH_FAILED, done.stderr)
    return type(reason)(f"on the way to {login}: {reason}")
