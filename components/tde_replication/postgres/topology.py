"""Who is the primary. The one resource that stops a primary and promotes a standby.

It comes before every data directory and server: when those are looked at, the primary is where the stack file says.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import ClassVar, Self

from tde_replication.errors import AccessDenied, Conflict, Unavailable
from tde_replication.parallel import parallel_map
from tde_replication.postgres.adoption import left_alone
from tde_replication.postgres.on_primary import forget_primaries
from tde_replication.postgres.switchover import Switchover
from tde_replication.postgres.switchover_end import against_going_back, drop_slots, end, go_back
from tde_replication.postgres.synchronous import GO_ON, WAIT, Synchronous, commits_wait, let_go
from tde_replication.postgres.topology_server import Rule, Standing, TopologyServer
from tde_replication.reconciler import Resource
from tde_replication.records import Cost
from tde_replication.unasked import could_not_ask

NOBODY = "no server"
IDLE_SLOTS = "SELECT slot_name FROM pg_replication_slots WHERE NOT active"


class Topology(Resource):
    primary: str
    """The name of the server that takes writes; of all that do, where the declared one is not among them."""
    servers: list[TopologyServer]
    synchronous: Synchronous | None = None
    """Which standbys commits wait for; `SynchronousStandbys` sets it, once they stream."""
    commits: str = GO_ON
    """"go on"; or "wait", where they wait for standbys that do not stream, and are declared not to."""
    stray_slots: list[str] = []
    """Slots of the cluster's servers where these are not to stream from: there they would hold WAL for ever. None is wanted."""
    unfinished: list[str] = []
    """Servers from which a switchover was begun that has not come to its end: none is wanted."""

    role: str = ""
    rules: list[Rule] = []
    database: str = "postgres"
    encryption: bool = False
    """Whether pg_tde is used: then nobody is promoted who cannot open its keys."""
    urn: str = ""

    not_compared: ClassVar[frozenset[str]] = frozenset({"servers"})
    create_only: ClassVar[frozenset[str]] = frozenset({"role", "rules", "database", "encryption", "urn"})

    @property
    def row(self) -> str:
        return self.urn

    @property
    def identity(self) -> str:
        return "topology"

    def stores(self, old: Self) -> bool:
        """Who may be the primary; whether a server may be restarted is for a switchover alone."""
        return {(one.name, one.host, one.data_directory, one.upstream) for one in self.servers} != {
            (one.name, one.host, one.data_directory, one.upstream) for one in old.servers
        }

    def _server(self, name: str, *more: TopologyServer) -> TopologyServer | None:
        return next((server for server in (*self.servers, *more) if server.name == name), None)

    def _with(self, live: Self) -> list[TopologyServer]:
        """All servers, those too that are not declared any more."""
        names = {server.name for server in self.servers}
        return [*self.servers, *(server for server in live.servers if server.name not in names)]

    def read(self) -> Self:
        found = parallel_map(TopologyServer.standing, self.servers)
        standings = {server.name: standing for server, standing in zip(self.servers, found, strict=True)}
        asked = [server for server in self.servers if standings[server.name] not in {"silent", "absent"}]
        return self.replace(
            primary=self._found(standings),
            commits=self._commits(standings),
            stray_slots=sorted(f"{name} on {server.name}" for server, name in self._stray_slots(standings)),
            unfinished=[server.name for server in asked if server.is_noted],
        )

    def _found(self, standings: Mapping[str, Standing]) -> str:
        if primaries := [name for name, standing in standings.items() if standing == "primary"]:
            return ", ".join(primaries)
        mine, last = self._server(self.primary), standings.get(self.primary)
        return NOBODY if last in {"standby", "demoted"} and not (mine and mine.is_noted) else self.primary

    @property
    def writers(self) -> list[str]:
        """The names of the servers that take writes."""
        return self.primary.split(", ")

    def _commits(self, standings: Mapping[str, Standing]) -> str:
        mine = self._server(self.primary)
        if (
            self.synchronous
            and self.synchronous.when_too_few == "continue"
            and standings.get(self.primary) == "primary"
        ):
            assert mine  # noqa: S101 - it stands there
            try:
                with mine.session() as session:
                    return WAIT if commits_wait(session) else GO_ON
            except Unavailable as why:
                could_not_ask("whether commits wait for standbys", why)
        return GO_ON

    def _stray_slots(self, standings: Mapping[str, Standing]) -> Iterator[tuple[TopologyServer, str]]:
        """A slot that somebody streams from is not one: its standby has yet to be told where it streams from now."""
        for server in self.servers:
            if standings[server.name] != ("primary" if server.name == self.primary else "standby"):
                continue
            strays = server.strays(self.servers, self.primary)
            try:
                with server.session() as session:
                    yield from ((server, name) for (name,) in session.known(IDLE_SLOTS) if name in strays)
            except Unavailable as why:
                could_not_ask(f"whether {server.name} holds WAL for a slot", why)

    def refusal(self, live: Self) -> str | None:
        return self._against_leaving(live) or self._against_switchover(live)

    def _against_leaving(self, live: Self) -> str | None:
        """Why a server that was here before the stack cannot be taken out of it: it follows another one, or would."""
        for server in live.servers:
            if not server.adopted or self._server(server.name):
                continue
            try:
                gives_up = server.name in live.writers and self.primary not in live.writers
                if gives_up or server.is_standby():
                    return left_alone(server)
            except (Unavailable, AccessDenied) as unknown:  # it is asked again before anything of it is taken away
                could_not_ask(f"whether {server.name} is a standby", unknown)
        return None

    def _against_switchover(self, live: Self) -> str | None:
        if self.primary not in live.writers:
            return self._unable(live) or self._switchover(live).refusal()
        mine = self._server(self.primary)
        if mine and self.primary in live.unfinished:
            return against_going_back(mine, self.servers)
        return self._against_former_ones(live)

    def _against_former_ones(self, live: Self) -> str | None:
        """A standby that was promoted beside the primary is for its own resources to say: it is cloned again. But what was
        written into a primary of before is not given up."""
        mine = self._server(self.primary)
        for name in live.writers:
            other = self._server(name, *live.servers)
            if mine and other and other != mine and other.timeline() < mine.timeline():
                return (
                    f"{name} also accepts writes, and did so before {self.primary} became the primary: nothing is changed. Find "
                    f"out whether what was written there since is needed, stop {name}, and run this again"
                )
        return None

    def costs(self, live: Self | None) -> Iterable[Cost]:
        # The engine asks for a refresh too, and what it has then for declared is what was found before: none or several.
        if live is None or self.primary in live.writers or not self._server(self.primary) or self._unable(live):
            return ()
        return self._switchover(live).costs()

    def _unable(self, live: Self) -> str | None:
        """Why there is no switchover to be made of it, whatever the servers say."""
        if live.primary == NOBODY:
            return (
                f"server {self.primary} is declared as the primary and is a standby now, and no other server is the primary: "
                "nothing is changed. Find out which one has all that was written, and make it the primary: remove standby.signal "
                "from its data directory where it is there, and restart it"
            )
        if self._server(live.primary, *live.servers) is None:
            return (
                f"these servers accept writes: {live.primary}; the declared primary is {self.primary}. Nothing is changed. Stop "
                "those that must not, and run this again"
            )
        return None

    def _switchover(self, live: Self) -> Switchover:
        old, new = self._server(live.primary, *live.servers), self._server(self.primary)
        assert old  # noqa: S101 - `_unable` says so
        assert new  # noqa: S101 - the plan names one of them
        return Switchover(old, new, self.servers, self.role, self.rules, self.database, encryption=self.encryption)

    def create(self) -> Self:
        """Nothing is made: a stack that does not know its servers yet promotes none of them."""
        live = self.read()
        if self.primary not in live.writers:
            raise Conflict(
                self._unable(live)
                or f"{live.primary} is the primary, and the stack file says {self.primary}: nothing is changed. Write primary: "
                f"{live.primary}; once the stack has its servers, another one can be made the primary"
            )
        self._settle(live)
        return self

    def update(self, live: Self) -> Self:
        everywhere = self.replace(primary=live.primary, servers=self._with(live))
        now = everywhere.read()
        if self.primary not in now.writers:
            if unable := self._unable(now):
                raise Conflict(unable)
            self._switchover(now).run()
            forget_primaries()
            now = everywhere.replace(primary=self.primary).read()
        elif former := self._against_former_ones(now):
            raise Conflict(former)
        self._settle(now)
        mine = self._server(self.primary)
        if mine and mine.standing() == "primary":
            with mine.session() as session:
                let_go(session, self.synchronous, live.synchronous)
        return self

    def _settle(self, live: Self) -> None:
        """Take away what a switchover has left, on servers that are not declared any more, too."""
        for server in live.servers:
            if server.name not in live.unfinished:
                continue
            if server.name != self.primary:
                end(server, live.servers, self.primary)
            elif why := against_going_back(server, live.servers) or go_back(server, live.servers):
                raise Conflict(why)
        if live.stray_slots:
            for server in live.servers:
                drop_slots(server, server.strays(live.servers, self.primary), idle=True)

    def delete(self) -> None:
        """Servers go by themselves."""
