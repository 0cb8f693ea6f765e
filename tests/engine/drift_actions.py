"""What somebody or something does behind our back: the deeds of the drift table."""

import os
import shutil
import subprocess
from collections.abc import Callable

import hvac.exceptions

from tde_replication.hosts.account import service_account
from tests.engine.cluster import Cluster
from tests.engine.workspace import eventually


def sql(query: str, name: str = "db1") -> Callable[[Cluster], object]:
    return lambda cluster: cluster.sql(name, query)


def hba(change: Callable[[str], str], *, reload: bool = True) -> Callable[[Cluster], object]:
    def act(cluster: Cluster) -> None:
        cluster.edit("db1", "pg_hba.conf", change)
        if reload:
            cluster.sql("db1", "SELECT pg_reload_conf()")

    return act


def ours(text: str) -> str:
    return next(line for line in text.splitlines(keepends=True) if line.rstrip().endswith("# tde-replication"))


OPEN = "SELECT count(*)::int FROM pg_hba_file_rules WHERE address = '0.0.0.0' AND 'replication' = ANY(database)"
"""How many lines let everybody replicate."""


def without_ours(text: str) -> str:
    return text.replace(ours(text), "")


def auto_conf(name: str, line: str) -> Callable[[Cluster], object]:
    def act(cluster: Cluster) -> None:
        parameter = line.partition("=")[0].strip()
        cluster.edit(
            name,
            "postgresql.auto.conf",
            lambda text: (
                "".join(old for old in text.splitlines(keepends=True) if not old.startswith(parameter)) + line + "\n"
            ),
        )
        cluster.sql(name, "SELECT pg_reload_conf()")

    return act


def drop_slot(cluster: Cluster, name: str) -> None:
    cluster.stop(name)
    eventually(lambda: f"tde_{name}" not in cluster.streaming())
    cluster.sql("db1", f"SELECT pg_drop_replication_slot('tde_{name}')")


def write_wal(cluster: Cluster, files: int) -> None:
    """Stop db3, and write more WAL than its slot may hold back then; the slot of db2, which has all of it, is not concerned."""
    cluster.stop("db3")
    for _ in range(files):
        cluster.sql("db1", "SELECT pg_logical_emit_message(false, '', repeat('x', 1000000)); SELECT pg_switch_wal()")
    written = cluster.sql("db1", "SELECT pg_current_wal_lsn()::text")[0][0]
    behind = f"SELECT slot_name FROM pg_replication_slots WHERE restart_lsn < '{written}'"
    eventually(lambda: cluster.sql("db1", behind) == [("tde_db3",)])
    cluster.sql("db1", "ALTER SYSTEM SET max_slot_wal_keep_size = '16MB'; SELECT pg_reload_conf()")


def lose_wal(cluster: Cluster) -> None:
    write_wal(cluster, 5)
    cluster.sql("db1", "CHECKPOINT")
    cluster.sql("db1", "ALTER SYSTEM SET max_slot_wal_keep_size = '4GB'")
    cluster.sql("db1", "SELECT pg_reload_conf()")
    status = cluster.sql("db1", "SELECT wal_status FROM pg_replication_slots WHERE slot_name = 'tde_db3'")
    assert status == [("lost",)], status


def promote(cluster: Cluster) -> None:
    cluster.sql("db3", "SELECT pg_promote()")


def fail_over(cluster: Cluster) -> None:
    """As somebody does by hand whose primary has died."""
    promote(cluster)
    eventually(lambda: cluster.sql("db3", "SELECT pg_is_in_recovery()") == [(False,)])
    cluster.stop("db1")


def raise_on_primary(cluster: Cluster) -> None:
    cluster.sql("db1", "ALTER SYSTEM SET max_locks_per_transaction = 80")
    cluster.stop("db1")
    cluster.start("db1")
    for name in ("db2", "db3"):
        eventually(lambda name=name: cluster.sql(name, "SELECT pg_is_wal_replay_paused()") == [(True,)])  # type: ignore[misc]


def remove_data(name: str) -> Callable[[Cluster], object]:
    def act(cluster: Cluster) -> None:
        cluster.stop(name)
        cluster.host(name).remove(cluster.place(name))

    return act


def write(name: str, suffix: str, content: bytes, mode: int = 0o600) -> Callable[[Cluster], object]:
    return lambda cluster: cluster.host(name).write(cluster.beside(name, suffix), content, mode=mode)


def remove(name: str, suffix: str) -> Callable[[Cluster], object]:
    return lambda cluster: cluster.host(name).remove(cluster.beside(name, suffix))


def let_others_read(cluster: Cluster) -> None:
    path = str(cluster.beside("db2", "vault-token"))
    cluster.host("db2").run(["/bin/chmod", "0644", path], deadline=20)


def give_to_root(name: str) -> Callable[[Cluster], object]:
    return lambda cluster: os.chown(cluster.file(name, "vault-token"), 0, 0)


def bounce(name: str) -> Callable[[Cluster], object]:
    def act(cluster: Cluster) -> None:
        cluster.stop(name)
        cluster.start(name)
        eventually(lambda: f"tde_{name}" in cluster.streaming())

    return act


def without_pg_tde(name: str) -> Callable[[Cluster], object]:
    def act(cluster: Cluster) -> None:
        auto_conf(name, "shared_preload_libraries = ''")(cluster)
        cluster.stop(name)
        cluster.start(name)

    return act


def with_option(name: str, option: str) -> Callable[[Cluster], object]:
    """Start it by hand, with an option on its command line."""

    def act(cluster: Cluster) -> None:
        cluster.stop(name)
        data, log = str(cluster.place(name)), str(cluster.place(name).with_name("postgresql.log"))
        start = [str(cluster.binaries / "pg_ctl"), "start", "--wait", "--pgdata", data, "--log", log]
        cluster.host(name).run([*start, "--options", option], deadline=30)
        eventually(lambda: f"tde_{name}" in cluster.streaming())

    return act


def provider(cluster: Cluster, **changed: str) -> None:
    """Change the key provider by hand."""
    options = {"url": "url", "mount": "mountPath", "token": "tokenPath", "ca": "caPath"}
    arguments = ", ".join(
        f"'{changed[name]}'" if name in changed else f"options->>'{key}'" for name, key in options.items()
    )
    cluster.sql(
        "db1",
        f"SELECT public.pg_tde_change_global_key_provider_vault_v2('vault', {arguments}) "
        "FROM public.pg_tde_list_all_global_key_providers()",
    )


def set_key(scope: str, key: str) -> Callable[[Cluster], object]:
    return sql(
        f"SELECT public.pg_tde_create_key_using_global_key_provider('{key}', 'vault'); "
        f"SELECT public.pg_tde_set_{scope}_key_using_global_key_provider('{key}', 'vault')"
    )


def set_and_restart(parameter: str, value: str) -> Callable[[Cluster], object]:
    def act(cluster: Cluster) -> None:
        cluster.sql("db1", f"ALTER SYSTEM SET {parameter} = '{value}'")
        restart_primary(cluster)

    return act


def restart_primary(cluster: Cluster) -> None:
    cluster.stop("db1")
    cluster.start("db1")
    eventually(lambda: cluster.streaming() == ["tde_db2", "tde_db3"])


def start_as_primary(cluster: Cluster) -> None:
    """Start db3 without its standby.signal: it comes up as a primary, on the timeline of the real one."""
    cluster.stop("db3")
    cluster.host("db3").remove(cluster.place("db3") / "standby.signal")
    cluster.start("db3")


def unreserve(cluster: Cluster) -> None:
    """Let no checkpoint remove the WAL."""
    write_wal(cluster, 4)
    status = "SELECT wal_status FROM pg_replication_slots WHERE slot_name = 'tde_db3'"
    eventually(lambda: cluster.sql("db1", status) == [("unreserved",)])


def policy(text: str) -> Callable[[Cluster], object]:
    return lambda cluster: cluster.bao.client().sys.create_or_update_policy(f"tde-{cluster.workspace.stack}__db2", text)


def revoke(name: str) -> Callable[[Cluster], object]:
    def act(cluster: Cluster) -> None:
        token = (cluster.host(name).read(cluster.beside(name, "vault-token")) or b"").decode()
        cluster.bao.client(token).auth.token.revoke_self()

    return act


ALL_DOWN = [
    *(("Server", name) for name in ("db1", "db2", "db3")),
    *(("ReplicationCheck", name) for name in ("db2", "db3")),
]


def reboot(cluster: Cluster) -> None:
    for name in ("db3", "db2", "db1"):
        cluster.stop(name)


def another_cluster(name: str) -> Callable[[Cluster], object]:
    def act(cluster: Cluster) -> None:
        data = cluster.data(name)
        cluster.stop(name)
        data.rename(data.with_name("put-aside"))
        account = service_account()
        groups = (account.uid, account.gid) if account.switches else (None, None)
        initdb = [str(cluster.binaries / "initdb"), "-D", str(data), "-U", "postgres", "-A", "trust", "--no-sync"]
        subprocess.run(initdb, check=True, capture_output=True, user=groups[0], group=groups[1], cwd="/")

    return act


def first_cluster(name: str) -> Callable[[Cluster], object]:
    def act(cluster: Cluster) -> None:
        data = cluster.data(name)
        shutil.rmtree(data)
        data.with_name("put-aside").rename(data)
        cluster.start(name)

    return act


MANY = "FROM generate_series(1, current_setting('max_replication_slots')::int - 1)"


def no_slot_left(cluster: Cluster) -> None:
    """Drop db3's slot, and take all that are left."""
    drop_slot(cluster, "db3")
    cluster.sql("db1", f"SELECT pg_create_physical_replication_slot('other_' || generate_series) {MANY}")


def elsewhere(cluster: Cluster) -> None:
    """Copy the keys to another mount, and have the provider look for them there."""
    bao, stack = cluster.bao.client(), cluster.workspace.stack
    bao.sys.enable_secrets_engine("kv", path="elsewhere", options={"version": "2"})
    kv = bao.secrets.kv.v2

    def ready() -> bool:
        """A new mount is unavailable for a brief period."""
        try:
            return bool(kv.read_configuration(mount_point="elsewhere"))
        except hvac.exceptions.InvalidRequest:
            return False

    eventually(ready)
    for key in kv.list_secrets("", mount_point=f"tde-{stack}")["data"]["keys"]:
        if not key.endswith("/"):
            value = kv.read_secret_version(key, mount_point=f"tde-{stack}", raise_on_deleted_version=True)
            kv.create_or_update_secret(key, value["data"]["data"], mount_point="elsewhere")
    everything(cluster)
    provider(cluster, mount="elsewhere")


def everything(cluster: Cluster) -> None:
    """Let the primary do all in Vault."""
    text = 'path "*" { capabilities = ["create", "read", "list"] }'
    cluster.bao.client().sys.create_or_update_policy(f"tde-{cluster.workspace.stack}__db1", text)


def back(cluster: Cluster) -> None:
    everything(cluster)
    provider(cluster, mount=f"tde-{cluster.workspace.stack}")
    cluster.bao.client().sys.disable_secrets_engine("elsewhere")


def logical_slot(cluster: Cluster) -> None:
    drop_slot(cluster, "db3")
    cluster.sql("db1", "SELECT pg_create_logical_replication_slot('tde_db3', 'pgoutput')")


def as_standby(cluster: Cluster) -> None:
    cluster.stop("db1")
    (cluster.data("db1") / "standby.signal").touch()
    cluster.start("db1")


def as_primary(cluster: Cluster) -> None:
    cluster.stop("db1")
    (cluster.data("db1") / "standby.signal").unlink()
    cluster.start("db1")


def token_directory(cluster: Cluster) -> None:
    path = cluster.file("db3", "vault-token")
    path.unlink()
    path.mkdir()
