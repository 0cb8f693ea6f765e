"""Takes a change of parameters back when it fails.

What postgresql.auto.conf said before is noted on the server before anything is written. An update that fails puts it back, and
starts a server that it had stopped; after one that was killed, the next `up` or `destroy` does so.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import PurePosixPath
from threading import Lock

from tde_replication.errors import Conflict, Unavailable, UserError
from tde_replication.hosts.base import Host
from tde_replication.postgres.guc import auto_conf, values_in
from tde_replication.postgres.parameters import alter_system, reload_configuration, waiting
from tde_replication.postgres.resource import OnServer
from tde_replication.postgres.session import session
from tde_replication.postgres.starting import STOP_DEADLINE, start
from tde_replication.postgres.trial import AUTO_CONF

NOTE = "pgsql_tmp.tde-replication.json"
"""In the data directory, with what it is about. Base backups leave out names that begin with "pgsql_tmp"."""
_ONE_AT_A_TIME = Lock()
"""Resources of one server are taken away side by side, in one process."""


@dataclass(frozen=True)
class Note:
    """A server before a change of its parameters."""

    values: dict[str, str | None]
    """What postgresql.auto.conf said of each parameter that is changed; None: nothing."""
    running: bool
    name: str
    binaries: str


@contextmanager
def rolled_back(server: OnServer, name: str, binaries: str, parameters: Iterable[str]) -> Iterator[None]:
    """Put back what the file said of `parameters`, and the server as it ran, where the block fails."""
    machine, data = server.machine, server.data
    recover(server)
    process = machine.postmaster(data)
    before = Note(values_before(machine, data, parameters), process is not None, name, binaries)
    machine.write(data / NOTE, json.dumps(asdict(before)).encode(), mode=0o600)
    try:
        yield
    except UserError as problem:
        cause = str(problem).rstrip(".")
        try:
            now = machine.postmaster(data)
            _put_back(server, before, restarted=bool(process and now and process.pid != now.pid))
        except UserError as why:
            raise UserError(
                f"{cause}. What was set before could not all be put back ({str(why).rstrip('.')}). It is noted in {data / NOTE} "
                f"({', '.join(sorted(before.values))}), and the next `up` or `destroy` puts it back"
            ) from None
        runs = "runs as before" if before.running else "is down, as before"
        kind = Conflict if isinstance(problem, Conflict) else UserError
        raise kind(f"{cause}. Its former values are put back, and it {runs}") from None
    machine.remove(data / NOTE)


def values_before(machine: Host, data: PurePosixPath, parameters: Iterable[str]) -> dict[str, str | None]:
    """What postgresql.auto.conf says of parameters (names in lower case)."""
    said = values_in((machine.read(data / AUTO_CONF) or b"").decode(errors="surrogateescape"))
    return {name: said.get(name) for name in parameters}


def write_stopped(machine: Host, data: PurePosixPath, settings: Mapping[str, str], former: Iterable[str]) -> None:
    """Bring the file of a server that is down to `settings`, without the `former` ones."""
    content = with_settings(machine, data, settings, former)
    if machine.status(data / AUTO_CONF):
        machine.replace(data / AUTO_CONF, content)
    else:
        machine.write(data / AUTO_CONF, content, mode=0o600)


def with_settings(machine: Host, data: PurePosixPath, settings: Mapping[str, str], former: Iterable[str]) -> bytes:
    """The file with `settings`, and without the `former` ones, in the databases' encoding."""
    content = (machine.read(data / AUTO_CONF) or b"").decode(errors="surrogateescape")
    return auto_conf(content, dict.fromkeys(former, ""), settings).encode(errors="surrogateescape")


def noted(machine: Host, data: PurePosixPath) -> Note | None:
    """What an update that was killed has left to put back."""
    content = machine.read(data / NOTE)
    if content is None:
        return None
    try:
        found = json.loads(content)
        values = {str(name): None if value is None else str(value) for name, value in found["values"].items()}
        return Note(values, bool(found["running"]), str(found["name"]), str(found["binaries"]))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise UserError(
            f"{data / NOTE} does not say what an interrupted `up` has changed: look at {AUTO_CONF} beside it, and remove it"
        ) from None


def unfinished(machine: Host, data: PurePosixPath) -> list[str]:
    """The parameters that an update which was killed may have changed."""
    try:
        before = noted(machine, data)
    except UserError:
        return [NOTE]  # said by `recover`
    return sorted(before.values) if before else []


def recover(server: OnServer, *, may_start: bool = True) -> list[str]:
    """Put back what an update that was killed has changed, and start a server that it had stopped; the parameters."""
    with _ONE_AT_A_TIME:
        before = noted(server.machine, server.data)
        if before is None:
            return []
        _put_back(server, before if may_start else replace(before, running=False))
        return sorted(before.values)


def delete_there(resource: OnServer) -> None:
    """Take a resource away; from a server that a killed update had stopped, once that runs again as before."""
    try:
        resource.delete()
    except Unavailable:
        # Or another resource has just had it started.
        if not (recover(resource) or resource.machine.serves(resource.data)):
            raise
        resource.delete()


def _put_back(server: OnServer, before: Note, *, restarted: bool = False) -> None:
    """`restarted`: it runs by now with values that can only change at start."""
    machine, data = server.machine, server.data
    if machine.serves(data):
        with session(server, f"server {before.name}") as running:
            now = values_before(machine, data, before.values)
            for parameter, value in before.values.items():
                if now[parameter] != value:
                    alter_system(running, parameter, value)
            reload_configuration(running)
            late = waiting(running, list(before.values))
        if late and restarted:
            machine.stop(PurePosixPath(before.binaries), data, deadline=STOP_DEADLINE)
    else:
        settings = {parameter: value for parameter, value in before.values.items() if value is not None}
        write_stopped(machine, data, settings, before.values)
    if before.running and not machine.serves(data):
        start(server, before.name, before.binaries)
    machine.remove(data / NOTE)
