"""Restarts servers whose programs were replaced by another minor version, one after the other, standbys first.

A newer server replays the WAL of an older one, and not always the other way round. (PostgreSQL documentation, *Log-Shipping
Standby Servers*, *Planning*.) It comes after all else: until then, whatever else an `up` restarts servers for is done.
"""

from collections.abc import Iterable, Iterator
from typing import ClassVar, Self

from tde_replication.errors import AccessDenied, Unavailable, UserError
from tde_replication.parallel import parallel_map
from tde_replication.postgres import rollback
from tde_replication.postgres.replaced_programs import replaced
from tde_replication.postgres.server import Server
from tde_replication.postgres.starting import STOP_DEADLINE, start, wrong_file
from tde_replication.postgres.switchover_end import inside
from tde_replication.postgres.topology_server import TopologyServer
from tde_replication.postgres.trial import Trial
from tde_replication.progress import progress
from tde_replication.reconciler import Resource
from tde_replication.records import Cost
from tde_replication.unasked import could_not_ask
from tde_replication.waiting import until

STREAM_SECONDS = 60.0
STREAMS = "SELECT 1 FROM pg_stat_wal_receiver WHERE status = 'streaming'"


class MinorUpgrade(Resource):
    servers: list[TopologyServer]
    """Those that may be restarted for it."""
    primary: str
    """The name of the server that is restarted last; where it is not among `servers`, it is left alone."""
    waiting: list[str] = []
    """Servers that run with what was replaced on disk, and what that is. None is wanted."""
    urn: str = ""

    not_compared: ClassVar[frozenset[str]] = frozenset({"servers", "primary"})
    create_only: ClassVar[frozenset[str]] = frozenset({"urn"})

    @property
    def row(self) -> str:
        return self.urn

    @property
    def identity(self) -> str:
        return "minor upgrade"

    def read(self) -> Self:
        return self.replace(waiting=[f"{server.name}: {why}" for server, why in self._found()])

    def _found(self) -> list[tuple[TopologyServer, str]]:
        found = parallel_map(_outdated, self.servers)
        return [(server, why) for server, why in zip(self.servers, found, strict=True) if why]

    def refusal(self, live: Self) -> str | None:
        """Why one of them could not start again: nothing is restarted then."""
        for server, _ in self._found() if live.waiting else ():
            try:
                with server.session() as session:
                    if wrong := wrong_file(session, server.name):
                        return wrong
            except (Unavailable, AccessDenied) as unknown:
                could_not_ask(f"whether {server.name} would start again", unknown)
        return None

    def costs(self, live: Self | None) -> Iterator[Cost]:
        for server, why in self._found() if live is None or live.waiting else ():
            yield Cost(
                kind="restart",
                server=server.name,
                host=server.host,
                data_directory=server.data_directory,
                text=f"server {server.name} will be restarted: {why}",
            )

    def create(self) -> Self:
        return self._restart_all()

    def update(self, live: Self) -> Self:
        del live
        return self._restart_all()

    def _restart_all(self) -> Self:
        """Each only once the one before streams again: the first that does not come back ends it."""
        for server in self._in_order():
            if why := _outdated(server):
                progress(f"{server.name} is restarted: {why}")
                _restart(server)
        return self.replace(waiting=[])

    def _in_order(self) -> Iterable[TopologyServer]:
        """Standbys of standbys first, the primary last."""
        known = {server.name: server for server in self.servers}

        def depth(server: TopologyServer) -> int:
            if server.name == self.primary:
                return 0
            above = known.get(server.upstream)
            return 1 if above is None or above.name == self.primary else 1 + depth(above)

        return sorted(self.servers, key=lambda server: (-depth(server), server.name))

    def delete(self) -> None:
        """Servers stay as they are."""


def _outdated(server: TopologyServer) -> str:
    """Empty, too, where it does not run: it starts with what is there."""
    try:
        if not server.machine.serves(server.data):
            return ""
        with server.session() as session:
            return replaced(server.machine, server.bin, server.data, session)
    except (Unavailable, AccessDenied) as why:
        could_not_ask(f"whether {server.name} runs with the programs that are installed", why)
        return ""


def _objection(server: TopologyServer) -> str | None:
    """Tried by the program that is installed now, on the server's own configuration."""
    with server.session() as session:
        if wrong := wrong_file(session, server.name):
            return wrong
        trial = Trial.of(session, server.machine, server.bin, server.data)
        why = trial.refusal(rollback.with_settings(server.machine, server.data, {}, ()))
    if why is None:
        return None
    return (
        f"server {server.name} would not start with the programs that are installed: {why}. It is left running, and no other "
        "server is restarted: correct that, or install the former version again"
    )


def _restart(server: TopologyServer) -> None:
    if why := _objection(server):
        raise UserError(why)
    stands = server.is_standby()
    known = Server(**inside(server), name=server.name, binaries=server.binaries, made_at="", settings={})
    server.machine.stop(server.bin, server.data, deadline=STOP_DEADLINE)
    start(known, server.name, server.binaries)
    if stands and not until(lambda: _streams(server), seconds=STREAM_SECONDS):
        raise UserError(
            f"server {server.name} was restarted with the programs that are installed, and does not stream after "
            f"{STREAM_SECONDS:g} s: no other server is restarted. See its log, and run `up` again"
        )


def _streams(server: TopologyServer) -> bool:
    try:
        with server.session() as session:
            return session.row(STREAMS) is not None
    except Unavailable:
        return False
