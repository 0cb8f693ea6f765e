"""Whether servers could be rewound, where the stack file says so: told before one of them has to be."""

from collections.abc import Sequence

from tde_replication import hosts, settings
from tde_replication.errors import UserError
from tde_replication.hosts.placement import Placement
from tde_replication.parallel import parallel_map
from tde_replication.postgres.rewind_checks import against_programs
from tde_replication.unasked import could_not_ask


def check_rejoin(
    cluster: settings.Cluster, names: Sequence[str], placements: Sequence[Placement], *, in_force: bool
) -> list[str]:
    """Mistakes; `in_force`: whether pg_tde is used. Nothing of a machine or container that is not there yet."""
    if cluster.rejoin != "rewind":
        return []

    def ask(named: tuple[str, Placement]) -> str | None:
        name, placement = named
        host = hosts.host(placement.address)
        try:
            if not host.listing(placement.binaries):
                return None
            return against_programs(host, placement.binaries, encrypted=in_force)
        except UserError as why:
            could_not_ask(f"whether {name} could be rewound", why)
            return None

    found: dict[str, list[str]] = {}
    servers = list(zip(names, placements, strict=True))
    for name, why in zip(names, parallel_map(ask, servers), strict=True):
        if why:
            found.setdefault(why, []).append(name)
    return [f"cluster.rejoin: {', '.join(those)} cannot be rewound: {why}. Write clone" for why, those in found.items()]
