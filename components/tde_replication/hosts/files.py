"""What every kind of host does in the same way: files and processes by constant scripts, run as the server's account."""

import re
import secrets
import shlex
import time
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from tde_replication.errors import CommandFailed, Conflict, Unavailable, UserError
from tde_replication.hosts import facts, file_scripts as scripts
from tde_replication.hosts.base import FileStatus, Host, Postmaster

DEADLINE = 60.0
"""Seconds for an operation that takes no time on a host that is well."""
REMOVAL_DEADLINE = 3600.0
LIMIT = 16 * 2**20
"""Bytes that a file which is read may have: configuration, keys, lock files."""
LOG_TAIL_BYTES = 16_384
PAUSES = (0.05, 0.1, 0.2, 0.4, 0.8)
"""Seconds, for a server that just ends: its lock file is gone when it is read, or its process can no longer be looked at."""
KINDS: dict[int, Literal["file", "directory"]] = {0o100000: "file", 0o040000: "directory"}
DENIED = "Permission denied"
Question = tuple[str, ...]
"""A script that changes nothing, and its arguments."""


@dataclass(frozen=True)
class Ended:
    """A script that ran to its end; `output` and `errors` are its own, without anything that a login printed."""

    status: int
    output: bytes
    errors: str

    @property
    def cause(self) -> str:
        """The reason in the words of the last program that failed ("cat: /x: Permission denied")."""
        lines = [line for line in self.errors.splitlines() if line.strip()]
        return lines[-1].rpartition(": ")[2].strip() if lines else f"status {self.status}"


class ScriptedHost(Host):
    """A host on which a constant script can be run as the account."""

    label = ""
    """Opens what is said of one of its files: the machine."""

    @abstractmethod
    def _execute(self, script: str, *arguments: str, content: bytes = b"", deadline: float = DEADLINE) -> Ended:
        """Run `script` to its end, with `arguments` as "$1" and so on and `content` as standard input.

        Raises `Unavailable` where the machine cannot be asked, or does not answer within `deadline` seconds.
        """

    def _problem(self, path: PurePosixPath, ended: Ended) -> UserError:
        place = f"{self.label}{path}"
        if ended.status == scripts.NOT_A_FILE:
            return Conflict(
                f"{place} is a link or a device, and not a file: nothing is read or written there. Move it away"
            )
        if ended.cause == DENIED:
            return UserError(f"{place}: {self.account} has no permission there")
        return UserError(f"{place}: {ended.cause}")

    def _ask(self, *question: str) -> Ended:
        """The answer, which reads share."""
        known = facts.current()
        return (
            known.ask((self.address, question), lambda: self._execute(*question)) if known else self._execute(*question)
        )

    def look(
        self,
        *,
        statuses: Iterable[PurePosixPath] = (),
        contents: Iterable[PurePosixPath] = (),
        listings: Iterable[PurePosixPath] = (),
        servers: Iterable[PurePosixPath] = (),
        outputs: Iterable[Sequence[str]] = (),
    ) -> None:
        known = facts.current()
        if known is None:
            return
        questions = [
            *((scripts.STATUS, str(path)) for path in statuses),
            *((scripts.READ, str(path), str(LIMIT + 1)) for path in contents),
            *((scripts.LISTING, str(path)) for path in listings),
            *((scripts.POSTMASTER, str(data)) for data in servers),
            *((scripts.OUTPUT, *command) for command in outputs),
        ]

        def ask(keys: Sequence[tuple[str, Question]]) -> dict[tuple[str, Question], Ended]:
            return dict(zip(keys, self._ask_together([question for _, question in keys]), strict=True))

        known.ask_together([(self.address, question) for question in questions], ask)

    def _ask_together(self, questions: Sequence[Question]) -> list[Ended]:
        """By one script, which runs each in a shell of its own and says where its answer ends."""
        marker = f"--{secrets.token_hex(16)}--"
        ended = self._execute(
            "".join(
                f"(set -- {shlex.join(arguments)}\n{script}\n) </dev/null\nprintf '%s %s\\n' {marker} $?\necho {marker} >&2\n"
                for script, *arguments in questions
            )
        )
        if ended.status == scripts.ABSENT:
            return [ended] * len(questions)  # there is no container, nor a volume
        answers = re.findall(rf"(.*?){marker} (\d+)\n".encode(), ended.output, re.DOTALL)
        errors = ended.errors.split(f"{marker}\n")[:-1]
        if ended.status or not len(answers) == len(errors) == len(questions):
            raise UserError(f"{self.label}a batch of questions was not answered: {ended.cause}")
        return [Ended(int(status), output, error) for (output, status), error in zip(answers, errors, strict=True)]

    def output(self, command: Sequence[str]) -> str:
        ended = self._ask(scripts.OUTPUT, *command)
        if ended.status:
            name = PurePosixPath(command[0]).name
            raise CommandFailed(name, ended.status, "".join(ended.errors.splitlines(keepends=True)[-20:]))
        return ended.output.decode(errors="replace")

    def _asked(self, path: PurePosixPath, script: str, *arguments: str) -> bytes | None:
        """What a script says of `path`; None where nothing is there."""
        ended = self._ask(script, str(path), *arguments)
        if ended.status == scripts.ABSENT:
            return None
        if ended.status:
            raise self._problem(path, ended)
        return ended.output

    def read(self, path: PurePosixPath, *, follow: bool = False) -> bytes | None:
        content = self._asked(path, scripts.READ_BEHIND_LINKS if follow else scripts.READ, str(LIMIT + 1))
        if content is not None and len(content) > LIMIT:
            raise UserError(f"{self.label}{path} is larger than {LIMIT >> 20} MiB: a file of that size is not read")
        return content

    def real(self, path: PurePosixPath) -> PurePosixPath:
        found = self._asked(path, scripts.REAL)
        return path if found is None else PurePosixPath(found.decode(errors="surrogateescape").removesuffix("\n"))

    def status(self, path: PurePosixPath) -> FileStatus | None:
        said = self._asked(path, scripts.STATUS)
        if said is None:
            return None
        try:
            mode, owner, uid = said.decode(errors="replace").split()
            bits = int(mode, 16)
        except ValueError:
            raise UserError(f"{self.label}{path}: its status cannot be understood") from None
        return FileStatus(KINDS.get(bits & 0o170000, "other"), uid if owner == "UNKNOWN" else owner, bits & 0o7777)

    def listing(self, path: PurePosixPath) -> list[str]:
        names = (self._asked(path, scripts.LISTING) or b"").decode(errors="surrogateescape").split("\0")[:-1]
        if any("/" in name or name in {"", ".", ".."} for name in names):
            raise UserError(f"{self.label}{path}: it lists a name that no file can have")
        return sorted(names)

    def write(self, path: PurePosixPath, content: bytes, *, mode: int) -> None:
        self._done(path, self._execute(scripts.WRITE, str(path), str(len(content)), f"{mode:o}", content=content))

    def replace(self, path: PurePosixPath, content: bytes) -> None:
        ended = self._execute(scripts.REPLACE, str(path), str(len(content)), content=content)
        if ended.status == scripts.NOT_OURS:
            found = self.status(path)
            owner = found.owner if found else "another account"
            raise Conflict(
                f"{self.label}{path} belongs to {owner}, and {self.account} could not keep that owner: the file is not changed"
            )
        self._done(path, ended)

    def make_directory(self, path: PurePosixPath) -> None:
        self._done(path, self._execute(scripts.MAKE_DIRECTORY, str(path)))

    def rename(self, old: PurePosixPath, new: PurePosixPath) -> None:
        ended = self._execute(scripts.RENAME, str(old), str(new), str(new.parent))
        if ended.status == scripts.EXISTS:
            raise UserError(f"{self.label}{old} was not moved to {new}: it exists already")
        if ended.status == scripts.OTHER_DEVICE:
            raise UserError(f"{self.label}{old} was not moved to {new}: it is on another file system")
        self._done(old, ended)

    def remove(self, path: PurePosixPath) -> None:
        ended = self._execute(scripts.REMOVE, str(path), deadline=REMOVAL_DEADLINE)
        if ended.status != scripts.ABSENT:
            self._done(path, ended)

    def _done(self, path: PurePosixPath, ended: Ended) -> None:
        if ended.status == scripts.ABSENT:
            raise UserError(f"{self.label}{path} does not exist")
        if ended.status:
            raise self._problem(path, ended)

    def postmaster(self, data_directory: PurePosixPath) -> Postmaster | None:
        ended = self._ask(scripts.POSTMASTER, str(data_directory))
        for pause in PAUSES:
            if ended.status != scripts.UNKNOWN:
                break
            time.sleep(pause)
            ended = self._execute(scripts.POSTMASTER, str(data_directory))
        if ended.status == scripts.ABSENT:
            return None
        pid, where, *lines = [*ended.output.decode(errors="replace").splitlines(), "", ""]
        if ended.status or not pid.isdecimal() or where not in {"here", "lost"}:
            reason = self._problem(data_directory / "postmaster.pid", ended)
            raise Unavailable(f"cannot tell whether a server runs on {data_directory}: {reason}")
        return Postmaster.parse(int(pid), data_directory, lines, lost=where == "lost")

    def _end(self, found: Postmaster, data_directory: PurePosixPath, deadline: float) -> None:
        """End a server by signals: a fast shutdown, then an immediate one. They are sent as the account, for what a file of the
        account names as the server may be anybody's process."""
        for number in ("INT", "QUIT"):
            self._execute(scripts.SIGNAL, str(found.pid), str(data_directory), number)
            if self._has_ended(found, data_directory, deadline):
                return
        raise UserError(f"{self.label}the server on {data_directory} did not stop within {2 * deadline:g} s")

    def _has_ended(self, found: Postmaster, data_directory: PurePosixPath, seconds: float) -> bool:
        """Wait for its end."""
        arguments = (str(found.pid), str(data_directory), str(max(1, round(seconds))))
        ended = self._execute(scripts.WAIT_FOR_END, *arguments, deadline=seconds + DEADLINE)
        if ended.status not in {0, scripts.ABSENT}:
            raise Unavailable(f"{self.label}cannot tell whether the server on {data_directory} has ended")
        return not ended.status
