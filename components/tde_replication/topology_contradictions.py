"""What is wrong with who streams from whom: mistakes of `primary`, `upstream`, `synchronous`, and of what these need."""

from collections.abc import Sequence

from tde_replication.hosts.addresses import is_loopback
from tde_replication.postgres.guc import is_off, switch
from tde_replication.settings import FOLLOWED_PARAMETERS, Cluster, Server

CLONES_AT_ONCE = 4
"""Pulumi's process for dynamic providers has as many workers."""


def of_topology(cluster: Cluster) -> list[str]:
    """The first kind that there is: without a primary, nobody can tell what is wrong with its standbys."""
    if why := _no_primary(cluster):
        return [f"cluster.primary: {why}: {', '.join(cluster.servers)}"]
    return _wrong_upstreams(cluster) or _of_primary(cluster) + _of_synchronous(cluster) + _of_upgrades(cluster)


def _no_primary(cluster: Cluster) -> str | None:
    if "servers" in cluster.model_fields_set and "primary" not in cluster.model_fields_set:
        return "missing; write the name of one of the servers"
    return None if cluster.primary in cluster.servers else f'there is no server "{cluster.primary}"; write one of'


def _wrong_upstreams(cluster: Cluster) -> list[str]:
    """Without them, nobody can tell who streams from whom."""
    found = [
        f'{one.place}.upstream: there is no server "{one.upstream}"; write one of: {", ".join(cluster.servers)}'
        for one in cluster.servers.values()
        if one.upstream and one.upstream not in cluster.servers
    ]
    for standby in [] if found else cluster.standbys:
        way = [standby.name]
        while way[-1] != cluster.primary and way[-1] not in way[:-1]:
            way.append(cluster.upstream(cluster.servers[way[-1]]).name)
        if way[-1] == standby.name:  # one that only leads into a circle is told of by those in it
            circle = " from ".join(way)
            found.append(f"{standby.place}.upstream: {circle}: none of them would stream from the primary")
    return found


def _of_primary(cluster: Cluster) -> list[str]:
    """What is wrong with it and with those that others stream from, or with a standby of one of them."""
    primary, tls = cluster.primary_server, cluster.replication.tls
    found = [f"{standby.place}.{mistake}" for standby in cluster.standbys for mistake in _too_low(standby, primary)]
    found += _of_adopted([server for server in cluster.members if server.adopt])
    if primary.apply_delay:
        found.append(f"{primary.place}.applyDelay: a primary replays nothing: leave it out")
    found += [mistake for source in cluster.sources for mistake in _too_few(cluster, source)]
    found += _between_kinds(cluster)
    found += [
        f"{standby.place}.settings.sync_replication_slots: PostgreSQL synchronizes slots from a primary alone, and "
        f"{standby.name} streams from {above.name}: leave it out"
        for standby in cluster.standbys
        for above in [cluster.upstream(standby)]
        if above is not primary and not is_off(standby.settings.get("sync_replication_slots", "off"))
    ]
    for source in cluster.sources:
        if source.adopt:
            continue
        if why := unreached(cluster, source, source.listens):
            found.append(f"{source.place}.listen: {why}: name an address of its network, or *")
        if cluster.replication.encrypted and switch(source.settings.get("ssl", "off")) != "on":
            part = "a primary" if source is primary else "an upstream"
            found.append(
                f'cluster.replication.tls: "{tls}" needs {part} that speaks TLS: set ssl: on, ssl_cert_file and ssl_key_file in '
                f"servers.{source.name}.settings"
            )
    return found


def _of_adopted(adopted: Sequence[Server]) -> list[str]:
    found = [
        f"{server.place}.adopt: only one server is adopted, which was the primary before the stack, and {adopted[0].name} is: "
        "leave it out; a standby is always made by a base backup"
        for server in adopted[1:]
    ]
    for server in adopted[:1]:
        if server.kind == "docker":
            found.append(
                f"{server.place}.adopt: only a server on a machine is adopted; the stack always makes its containers"
            )
        if not server.data_directory:
            found.append(f"{server.place}.dataDirectory: missing; it says which server is adopted")
        if server.port is None:
            found.append(f"{server.place}.port: missing; the others must know where the adopted server listens")
    return found


def _of_upgrades(cluster: Cluster) -> list[str]:
    which = cluster.minor_upgrade
    may = [one for one in cluster.members if which == "all" or one.name != cluster.primary]
    if which is None or any(one.kind != "docker" and one.restart == "allowed" for one in may):
        return []
    named = "servers" if which == "all" else "standbys"
    why = "a container gets another version by another image, and restart: refused forbids it"
    return [f"cluster.minorUpgrade: none of the {named} would be restarted ({why}): remove it"]


def _of_synchronous(cluster: Cluster) -> list[str]:
    if cluster.synchronous is None:
        return []
    place, names = "cluster.synchronous", cluster.synchronous_standbys
    found = [
        f'{place}.standbys: there is no server "{name}"; write some of: {", ".join(cluster.servers)}'
        for name in names
        if name not in cluster.servers
    ]
    found += [
        f"{place}.standbys: {name} streams from {above.name}, and commits wait only for what streams from the primary: leave it "
        "out"
        for name in names
        if name in cluster.servers
        for above in [cluster.upstream(cluster.servers[name])]
        if above is not cluster.primary_server
    ]
    if not found and cluster.synchronous.number > len(names):
        count = f"{len(names)} ({', '.join(names)})" if names else "none"
        found.append(
            f"{place}.number: commits would wait for ever: {cluster.synchronous.number} synchronous standbys are wanted, and "
            f"beside the primary {cluster.primary} there is {count}"
        )
    return found


def _too_low(standby: Server, primary: Server) -> list[str]:
    both = sorted(standby.settings.keys() & primary.settings.keys() & FOLLOWED_PARAMETERS)
    return [
        f"settings.{name}: {own} is lower than the primary's {least}: the standby would stop replaying"
        for name in both
        for own, least in [(standby.settings[name], primary.settings[name])]
        if own.isdecimal() and least.isdecimal() and int(own) < int(least)
    ]


def _too_few(cluster: Cluster, source: Server) -> list[str]:
    """Connections and slots that a server has not for all that stream from it: an adopted one has its own values."""
    if source.adopt:
        return []
    count = sum(cluster.upstream(standby) is source for standby in cluster.standbys)
    clones = min(len(cluster.standbys), CLONES_AT_ONCE) if source is cluster.primary_server else 0
    # What streams from another standby is cloned with a slot of the backup's own.
    passing = min(len(cluster.standbys) - count, CLONES_AT_ONCE) if clones else 0
    needed = {
        "max_replication_slots": (
            count + passing,
            "one for each" + (", and another for each clone that streams elsewhere" if passing else ""),
        ),
        "max_wal_senders": (count + clones, "one for each" + (", and another for each clone" if clones else "")),
    }
    values = {name: source.settings.get(name, "10") for name in needed}
    return [
        f"{source.place}.settings.{name}: {values[name]} is too low for {count} standbys: set it to {least} or more ({why})"
        for name, (least, why) in needed.items()
        if values[name].isdecimal() and 0 < int(values[name]) < least
    ]


REACHED = {
    "local": "a local server is reached on this machine's loopback alone",
    "docker": "a server in a container is reached on its docker network alone",
}
"""Why nothing on another kind of host streams from it."""


def _between_kinds(cluster: Cluster) -> list[str]:
    """What a standby cannot do, or must say, that is on another kind of host than the primary, or than what it streams from."""
    found = []
    for standby in cluster.standbys:
        for source in {one.name: one for one in (cluster.primary_server, cluster.upstream(standby))}.values():
            if standby.kind == source.kind:
                continue
            if why := REACHED.get(source.kind):
                found.append(
                    f"{standby.place}.host: {why}: put {source.name} on a machine that is reached by ssh, or both on one kind"
                )
            elif not standby.network:
                found.append(
                    f"{standby.place}.address: missing; for pg_hba.conf, name where its connections come from as "
                    f"{source.machine} sees them: this machine, as 192.0.2.7/32"
                )
    return found


def unreached(cluster: Cluster, source: Server, listen: Sequence[str]) -> str | None:
    """Why nothing could connect to a server that has these listen_addresses: all clones are of the primary."""
    all_clones = source is cluster.primary_server
    following = [one for one in cluster.standbys if all_clones or cluster.upstream(one) is source]
    if not following:
        return None
    if not listen:
        return "no address, and standbys connect by TCP"
    elsewhere = [
        server.name
        for server in following
        if server.machine != source.machine and (server.kind == source.kind or source.kind not in REACHED)
    ]
    if not elsewhere or not all(map(is_loopback, listen)):
        return None
    verb = "is" if len(elsewhere) == 1 else "are"
    return f"{', '.join(listen)} can be reached on its own machine alone, and {', '.join(elsewhere)} {verb} on another machine"
