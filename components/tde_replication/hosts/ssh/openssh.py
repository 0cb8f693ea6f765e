"""One machine's shell through OpenSSH's `ssh`: how a script runs there.

Every script goes over standard input of one constant remote command, so that nothing of a stack's settings is in an argument
list or in the log of sudo, and so that it does not matter what the login shell is (sshd hands it that command: fish and csh
read it as sh does). What the login shell's own files print comes before a marker, and is left out.

Connections are shared, see `ssh_connections`.
"""

import base64
import os
import re
import secrets
import shlex
import signal
import subprocess
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import IO, Any, cast

from tde_replication.errors import CommandFailed, Unavailable, UserError
from tde_replication.hosts.answer import LONGEST, Receiver, last_lines
from tde_replication.hosts.files import Ended
from tde_replication.hosts.ssh import sudo
from tde_replication.hosts.ssh.connections import (
    BUSY,
    UNSHARED,
    Connections,
    LoginFailed,
    NotJoined,
    attempts,
    connections,
    gave_up,
    patience,
)
from tde_replication.hosts.ssh.login import Login
from tde_replication.hosts.ssh.refusals import refusal
from tde_replication.waiting import Limit

ATTEMPT_SECONDS = 60.0

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
class Shell:
    """Runs scripts on the machine that `login` names."""

    login: Login

    @cached_property
    def _connections(self) -> Connections:
        return connections(self.login)

    def _join(self, command: str, seconds: float, **streams: Any) -> "subprocess.Popen[bytes]":
        """Start `command` on a shared connection; a login that is refused for there are too many is tried again."""
        self.login.expect_made()
        refused: UserError = Unavailable(self._late(seconds))
        for left in attempts(f"{self.login} takes no more logins for now", seconds, patience(self.login)):
            try:
                return self._connections.join(command, seconds=left, **streams)
            except TimeoutError:
                raise Unavailable(self._late(seconds)) from None
            except LoginFailed as failed:
                refused = refusal(self.login, failed.code, failed.said)
                if not isinstance(refused, Unavailable) or not BUSY.search(str(refused)):
                    raise refused from None
        gave_up(self.login)
        raise refused

    @property
    def waiting(self) -> str:
        return f"{self.login} takes no more sessions for now"

    def _late(self, seconds: float) -> str:
        return f"{self.login} did not answer within {seconds:.3g} s"

    def full(self) -> Unavailable:
        return Unavailable(
            f"{self.login} takes no more sessions, nor more connections for them: see MaxSessions and MaxStartups of its sshd"
        )

    def start(
        self,
        script: str,
        arguments: Sequence[str],
        marker: str,
        *,
        seconds: float = ATTEMPT_SECONDS,
        as_login: bool = False,
        errors: int = subprocess.PIPE,
    ) -> subprocess.Popen[bytes]:
        """Start `script` with `arguments` as "$1" and so on, as the account (or as the login itself), within so many `seconds`.

        On both output streams a line `marker` comes before what is the script's own; on standard error it comes again behind
        it, with the exit status. Raises `NotJoined` where there is no room now; its `ssh` may find that too, see `Errors`.
        """
        account = self.login.account
        become = "" if as_login else self.login.become(account)
        answer = "" if as_login else self.answer(account)
        text = FRAME.format(marker=marker, script=script, arguments=shlex.join(arguments))
        command = f"exec env -u LANGUAGE LC_ALL=C {become}{RECEIVE}"
        child = self._join(command, seconds, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors)
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
        waits for it any more. Raises `Unavailable` where the machine cannot be reached or the connection breaks, `UserError`
        where it lets nobody in, `TimeoutError` after `deadline` seconds.
        """
        for left in attempts(self.waiting, deadline):
            marker, ends = f"--{secrets.token_hex(8)}--", time.monotonic() + left
            with suppress(NotJoined):
                child = self.start(script, arguments, marker, seconds=left, as_login=as_login)
                errors = Errors(marker, on_line)
                output = self._served(child, errors, ends, content)
                if output is None and not errors.begun:
                    raise Unavailable(self._late(deadline))
                if output is None:
                    raise TimeoutError
                if errors.status is None:
                    raise Unavailable(f"the connection to {self.login} broke while a command ran there")
                return Ended(errors.status, output.partition(f"{marker}\n".encode())[2], "".join(errors.own))
        raise self.full()

    def _served(
        self, child: subprocess.Popen[bytes], errors: "Errors", ends: float, content: bytes | None
    ) -> bytes | None:
        """The output of a script, once it has begun and ended; None where it did not within its time.

        Raises `NotJoined` where nothing was sent, and what `refusal` makes of it where it was not begun.
        """
        stdin, stdout, stderr = (cast("IO[bytes]", stream) for stream in (child.stdin, child.stdout, child.stderr))
        receiver = Receiver(str(self.login), stdout, enough=lambda: _kill(child))
        receiver.start()
        limit = Limit(max(0.0, ends - time.monotonic()), lambda: _kill(child))
        try:
            with limit:
                if content is not None:
                    with suppress(BrokenPipeError):
                        stdin.write(content)
                        stdin.close()
                while line := stderr.readline(LONGEST):
                    errors.take(line.decode(errors="replace"))
                code = child.wait()
                receiver.join()
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
            for stream in (stdin, stdout, stderr):
                with suppress(BrokenPipeError):
                    stream.close()
        output = receiver.content()
        limit.expect_not_interrupted(f"a command on {self.login}")
        if limit.passed:
            return None
        if not errors.begun:
            self.expect_joined(child, errors.before)
            raise refusal(self.login, code, errors.before)
        return output

    def expect_joined(self, child: subprocess.Popen[bytes], said: str) -> None:
        """Raises `NotJoined` where the `ssh` that said this found no room on its connection."""
        if UNSHARED in said:
            self._connections.refused(child)
            raise NotJoined

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
        return self.login.answer

    def _attempt(self, account: str) -> UserError | None:
        """Why sudo does not let the login become `account` by the password; None where it does. Raises `Unavailable`."""
        command = f"exec env -u LANGUAGE LC_ALL=C {self.login.become(account)}/bin/sh -c :"
        for left in attempts(self.waiting, ATTEMPT_SECONDS):
            with suppress(NotJoined):
                child = self._join(command, left, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
                try:
                    said = child.communicate(self.login.answer.encode(), left)[1].decode(errors="replace")
                except subprocess.TimeoutExpired:
                    os.killpg(child.pid, signal.SIGKILL)
                    child.communicate()
                    raise Unavailable(self._late(ATTEMPT_SECONDS)) from None
                if not child.returncode:
                    return None
                self.expect_joined(child, said)
                refused = refusal(self.login, child.returncode, said, account)
                if isinstance(refused, Unavailable):
                    raise refused
                return refused
        raise self.full()


def _kill(child: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)


class Errors:
    """Standard error of a script, taken apart: what came `before` it, its `own` lines, and its exit status."""

    def __init__(self, marker: str, on_line: Callable[[str], None] | None) -> None:
        self._marker = marker
        self._on_line = on_line
        self.before = ""
        self.own = last_lines()
        self.begun = False
        self.status: int | None = None

    def take(self, line: str) -> None:
        text, found, after = line.partition(self._marker)
        if not self.begun:
            self.before = (self.before + text)[-LONGEST:]
            self.begun = bool(found)
        elif self.status is None:
            if found:
                self.status = int(after) if re.fullmatch(r"\s*\d{1,3}\s*", after) else None
            if text:
                self.own.append(text)
                if self._on_line:
                    self._on_line(text.rstrip("\r\n"))


_PROOFS: dict[tuple[Login, str], UserError | None] = {}
"""By login and account: what became of the password, once it was tried."""
_PROOFS_LOCKS: defaultdict[tuple[Login, str], threading.Lock] = defaultdict(threading.Lock)
"""A machine that does not answer holds up nobody but who asks for it."""


def failed(command: str, ended: Ended) -> CommandFailed:
    return CommandFailed(command, ended.status, "".join(ended.errors.splitlines(keepends=True)[-20:]))
