"""The table of drift of other shapes than a primary with standbys of its own: cascading, synchronous and delayed standbys, before
and after a switchover, and one that has not come to its end.

docs/drift.md is made of it too.
"""

from collections.abc import Mapping
from typing import Any

from tde_replication.postgres.topology_server import DEMOTED, NOTE, SIGNAL
from tests.engine import drift_actions
from tests.engine.cluster import Cluster
from tests.engine.drift import ROLE, RULE, Row
from tests.engine.workspace import eventually

SYNCHRONOUS = {"standbys": ["db1", "db2"], "whenTooFew": "continue"}
SERVERS: Mapping[str, dict[str, Any]] = {"db3": {"upstream": "db1"}, "db4": {"upstream": "db2", "applyDelay": "1h"}}
"""db1 and db2 are each other's synchronous standby, and one of db3 and db4 streams from the one that is a standby."""
UPSTREAMS = {
    "db1": {"db2": "db1", "db3": "db1", "db4": "db2"},
    "db2": {"db1": "db2", "db3": "db1", "db4": "db2"},
}
"""By the primary: who streams from whom."""
TOPOLOGY, NAMES = {"Topology drift": "update"}, {"SynchronousStandbys synchronous_standby_names": "update"}


def _dropped(name: str, upstream: str) -> Row:
    def act(cluster: Cluster) -> None:
        cluster.stop(name)
        slot = f"SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = 'tde_{name}'"
        active = f"SELECT active FROM pg_replication_slots WHERE slot_name = 'tde_{name}'"
        eventually(lambda: cluster.sql(upstream, active) == [(False,)])
        cluster.sql(upstream, slot)

    plan = {f"ReplicationSlot tde_{name} on {upstream}": "create"} | _started(name)
    return Row("ReplicationSlot", f"{name}'s dropped on its upstream, with {name} down", act, plan, repair=THERE)


THERE = "in place: the WAL is still there"


def _started(name: str) -> dict[str, str]:
    return {f"Server {name}": "update", f"ReplicationCheck {name}": "update"}


def _without_rules(name: str) -> Row:
    def act(cluster: Cluster) -> None:
        cluster.edit(name, "pg_hba.conf", drift_actions.without_ours)

    says = ("upstreams",)
    return Row("HbaRule", f"line removed on {name}, a standby that another streams from", act, {RULE: "update"}, says)


def _names(primary: str, value: str, shown: str) -> Row:
    query = f"ALTER SYSTEM SET synchronous_standby_names = '{value}'; SELECT pg_reload_conf()"
    what = f"set to {value!r} by ALTER SYSTEM"
    return Row("SynchronousStandbys", what, drift_actions.sql(query, primary), NAMES, (shown,), "in place, reload")


def _stray(name: str, *others: tuple[str, str]) -> Row:
    """Slots of servers that stream from another one: (slot, on)."""

    def act(cluster: Cluster) -> None:
        for slot, on in others:
            cluster.sql(on, f"SELECT pg_create_physical_replication_slot('tde_{slot}', true)")

    says = tuple(f'"tde_{slot} on {on}"' for slot, on in others)
    return Row("Topology", f"slots of servers that stream from elsewhere, made on {name}", act, TOPOLOGY, says)


def _on_time(primary: str) -> Row:
    query = "ALTER SYSTEM SET recovery_min_apply_delay = 0; SELECT pg_reload_conf()"
    says = ('recovery_min_apply_delay : "0ms" => "1h"',)
    what = f"its delay taken away by ALTER SYSTEM, with {primary} as the primary"
    return Row(
        "Server (standby)",
        what,
        drift_actions.sql(query, "db4"),
        {"Server db4": "update"},
        says,
        repair="in place, reload",
    )


def _without_synchronous(name: str, below: str) -> Row:
    return Row(
        "Server (standby)",
        f"the synchronous one killed ({name}), from which {below} streams; commits wait",
        lambda cluster: cluster.kill(name),
        {**TOPOLOGY, **NAMES, **_started(name), f"ReplicationCheck {below}": "update"},
        ('commits : "wait" => "go on"', '"not known: its upstream does not answer" => "from its slot"'),
        repair="start; commits go on meanwhile",
    )


def _astray(name: str, upstream: str) -> Row:
    def act(cluster: Cluster) -> None:
        drift_actions.auto_conf(name, "primary_conninfo = 'host=192.0.2.1 user=nobody'")(cluster)
        active = f"SELECT active FROM pg_replication_slots WHERE slot_name = 'tde_{name}'"
        eventually(lambda: cluster.sql(upstream, active) == [(False,)])

    what = f"primary_conninfo of a cascading one points elsewhere ({name})"
    return Row("Server (standby)", what, act, _started(name), ("primary_conninfo",), repair="in place, reload")


def half_done(cluster: Cluster, old: str) -> None:
    """As an `up` leaves it that was killed before the promotion: the former primary is kept from being one, and has stopped."""
    for name in (NOTE, DEMOTED, SIGNAL):
        cluster.host(old).write(cluster.place(old) / name, b"", mode=0o600)
    cluster.stop(old)


def _half_done(old: str, *below: str) -> Row:
    return Row(
        "Topology",
        f"a switchover from {old} was begun, and {old} is declared",
        lambda cluster: half_done(cluster, old),
        {**TOPOLOGY, f"Server {old}": "update", **{f"ReplicationCheck {name}": "update" for name in below}},
        ("unfinished", f'"{old}"', "running : false => true"),
        repair="it goes back",
    )


FIRST: dict[str, list[Row]] = {
    "lost on an upstream": [
        _dropped("db4", "db2"),
        _without_rules("db2"),
        _names("db1", "", '+ names : "ANY 1 (\\"db2\\")"'),
        _stray("db2", ("db3", "db2")),
    ],
    "set by hand": [_on_time("db1"), _names("db1", "*", '"*" => "ANY 1 (\\"db2\\")"'), _astray("db3", "db1")],
    "no synchronous standby": [_without_synchronous("db2", "db4")],
}
"""With the first server as the primary: what shares a preview and an `up`."""
SECOND: dict[str, list[Row]] = {
    "lost on an upstream": [
        _dropped("db3", "db1"),
        _without_rules("db1"),
        _names("db2", "", '+ names : "ANY 1 (\\"db1\\")"'),
        _stray("db1 and on the primary db2", ("db4", "db1"), ("db3", "db2")),
        Row(
            "ReplicationRole",
            "lost LOGIN, where the primary is not the first server",
            drift_actions.sql("ALTER ROLE replicator NOLOGIN", "db2"),
            {ROLE: "update"},
            ('[0]: "REPLICATION" => "LOGIN"',),
        ),
        Row(
            "HostFile (Vault token)",
            "removed, of the former primary",
            drift_actions.remove("db1", "vault-token"),
            {"HostFile db1-vault-token": "create"},
        ),
    ],
    "set by hand": [
        _on_time("db2"),
        Row(
            "Server (primary)",
            "parameter changed by ALTER SYSTEM, where the primary is not the first server",
            drift_actions.sql("ALTER SYSTEM SET max_slot_wal_keep_size = '1GB'; SELECT pg_reload_conf()", "db2"),
            {"Server db2": "update"},
            ('max_slot_wal_keep_size : "1024MB" => "4GB"',),
            repair="in place, reload",
        ),
        _astray("db3", "db1"),
    ],
    "no synchronous standby": [_without_synchronous("db1", "db3")],
    "a switchover half done": [_half_done("db2", "db1", "db4")],
}
"""After a switchover to the second."""
SOAK = {"no synchronous standby", "set by hand"}
"""Of the second, for `make soak`: little in it depends on who was the primary first."""
