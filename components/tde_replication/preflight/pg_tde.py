"""Which pg_tde the running servers have, and what is known of it."""

from collections.abc import Sequence

from tde_replication import hosts, settings
from tde_replication.errors import UserError
from tde_replication.hosts.placement import Placement
from tde_replication.parallel import parallel_map
from tde_replication.pg_tde_version import STAND_IN
from tde_replication.postgres.pg_tde import PgTde, is_loaded
from tde_replication.postgres.session import server_session
from tde_replication.status.faults import known_faults
from tde_replication.unasked import unless_new


def notices_of_version(cluster: settings.Cluster, names: Sequence[str], placements: Sequence[Placement]) -> list[str]:
    """Faults that another version is without, and a PostgreSQL that is too old for it: each once, with its servers."""

    def ask(placement: Placement) -> tuple[str, int] | None:
        host = hosts.host(placement.address)
        try:
            with server_session(host, placement.data, "pg_tde", cluster.database) as server:
                number = int(server.value("SELECT current_setting('server_version_num')"))
                return (PgTde(server).version(), number) if is_loaded(server) else None
        except UserError as why:
            unless_new(host, placement.data, f"which pg_tde the server in {placement.data} has", why)
            return None

    found: dict[str, list[str]] = {}
    for name, answer in zip(names, parallel_map(ask, placements), strict=True):
        if answer and STAND_IN not in answer[0]:
            for fault in known_faults(*answer, repaired=True):
                found.setdefault(f"{answer[0]}: {fault}", []).append(name)
    return [f"{', '.join(servers)}: {fault}" for fault, servers in found.items()]
