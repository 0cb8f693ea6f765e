"""Tries new values of parameters before a server is touched for them. The parser is the server's own program.

`postgres -C` reads the configuration as a start would. For a parameter that is computed at start it also loads the libraries and
the certificates and adds up the shared memory, and ends before it allocates memory, opens a port or writes to the log.
(PostgreSQL documentation, *postgres*, option -C.)
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from tde_replication.errors import CommandFailed
from tde_replication.hosts.base import Host
from tde_replication.postgres.session import Session
from tde_replication.postgres.starting import cause_of_end

DEADLINE = 60.0
SCRATCH = "pgsql_tmp.tde-replication"
"""In the data directory, which the account can always write. Base backups leave out names that begin with "pgsql_tmp"."""
PLAIN_LOG = {"log_line_prefix": "", "log_destination": "stderr", "lc_messages": "C"}
"""For the reasons of a failure, unless the values that are tried have their own."""
# $1 data directory, $2 scratch directory: what a start reads there. Certificates may be anywhere in it.
# By a shell and coreutils alone: an image may have no more.
PREPARE = """
set -e
mkdir -m 0700 -- "$2" "$2/global"
cp -- "$1/PG_VERSION" "$2/"
cp -- "$1/global/pg_control" "$2/global/"
for entry in "$1"/* "$1"/.[!.]*; do
    case ${entry##*/} in pg* | PG* | base | global | postmaster.* | postgresql.auto.conf*) continue ;; esac
    if [ -e "$entry" ] || [ -L "$entry" ]; then ln -s -- "$entry" "$2/"; fi
done
"""
AUTO_CONF = "postgresql.auto.conf"
UNKNOWN = re.compile(r'parameter "([^"]+)"')


def refused_values(machine: Host, binaries: PurePosixPath, settings: Mapping[str, str]) -> list[str]:
    """Why the server's program takes some of these values for no parameters of its own or no values of them.

    Needs no data directory, and writes nothing. What it cannot know: parameters of libraries, and whether there is such a file.
    Nothing where the program is not there.
    """
    left, found = dict(settings), []
    while left:
        places = {"config_file": "/dev/null", "data_directory": "/", "hba_file": "/dev/null", "ident_file": "/dev/null"}
        try:
            _ask(machine, binaries, "port", {**_unless(left, places | PLAIN_LOG), **left})
        except CommandFailed as failure:
            why = re.search(r"^FATAL:\s+(.*(?:\n(?:DETAIL|HINT):.*)*)", failure.output, re.MULTILINE)
            if not why:
                break
            found.append(_one_line(why[1]))
            named = UNKNOWN.search(why[1])
            if not named or left.pop(named[1].lower(), None) is None:
                break
        else:
            break
    return found


@dataclass(frozen=True)
class Trial:
    """How a running server would be started again."""

    machine: Host
    binaries: PurePosixPath
    data: PurePosixPath
    options: Mapping[str, str]
    """What outranks its files: where they are, and its own command line."""
    huge_pages: int
    """The huge pages that it has now."""

    @classmethod
    def of(cls, server: Session, machine: Host, binaries: PurePosixPath, data: PurePosixPath) -> "Trial":
        rows = server.rows(
            "SELECT name, setting FROM pg_settings WHERE setting IS NOT NULL AND "
            "(source = 'command line' OR name IN ('config_file', 'hba_file', 'ident_file')) ORDER BY name"
        )
        has = server.value(
            "SELECT setting FROM pg_settings WHERE name = 'shared_memory_size_in_huge_pages' "
            "AND current_setting('huge_pages_status', true) = 'on'"
        )
        return cls(machine, binaries, data, dict(rows), int(has or 0))

    def refusal(self, auto_conf: bytes) -> str | None:
        """Why the server would not start with this postgresql.auto.conf; None: nothing speaks against it."""
        scratch = self.data / SCRATCH
        options = {**_unless(self.options, PLAIN_LOG), **self.options, "data_directory": str(scratch)}

        def ask(parameter: str) -> str:
            return _ask(self.machine, self.binaries, parameter, options).strip()

        self.machine.remove(scratch)  # of a trial that was killed
        try:
            script = ["/bin/sh", "-c", PREPARE, "prepare", str(self.data), str(scratch)]
            self.machine.run(script, deadline=DEADLINE)
            self.machine.write(scratch / AUTO_CONF, auto_conf, mode=0o600)
            try:
                megabytes = int(ask("shared_memory_size"))
                pages = int(ask("shared_memory_size_in_huge_pages")) if ask("huge_pages") == "on" else 0
            except CommandFailed as failure:
                return self._cause(failure)
        finally:
            self.machine.remove(scratch)
        return self._too_large(megabytes, pages)

    def _cause(self, failure: CommandFailed) -> str:
        cause = cause_of_end(failure.output.splitlines())
        prefix = f'configuration file "{self.data / SCRATCH / AUTO_CONF}" contains errors: '
        return cause.removeprefix(prefix).replace(str(self.data / SCRATCH), str(self.data))

    def _too_large(self, megabytes: int, pages: int) -> str | None:
        """Whether the machine has not got that memory, whoever uses it now."""
        try:
            output = self.machine.run(["cat", "/proc/meminfo"], deadline=DEADLINE)
        except CommandFailed:
            return None  # it is not Linux's
        memory = {name: int(number) for name, number in re.findall(r"^(\w+):\s+(\d+)", output, re.MULTILINE)}
        there = (memory.get("MemTotal", 0) + memory.get("SwapTotal", 0)) // 1024
        if megabytes > there > 0:
            return f"it needs {megabytes} MB of shared memory, and its machine has {there} MB"
        free = memory.get("HugePages_Free", pages) - memory.get("HugePages_Rsvd", 0) + self.huge_pages
        if pages > free:
            return f"it needs {pages} huge pages, and its machine has {free} for it (vm.nr_hugepages)"
        return None


def _ask(machine: Host, binaries: PurePosixPath, parameter: str, options: Mapping[str, str]) -> str:
    given = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
    return machine.run([str(binaries / "postgres"), "-C", parameter, *given], deadline=DEADLINE)


def _unless(declared: Mapping[str, str], defaults: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in defaults.items() if name not in declared}


def _one_line(text: str) -> str:
    first, *more = (line.strip().rstrip(".") for line in text.splitlines())
    return first + "".join(f" ({line.partition(':')[2].strip()})" for line in more)
