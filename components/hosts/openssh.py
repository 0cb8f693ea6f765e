"""One machine's shell through OpenSSH's `ssh`: how a script runs there, and what its errors mean.

Every script goes over standard input of one constant remote command, so that nothing of a stack's settings is in an argument
list or in the log of sudo, and so that it does not matter what the login shell is (sshd hands it that command: fish and csh
read it as sh does). What the login shell's own files print comes before a marker, and is left out.

Connections are shared (ssh_config(5), *ControlMaster*): the first command of a host connects, and its master process ends
by itself when it was idle for a minute.
"""

import base64
import hashlib
import os
import re
import secrets
import shlex
import signal
import stat
import subprocess
import tempfile
import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, cast

from components.errors import CommandFailed, NoEntry, Problem, Unavailable
from components.hosts import sudo
from components.hosts.login import CONNECT_SECONDS, Login, environment

IDLE_SECONDS = 60
ATTEMPT_SECONDS = 60
SSH_FAILED = 255

# What follows its line on standard input is left for the script.
RECEIVE = f"""/bin/sh -c '{sudo.SKIP}; eval "$(echo "${{line#*:}}" | base64 -d)"'"""
FRAME = """\
unset LANGUAGE
export LC_ALL=C.UTF-8 TZ=UTC PATH=/usr/bin:/bin:/usr/sbin:/sbin
cd /
echo {marker}; echo {marker} >&2
set -- {arguments}
(
{script}
)
echo {marker} $? >&2
"""


@dataclass(frozen=True)
class Ended:
    """A script that ran to its end; `output` and `errors` are its own, without anything that the login printed."""

    status: int
    output: bytes
    errors: str


@dataclass(frozen=True)
class Shell:
    """Runs scripts on the machine that `login` names."""

    login: Login

    @cached_property
    def _command(self) -> list[str]:
        words = self.login.options()
        digest = hashlib.sha256("\0".join([*words, self.login.host]).encode()).hexdigest()[:16]
        sharing = {"ControlMaster": "auto", "ControlPersist": str(IDLE_SECONDS), "ControlPath": control() / digest}
        return ["ssh", *words, *(f"-o{name}={value}" for name, value in sharing.items()), "--", self.login.host]

    def start(
        self,
        script: str,
        arguments: Sequence[str],
        marker: str,
        *,
        as_login: bool = False,
        errors: int = subprocess.PIPE,
    ) -> subprocess.Popen[bytes]:
        """Start `script` with `arguments` as "$1" and so on, as the account (or as the login itself).

        On both output streams a line `marker` comes before what is the script's own; on standard error it comes again behind
        it, with the exit status.
        """
        account = self.login.account
        become = "" if as_login else self.login.become(account)
        answer = "" if as_login else self.answer(account)
        text = FRAME.format(marker=marker, script=script, arguments=shlex.join(arguments))
        try:
            child = subprocess.Popen(
                [*self._command, f"exec env -u LANGUAGE LC_ALL=C {become}{RECEIVE}"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment(),
                start_new_session=True,
            )
        except FileNotFoundError:
            raise Problem("there is no ssh on this machine: install OpenSSH's client") from None
        with suppress(BrokenPipeError):  # what went wrong is on standard error
            stdin = cast("IO[bytes]", child.stdin)
            stdin.write(f"{answer}{sudo.BEGIN}".encode() + base64.b64encode(text.encode()) + b"\n")
            stdin.flush()
        return child

    def execute(
        self,
        script: str,
        *arguments: str,
        deadline: float,
        content: bytes | None = None,
        on_line: Callable[[str], None] | None = None,
        as_login: bool = False,
    ) -> Ended:
        """Run `script` to its end.

        Its standard input is `content`; without any, it stays open until the end, so that the script can tell when nobody
        waits for it any more. Raises `Unavailable` where the machine cannot be reached or the connection breaks, `Problem`
        where it lets nobody in, `TimeoutError` after `deadline` seconds.
        """
        marker = f"--{secrets.token_hex(8)}--"
        child = self.start(script, arguments, marker, as_login=as_login)
        stdin, stdout, stderr = (cast("IO[bytes]", stream) for stream in (child.stdin, child.stdout, child.stderr))
        late = threading.Event()

        def give_up() -> None:
            late.set()
            os.killpg(child.pid, signal.SIGKILL)

        timer = threading.Timer(deadline, give_up)
        timer.start()
        output: list[bytes] = []
        reader = threading.Thread(target=lambda: output.append(stdout.read()))
        reader.start()
        errors = Errors(marker, on_line)
        try:
            if content is not None:
                with suppress(BrokenPipeError):
                    stdin.write(content)
                    stdin.close()
            for line in stderr:
                errors.take(line.decode(errors="replace"))
            code = child.wait()
            reader.join()
        finally:
            timer.cancel()
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
            for stream in (stdin, stdout, stderr):
                with suppress(BrokenPipeError):
                    stream.close()
        if late.is_set() and not errors.begun:
            raise Unavailable(f"{self.login} did not answer within {deadline:g} s")
        if late.is_set():
            raise TimeoutError
        if not errors.begun:
            raise self.refusal(code, errors.before)
        if errors.status is None:
            raise Unavailable(f"the connection to {self.login} broke while a command ran there")
        return Ended(errors.status, b"".join(output).partition(f"{marker}\n".encode())[2], "".join(errors.own))

    def answer(self, account: str) -> str:
        """What sudo is to read on the way to `account`, whether or not it does; empty where it will ask for nothing.

        At first the password goes there alone, so that a wrong one is one failed attempt: with more on standard input, sudo would
        try that too, and each command again, until the machine locks the login out. Raises what `refusal` makes of it.
        """
        if not self.login.asks(account):
            return ""
        key = (self.login, account)
        with _PROOFS_LOCKS[key]:
            if key not in _PROOFS:
                _PROOFS[key] = self._attempt(account)
        if refused := _PROOFS[key]:
            raise type(refused)(str(refused))
        return sudo.answer()

    def _attempt(self, account: str) -> Problem | None:
        """Why sudo does not let the login become `account` by the password; None where it does. Raises `Unavailable`."""
        try:
            done = subprocess.run(
                [*self._command, f"exec env -u LANGUAGE LC_ALL=C {self.login.become(account)}/bin/sh -c :"],
                input=sudo.answer().encode(),
                capture_output=True,
                env=environment(),
                timeout=ATTEMPT_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise Unavailable(f"{self.login} did not answer within {ATTEMPT_SECONDS:g} s") from None
        if not done.returncode:
            return None
        refused = self.refusal(done.returncode, done.stderr.decode(errors="replace"), account)
        if isinstance(refused, Unavailable):
            raise refused
        return refused

    def refusal(self, code: int, said: str, account: str | None = None) -> Problem:
        """Why nothing ran as `account`: what ssh, sudo or the login shell `said` before it ended with `code`."""
        login = self.login
        for pattern, kind, sentence in REASONS:
            if found := re.search(pattern, said):
                values = {"host": str(login), "account": account or login.account, "user": login.user or "this user"}
                return kind(sentence.format(*found.groups(), **values))
        last = next((line.strip() for line in reversed(said.splitlines()) if line.strip()), "it said nothing")
        if code == SSH_FAILED:
            return self._on_the_way() or Unavailable(f"{login} cannot be reached: {last}")
        return Problem(f"the login {login.login} runs no commands (status {code}): {last}")

    def _on_the_way(self) -> Problem | None:
        """What a jump host says against us: ssh keeps that to itself where connections are shared."""
        if not self.login.jump:
            return None
        *before, last = self.login.jump
        hop = self.login.hop(last, *before)
        command = ["ssh", *hop.options(), "--", hop.host, "exit"]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, env=environment(), timeout=2 * CONNECT_SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            return Unavailable(f"{hop}, on the way to {self.login}, does not answer")
        if done.returncode != SSH_FAILED:
            return None  # it lets us in, whatever it says to a command
        reason = Shell(hop).refusal(SSH_FAILED, done.stderr)
        return type(reason)(f"on the way to {self.login}: {reason}")


class Errors:
    """Standard error of a script, taken apart: what came `before` it, its `own` lines, and its exit status."""

    def __init__(self, marker: str, on_line: Callable[[str], None] | None) -> None:
        self._marker = marker
        self._on_line = on_line
        self.before = ""
        self.own: list[str] = []
        self.begun = False
        self.status: int | None = None

    def take(self, line: str) -> None:
        text, found, after = line.partition(self._marker)
        if not self.begun:
            self.before += text
            self.begun = bool(found)
        elif self.status is None:
            if found:
                self.status = int(after)
            if text:
                self.own.append(text)
                if self._on_line:
                    self._on_line(text.rstrip("\r\n"))


_PROOFS: dict[tuple[Login, str], Problem | None] = {}
"""By login and account: what became of the password, once it was tried."""
_PROOFS_LOCKS: defaultdict[tuple[Login, str], threading.Lock] = defaultdict(threading.Lock)
"""A machine that does not answer holds up nobody but who asks for it."""

REASONS: tuple[tuple[str, type[Problem], str], ...] = (
    (
        "IDENTIFICATION HAS CHANGED",
        NoEntry,
        (
            "{host} shows another host key than the one known for it: nothing was sent to it. If the machine was rebuilt, put "
            "its new key into known_hosts in place of the old one, once you have compared its fingerprint"
        ),
    ),
    (
        "host key is known for|Host key verification failed",
        NoEntry,
        (
            "the host key of {host} is not in known_hosts: nothing was sent to it. Put it there (ssh-keyscan shows it), once you "
            "have compared its fingerprint"
        ),
    ),
    (
        r"Permission denied \(([^)]*)\)",
        NoEntry,
        "{host} does not let {user} in ({0}): load the right key into the agent, or name its file in the host's `key`",
    ),
    ("Too many authentication failures", NoEntry, "{host} was offered too many keys: name the one in the host's `key`"),
    (
        "sudo: a (?:password|terminal) is required|sudo: sorry, you must have a tty",
        NoEntry,
        (
            "sudo on {host} asks {user} for more than it can give here: allow `{user} ALL=({account}) NOPASSWD: ALL` in its "
            f"sudoers, or give the password of {{user}} (`pulumi config set --secret tde-replication:{sudo.SETTING}`, or "
            f"{sudo.ENVIRONMENT})"
        ),
    ),
    (
        r"incorrect password attempt|Sorry, try again|no password was provided",
        NoEntry,
        (
            f"sudo on {{host}} does not take the password of {{user}} ({sudo.ENVIRONMENT}, tde-replication:{sudo.SETTING}): it "
            "was tried once, and is not tried again"
        ),
    ),
    (
        "is not allowed to (?:execute|run sudo)|not in the sudoers file|may not run sudo",
        NoEntry,
        "sudo on {host} does not let {user} become {account}: allow `{user} ALL=({account}) NOPASSWD: ALL` in its sudoers",
    ),
    (
        r"sudo: unknown user:? (\S+)|runuser: user (\S+) does not exist",
        NoEntry,
        "there is no account {account} on {host}",
    ),
    ("sudo.*(?:not found|No such file)", NoEntry, "there is no sudo on {host}, and {user} is not {account}"),
)


def control() -> Path:
    """The directory of the control sockets: this user's own, mode 0700, with a short name (a socket's path has 107 bytes)."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    parent = Path(runtime) if runtime and Path(runtime).is_dir() else Path(tempfile.gettempdir())
    directory = parent / f"tde-ssh-{os.geteuid()}"
    directory.mkdir(mode=0o700, exist_ok=True)
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise Problem(
            f"{directory} is not a directory of this user's alone: whoever made it could take over connections"
        )
    return directory


def failed(command: str, ended: Ended) -> CommandFailed:
    return CommandFailed(command, ended.status, "".join(ended.errors.splitlines(keepends=True)[-20:]))
