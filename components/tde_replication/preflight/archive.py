"""What servers have against the declared archive: programs, pgBackRest's configuration, a stanza of another cluster, and commands
that an adopted server has of its own."""

from collections.abc import Iterator
from dataclasses import dataclass

from tde_replication import hosts
from tde_replication.cluster_plan import ClusterPlan
from tde_replication.errors import CommandFailed, UserError
from tde_replication.hosts.base import Host
from tde_replication.member import Member
from tde_replication.parallel import parallel_map
from tde_replication.postgres import pgbackrest
from tde_replication.postgres.session import server_session
from tde_replication.postgres.stanza import another_repository, of_another
from tde_replication.unasked import could_not_ask, unless_new

PLACE = "cluster.archive.pgbackrest"
OWN = (
    "SELECT name, setting FROM (SELECT DISTINCT ON (lower(name)) lower(name) AS name, setting FROM pg_file_settings "
    "WHERE name IS NOT NULL ORDER BY lower(name), seqno DESC) AS files WHERE name = ANY(%s)"
)


@dataclass(frozen=True)
class _Asked:
    """What one server's machine says."""

    mistakes: tuple[str, ...] = ()
    stanza: pgbackrest.Stanza | None = None


def check_archive(plan: ClusterPlan) -> tuple[list[str], list[str]]:
    """Mistakes and notices. Nothing of a machine or container that is not there yet."""
    if not (archive := plan.cluster.archive):
        return [], []
    name = archive.pgbackrest.stanza
    answers = parallel_map(lambda one: _ask(plan, one, name), plan.members)
    asked = dict(zip((member.name for member in plan.members), answers, strict=True))
    mistakes = [line for one in answers for line in one.mistakes]
    found = asked[plan.primary.name].stanza
    if found and not found.missing and not found.problem:
        mistakes += [
            f"{PLACE}: {another_repository(name, server)}"
            for server, one in asked.items()
            if one.stanza and one.stanza.missing
        ]
        identifier = _identifier(plan.primary)
        if identifier and found.system_identifier != identifier:
            mistakes.append(
                f"{PLACE}.stanza: {of_another(name, f'another cluster (system identifier {found.system_identifier})')}"
            )
    clear = sorted({key for one in answers if one.stanza for key in one.stanza.in_clear})
    if not clear or not plan.in_force:
        return mistakes, []
    notice = (
        f"repository {', '.join(map(str, clear))} of stanza {name} is not encrypted: WAL is archived in clear there. Set "
        "repo1-cipher-type in pgBackRest's configuration, before the stanza is made (docs/backup.md)"
    )
    return mistakes, [notice]


def _ask(plan: ClusterPlan, member: Member, name: str) -> _Asked:
    host, place = hosts.host(member.placement.address), member.placement
    try:
        if not host.listing(place.binaries):
            return _Asked()
        if mistake := _against_program(host, member):
            return _Asked((mistake,))
        mistakes = [*_against_wrappers(plan, host, member), *_against_own(member)]
        return _Asked(tuple(mistakes), pgbackrest.stanza(host, name))
    except CommandFailed as why:
        words = pgbackrest.told(why.output.splitlines())
        return _Asked((f"{PLACE}: on {member.name}, `pgbackrest info` failed as account {host.account}: {words}",))
    except UserError as why:
        could_not_ask(f"whether {member.name} can archive its WAL", why)
        return _Asked()


def _against_program(host: Host, member: Member) -> str | None:
    known = pgbackrest.version(host)
    if known is None:
        return (
            f"{PLACE}: there is no pgbackrest on {member.name}: install it there (any server may become the primary), or leave "
            "archive out"
        )
    oldest = pgbackrest.OLDEST.get(member.placement.version or 0)
    if oldest and known < oldest:
        have, need = (".".join(map(str, one)) for one in (known, oldest))
        return (
            f"{PLACE}: pgBackRest {have} on {member.name} does not know PostgreSQL {member.placement.version}: install {need} or "
            "newer"
        )
    return None


def _against_wrappers(plan: ClusterPlan, host: Host, member: Member) -> Iterator[str]:
    if not plan.in_force:
        return
    if plan.cluster.wal_encryption:
        missing = {pgbackrest.DECRYPT, pgbackrest.ENCRYPT} - set(host.listing(member.placement.binaries))
        if missing:
            yield (
                f"{PLACE}: {member.name} has no {' and no '.join(sorted(missing))} in {member.placement.binaries}, by which "
                "encrypted WAL is archived: install all of pg_tde there"
            )
    elif host.serves(member.placement.data) and _encrypts_wal(host, member):
        yield (
            f"cluster.walEncryption: WAL of {member.name} is encrypted until its restart, and would be archived so that no other "
            "server can read it: take archive out first, and declare it again once WAL is in clear"
        )


def _encrypts_wal(host: Host, member: Member) -> bool:
    with server_session(host, member.placement.data, f"server {member.name}") as server:
        return bool(server.row("SELECT 1 FROM pg_settings WHERE name = 'pg_tde.wal_encrypt' AND setting = 'on'"))


def _against_own(member: Member) -> Iterator[str]:
    """Of an adopted server: what it archives by already. Where one of the commands is the stack's, the rest is drift."""
    host, place = hosts.host(member.placement.address), member.placement
    if not member.adopted or not host.serves(place.data):
        return
    with server_session(host, place.data, f"server {member.name}") as server:
        own = {name: value for name, value in server.rows(OWN, [list(pgbackrest.PARAMETERS)]) if value}
    commands = {name: own[name] for name in pgbackrest.PARAMETERS[1:] if name in own}
    if not commands or any(value == member.parameters.get(name) for name, value in commands.items()):
        return
    yield (
        f"cluster.archive: {member.name} was here before the stack and has {', '.join(commands)} of its own, which is left: "
        "remove it there first, or leave archive out"
    )


def _identifier(member: Member) -> str:
    host = hosts.host(member.placement.address)
    try:
        with server_session(host, member.placement.data, PLACE) as server:
            return str(server.value("SELECT system_identifier FROM pg_control_system()"))
    except UserError as why:
        unless_new(host, member.placement.data, "whether the stanza is of this cluster", why)
        return ""
