"""What it takes to move a running cluster to another key provider: told before anything is planned."""

from collections.abc import Iterator
from dataclasses import dataclass

from psycopg import sql

from tde_replication import hosts
from tde_replication.cluster_plan import ClusterPlan
from tde_replication.contradictions import shown
from tde_replication.errors import NoExtension, UserError
from tde_replication.postgres.host_file import token_file
from tde_replication.postgres.pg_tde import PROVIDERS, PgTde
from tde_replication.postgres.principal_key import SCOPES
from tde_replication.postgres.session import server_session
from tde_replication.unasked import unless_new


@dataclass(frozen=True)
class _Bound:
    """A principal key that is set on the primary."""

    scope: str
    database: str
    key: str
    provider: str

    @property
    def told(self) -> str:
        what = f"the key of database {self.database}" if self.scope == "database" else f"the {self.scope} key"
        return f"{what} ({self.key})"


@dataclass(frozen=True)
class _Asked:
    bound: list[_Bound]
    places: dict[str, tuple[str, str]]
    """URL and mount of each key provider in a Vault."""


def check_move(plan: ClusterPlan) -> tuple[list[str], list[str]]:
    """Mistakes, and notices. One key provider takes the place of another only as a whole: its token goes in the end."""
    primary, provider = plan.primary.placement, plan.cluster.vault.provider
    try:
        asked = _ask(plan)
    except UserError as why:
        unless_new(hosts.host(primary.address), primary.data, "which key provider the servers use", why)
        return [], []
    # One that the stack has not made stays, and so does whatever uses it.
    left = [one for one in asked.bound if one.provider != provider and _is_ours(plan, one.provider)]
    stays = [one for one in left if not _declared(plan, one)]
    mistakes = [
        f"cluster.vault.provider: {one.told} is of the key provider {one.provider} and would stay there, while {provider} "
        f"takes its place and its token is removed: {_todo(one)}"
        for one in stays
    ]
    mistakes += [one for former in sorted({one.provider for one in left}) for one in _gives_away(plan, asked, former)]
    return mistakes, [
        _notice(plan, former, *asked.places.get(former, ("", ""))) for former in sorted({one.provider for one in left})
    ]


def _gives_away(plan: ClusterPlan, asked: _Asked, former: str) -> Iterator[str]:
    """By another provider's name, nothing compares whose the mount was: a disposable stack would remove its own with the keys."""
    vault, address = plan.cluster.vault, plan.vault_address
    if (
        vault.existing
        and asked.places.get(former, ("", ""))[1] == plan.mount
        and address.made_for(plan.mount, plan.name)
    ):
        yield (
            f'cluster.vault.existing: "{plan.mount}" was made by this stack, and another vault.provider in the same edit would '
            "have it removed with its keys: change one of the two, run `up`, and change the other"
        )


def _ask(plan: ClusterPlan) -> _Asked:
    primary, purpose = plan.primary.placement, "cluster.vault.provider"
    host = hosts.host(primary.address)
    with server_session(host, primary.data, purpose, plan.cluster.database) as server:
        tde = PgTde(server)
        of_server = [
            _Bound(scope, "", *found) for scope in ("server", "default") if (found := SCOPES[scope].bound(tde))
        ]
        query = sql.SQL("SELECT name, options->>'url', options->>'mountPath' FROM {} WHERE type = 'vault-v2'").format(
            tde.table(PROVIDERS)
        )
        places = {str(name): (str(url), str(mount)) for name, url, mount in server.rows(query)}
        names = [name for (name,) in server.rows("SELECT datname FROM pg_database WHERE datallowconn ORDER BY 1")]
    default = [(one.key, one.provider) for one in of_server if one.scope == "default"]
    own = []
    for name in names:
        try:
            with server_session(host, primary.data, purpose, name) as server:
                found = SCOPES["database"].bound(PgTde(server))
        except NoExtension:
            continue
        if found and found not in default:
            own.append(_Bound("database", name, *found))
    return _Asked([*of_server, *own], places)


def _is_ours(plan: ClusterPlan, provider: str) -> bool:
    """Whether the stack has made it: then the token that it opens lies beside the data."""
    primary = plan.primary.placement
    names = hosts.host(primary.address).listing(primary.data.parent)
    return token_file(plan.name, provider) in names


def _declared(plan: ClusterPlan, bound: _Bound) -> bool:
    """Whether the stack sets another key in its place."""
    if bound.scope == "database":
        return bound.database in plan.cluster.keys
    return bound.scope in plan.cluster.key.scope


def _todo(bound: _Bound) -> str:
    if bound.scope == "database":
        return f"declare a key for that database, too (keys.{shown(bound.database)}.name)"
    return f"add {bound.scope} to key.scope"


def _notice(plan: ClusterPlan, former: str, url: str, mount: str) -> str:
    """What becomes of the one that is left."""
    provider, elsewhere = plan.cluster.vault.provider, plan.cluster.vault.name and url != plan.vault_url
    there = f"The keys in mount {mount} stay in {f'the Vault at {url}' if elsewhere else 'Vault'}, because backups need them"
    if mount == plan.mount and not elsewhere:
        there = f"Both have their keys in mount {mount}"
    elif not (plan.mount_stays or plan.cluster.vault.existing):
        where = f"{mount} of the Vault at {url}" if elsewhere else mount
        there = (
            f"Mount {where} is removed at the end, with its keys, because the stack is disposable: backups need them"
        )
    return (
        f"key provider {provider} takes the place of {former}: both are there until every server has rotated to a key of "
        f"{provider}; then `up` deletes {former} from pg_tde, and its token and CA files from the servers. {there}"
    )
