"""What can go wrong, as a small family: callers tell cases apart by class, never by text; people read one sentence."""

import re

_CI_COMMANDS = re.compile(r"#(?=#\w*\[)|^(\s*):(?=:)", re.MULTILINE)
"""Azure Pipelines and GitHub Actions obey ``##vso[…]`` and ``##[…]`` anywhere in a line, GitHub ``::…::`` at its start."""


def escaped(text: str) -> str:
    """`text` as a terminal or a CI log may show it: parts of it may come from a machine that was taken over.

    Control characters, invisible characters and commands of CI systems are shown, not obeyed. Escaping twice changes nothing.
    """
    shown = "".join(char if char.isprintable() or char in "\n\t" else _code(char) for char in text)
    return _CI_COMMANDS.sub(lambda found: r"\x23" if found[0] == "#" else rf"{found[1]}\x3a", shown)


def _code(char: str) -> str:
    number = ord(char)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"  # noqa: PLR2004


class UserError(Exception):
    """A sentence for a person: what happened, why, and what to do next. It never holds a secret."""

    def __init_subclass__(cls) -> None:
        cls.__module__ = (
            "builtins"  # Pulumi prints it with the class before the sentence: only the class helps a person
        )

    def __str__(self) -> str:
        return escaped(super().__str__())


UserError.__module__ = "builtins"


class SqlError(UserError):
    """A server answered a statement with an error."""

    def __init__(self, text: str, sqlstate: str) -> None:
        super().__init__(text)
        self.sqlstate = sqlstate


class Unavailable(UserError):
    """The server or host cannot be reached. Reporting that is another resource's task."""


class AccessDenied(UserError):
    """The host answered, but its identity could not be verified, or it denied access."""


class NotMadeYet(Unavailable):
    """Nobody can be asked: the same program makes the machine, and its address is not known yet."""

    def __init__(self, machine: str) -> None:
        super().__init__(
            "the address of a machine that this program makes is known once it is made: `up` then checks everything before it "
            "touches anything"
        )
        self.machine = machine


class AnotherCluster(Unavailable):
    """A server answers, and it is not the one that this was declared for: the data directory's resource says so."""


class LoginFailed(Unavailable):
    """A server runs, and did not let us in: it is starting or stopping, or lacks the database, the role or the rule for us."""


class NoDatabase(Unavailable):
    """A server answers, and has no database of the name that was asked for: the extension's resource makes it."""


class NoExtension(Unavailable):
    """A server answers, and the database has no pg_tde: the extension's resource makes it."""


class Conflict(UserError):
    """Something is there that is not ours to change."""


class CommandFailed(UserError):
    """A command on a host ended with a status other than 0.

    `status` is its exit status (more than 128, or negative: a signal ended it), `output` what it wrote to standard error.
    """

    def __init__(self, command: str, status: int, output: str) -> None:
        super().__init__(f"{command} failed (status {status}): {output.strip() or 'it printed nothing'}")
        self.status = status
        self.output = output
