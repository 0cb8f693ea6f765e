"""Every row of the table of changes, on the real engine: the preview plans just that and says who restarts, and `up` does it."""

import json
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import psycopg
import pytest

from bootstrap.ports import free_ports
from tde_replication.hosts.local.machine import LocalHost
from tests.double.servers import REAL, file_keys
from tests.engine.certificates import Authority
from tests.engine.change import CHANGES, CHECKS, REFUSED, TOKENS, Change, Document, edited, files_of, of_standby
from tests.engine.cluster import Cluster, base_directory
from tests.engine.workspace import Workspace, eventually
from tests.openbao import OpenBao

PROVIDER = "other"
"""What the table of changes leaves the key provider called."""
OTHER_TOKENS = files_of(TOKENS, PROVIDER)
of_one = partial(of_standby, provider=PROVIDER)


@pytest.fixture(scope="module")
def cluster(openbao: OpenBao, encrypted_binaries: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    base = base_directory()
    workspace = Workspace(tmp_path_factory.mktemp("change"), "change", openbao.environment)
    made = Cluster(workspace, base, 2, openbao, binaries=encrypted_binaries)
    workspace.init()
    try:
        workspace.up_well()
        made.sql("db1", "CREATE TABLE secret USING tde_heap AS SELECT 'text' AS t")
        yield made
        workspace.unchanged()
    finally:
        done = workspace.destroy()
        assert done.code == 0, done.text
        shutil.rmtree(base)


@pytest.fixture(autouse=True)
def whole(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[None]:
    """Let no failure spoil the next test."""
    failed = request.session.testsfailed
    yield
    if request.session.testsfailed > failed:
        cluster.workspace.up()


def servers(cluster: Cluster) -> dict[str, dict[str, Any]]:
    """As they are declared, by their names."""
    found: dict[str, dict[str, Any]] = cluster.workspace.cluster["servers"]
    return found


def made_at(cluster: Cluster) -> dict[str, str]:
    """When each data directory was made."""
    return {
        name: json.loads((Path(one["dataDirectory"]) / "tde-replication.json").read_text())["madeAt"]
        for name, one in servers(cluster).items()
    }


def pids(cluster: Cluster) -> dict[str, int]:
    """The process of each server, found by its declared directory."""
    declared = servers(cluster).items()
    found = {name: LocalHost().postmaster(PurePosixPath(one["dataDirectory"])) for name, one in declared}
    return {name: running.pid for name, running in found.items() if running}


def told_to_restart(text: str) -> list[str]:
    return sorted(set(re.findall(r"server (\S+) will be restarted", text)))


def change(
    cluster: Cluster, edit: Callable[[dict[str, Any]], object], plan: dict[str, str], restarts: list[str]
) -> None:
    """Edit the stack file; the preview plans just `plan`, `up` does it, and just `restarts` restart.

    That nothing is left then, the next preview proves, whose whole plan is compared.
    """
    workspace = cluster.workspace
    before, directories = pids(cluster), made_at(cluster)
    workspace.write(edited(workspace.cluster, edit))
    cluster.ports.update({name: one["port"] for name, one in servers(cluster).items()})
    preview = workspace.preview()
    assert preview.code == 0, preview.errors
    assert preview.plan == plan, preview.changes
    assert told_to_restart(preview.text) == restarts
    workspace.up_well()
    after = pids(cluster)
    assert sorted(name for name in after if name in before and before[name] != after[name]) == restarts
    assert {name: made for name, made in made_at(cluster).items() if directories.get(name, made) != made} == {}
    slots = sorted(f"tde_{name}" for name in servers(cluster) if name != "db1")
    eventually(lambda: cluster.streaming() == slots)


@pytest.mark.parametrize("row", CHANGES, ids=str)
def test_a_change_does_what_its_preview_says(cluster: Cluster, row: Change) -> None:
    change(cluster, row.edit, dict(row.plan), list(row.restarts))


@pytest.mark.parametrize(("edit", "says"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_what_would_harm_is_refused_before_anything_is_touched(
    cluster: Cluster, edit: Callable[[dict[str, Any]], object], says: str
) -> None:
    workspace = cluster.workspace
    declared, before = workspace.cluster, pids(cluster)
    workspace.write(edited(declared, edit))
    try:
        preview = workspace.preview()
    finally:
        workspace.write(declared)
    assert preview.code != 0
    assert says in preview.text, preview.text
    assert pids(cluster) == before


def test_another_cipher_tells_what_keeps_the_former_one(cluster: Cluster) -> None:
    """The same number on every server, each of which has keys of its own; and what was made then has the cipher of then."""
    workspace = cluster.workspace
    declared = workspace.cluster

    def edit(document: Document) -> None:
        document |= {"cipher": "aes_256"}
        document["key"] |= {"name": "counted", "scope": ["server", "default"]}

    workspace.write(edited(declared, edit))
    preview = workspace.preview()
    told = r"cipher: aes_256 is for what is made from now on\. .* keeps the cipher .* \(aes_128 until now\), .*: 1 table \(\d+ kB"
    assert re.search(told, preview.text), preview.text
    workspace.up_well()
    assert "is for what is made from now on" not in workspace.preview().text
    cluster.sql("db1", "CREATE TABLE later USING tde_heap AS SELECT 1 AS a")
    eventually(lambda: cluster.sql("db3", "SELECT to_regclass('later') IS NOT NULL") == [(True,)])
    if not REAL:
        assert {name: cipher_of(cluster, name, "later") for name in cluster.names} == dict.fromkeys(
            cluster.names, "aes_256"
        )
        assert {name: cipher_of(cluster, name, "secret") for name in cluster.names} == dict.fromkeys(
            cluster.names, "aes_128"
        )


def cipher_of(cluster: Cluster, name: str, table: str) -> str:
    """What the double's key file on that server says of the table's file."""
    [(database, file)] = cluster.sql(
        name, f"SELECT oid, pg_relation_filenode('{table}') FROM pg_database WHERE datname = current_database()"
    )
    return dict(file_keys(cluster.data(name), f"{database}_keys"))[file]


def test_a_restart_that_is_refused_is_told_at_preview_and_nothing_is_set(cluster: Cluster) -> None:
    workspace = cluster.workspace
    declared, before = workspace.cluster, pids(cluster)

    def edit(document: dict[str, Any]) -> None:
        document["servers"]["db1"] |= {"restart": "refused"}
        document["servers"]["db1"]["settings"] |= {"max_prepared_transactions": "3"}

    workspace.write(edited(declared, edit))
    for done in (workspace.preview(), workspace.up()):
        assert done.code != 0
        assert any("server db1 must be restarted for max_prepared_transactions" in line for line in done.errors), (
            done.errors
        )
    workspace.write(declared)
    workspace.unchanged()
    assert pids(cluster) == before
    query = "SELECT count(*) FROM pg_file_settings WHERE name = 'max_prepared_transactions'"
    assert cluster.sql("db1", query) == [(0,)]


def test_another_password_does_not_break_streaming(cluster: Cluster) -> None:
    """Every sample during the `up` sees both standbys; one that is restarted afterwards comes back with the new password."""
    workspace = cluster.workspace
    stop, samples = threading.Event(), []

    def watch() -> None:
        while not stop.wait(0.02):
            samples.append(
                cluster.sql("db1", "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'")[0][0]
            )

    watcher = threading.Thread(target=watch)
    senders = "SELECT array_agg(pid ORDER BY pid) FROM pg_stat_replication"
    before = cluster.sql("db1", senders)
    workspace.write(edited(workspace.cluster, lambda c: c["replication"].update(passwordVersion=2)))
    watcher.start()
    try:
        workspace.up_well()
    finally:
        stop.set()
        watcher.join()
    assert len(samples) > 10
    assert set(samples) == {2}
    assert cluster.sql("db1", senders) == before
    workspace.unchanged()
    cluster.stop("db3")
    cluster.start("db3")
    eventually(lambda: cluster.streaming() == ["tde_db2", "tde_db3"])


def test_a_key_is_not_rotated_while_a_standby_cannot_open_keys(cluster: Cluster) -> None:
    """Nor for its age. The key that was made for it is set by the next `up`, also where the age counts no more then."""
    workspace = cluster.workspace
    declared = workspace.cluster
    in_use, database = "SELECT key_name FROM pg_tde_server_key_info()", declared.get("database", "postgres")
    [(key,)] = cluster.sql("db1", in_use, database)
    rotated = f"{key}-rotation-1"
    read = cluster.bao.client().secrets.kv.v2.read_secret_metadata
    made = datetime.fromisoformat(read(key, mount_point="tde-change")["data"]["created_time"])
    time.sleep(max(0, 61 - (datetime.now(UTC) - made).total_seconds()))  # it is older, after all the tests above
    path = cluster.file("db3", f"{declared['vault']['provider']}-token")
    good = path.read_text()
    workspace.write(edited(declared, lambda c: c.update(key={**c.get("key", {}), "rotateAfter": "1m"})))
    preview = workspace.preview()
    bindings = {
        f"KeyBinding {scope} key": "update" for scope in declared.get("key", {}).get("scope", ["server", "default"])
    }
    assert preview.plan == {
        f"PrincipalKey {rotated}": "create",
        **bindings,
        **CHECKS,
        f"PrincipalKey {key}": "delete",
    }, preview.changes
    assert f"key {key} is due for rotation: it was created in Vault on {made:%Y-%m-%d}" in preview.text
    cluster.bao.client().auth.token.revoke(good)  # the file is as declared: only the Vault knows
    path.write_text("hvs.nothing")
    done = workspace.up("--target", "**PrincipalKey**", "--target", "**KeyBinding**")  # it would be repaired meanwhile
    assert done.code != 0
    assert any("db3/data cannot open its keys" in line for line in done.errors), done.errors
    assert cluster.sql("db1", in_use, database) == [(key,)]
    before = pids(cluster)
    workspace.write(declared)
    workspace.up_well()
    workspace.unchanged()
    assert cluster.sql("db1", in_use, database) == [(rotated,)]
    assert pids(cluster) == before


def test_a_key_is_not_rotated_during_a_base_backup(cluster: Cluster) -> None:
    workspace = cluster.workspace
    declared = workspace.cluster
    workspace.write(edited(declared, lambda c: c["key"].update(name="sixth")))
    backup = psycopg.connect(
        f"host={cluster.sockets('db1')} port={cluster.ports['db1']} user=postgres replication=database dbname=postgres"
    )
    try:
        backup.pgconn.send_query(b"BASE_BACKUP (CHECKPOINT 'fast')")
        eventually(lambda: cluster.sql("db1", "SELECT count(*) FROM pg_stat_progress_basebackup") == [(1,)])
        done = workspace.up()
    finally:
        backup.close()
    assert done.code != 0
    assert any("a base backup of the primary is running: nothing was changed" in line for line in done.errors), (
        done.errors
    )
    workspace.up_well()
    workspace.unchanged()


def new_standby(cluster: Cluster, name: str, like: dict[str, Any]) -> dict[str, Any]:
    return {
        "port": free_ports(1)[0],
        "dataDirectory": str(cluster.data(name)),
        "binaries": like["binaries"],
    }


def test_ports_change_and_everybody_finds_the_primary(cluster: Cluster) -> None:
    ports = free_ports(2)

    def edit(document: dict[str, Any]) -> None:
        document["servers"]["db1"]["port"], document["servers"]["db2"]["port"] = ports

    plan = dict.fromkeys(("Server db1", "Server db2", "Server db3", "DataDirectory db2", "DataDirectory db3"), "update")
    change(cluster, edit, plan, ["db1", "db2"])


def test_standbys_come_and_go_without_touching_the_others(cluster: Cluster) -> None:
    declared = servers(cluster)
    db4, db5, db6 = (new_standby(cluster, name, declared["db2"]) for name in ("db4", "db5", "db6"))

    def become(**more: dict[str, Any]) -> Callable[[Document], object]:
        return lambda document: document.update(servers=more | declared)  # in any order

    known = {"Topology change": "update"}
    change(
        cluster,
        become(db4=db4, db5=db5),
        known | of_one("db4", "create") | of_one("db5", "create"),
        [],
    )
    change(
        cluster,
        become(db6=db6, db5=db5),
        known | of_one("db6", "create") | of_one("db4", "delete"),
        [],
    )
    assert not cluster.data("db4").exists()
    change(cluster, become(), known | of_one("db5", "delete") | of_one("db6", "delete"), [])
    assert cluster.sql("db1", "SELECT count(*) FROM pg_replication_slots") == [(2,)]


def test_replication_by_tls(cluster: Cluster) -> None:
    """From in clear to verify-full in two edits; a clone that does not trust the primary's certificate fails with a sentence."""
    workspace = cluster.workspace
    if cluster.sql("db1", "SHOW ssl_library") == [("",)]:
        pytest.skip("this PostgreSQL is built without TLS")
    authority, stranger = Authority(cluster.base, "ca"), Authority(cluster.base, "stranger")
    certificate, key = authority.certificate("127.0.0.1")
    speaks = {"ssl": True, "ssl_cert_file": str(certificate), "ssl_key_file": str(key)}

    def edit(document: dict[str, Any]) -> None:
        document["servers"]["db1"]["settings"] |= speaks
        document["replication"] |= {"tls": "verify-full", "rootCertificate": str(authority.file)}

    role = workspace.cluster["replication"]["role"]
    plan = dict.fromkeys(("Server db1", "Server db2", "Server db3", "DataDirectory db2", "DataDirectory db3"), "update")
    plan |= {f"HbaRule {role} from {address}": "update" for address in ("127.0.0.0/8", "127.0.0.1/32")}
    change(cluster, edit, plan, [])
    query = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_replication USING (pid) WHERE ssl"
    eventually(lambda: cluster.sql("db1", query) == [(2,)])

    def misled(document: dict[str, Any]) -> None:
        document["replication"] |= {"rootCertificate": str(stranger.file)}
        document["servers"]["db7"] = new_standby(cluster, "db7", document["servers"]["db2"])

    declared = workspace.cluster
    workspace.write(edited(declared, misled))
    done = workspace.up()
    assert done.code != 0
    told = [line for line in done.errors if "the base backup of db1 to" in line]
    assert len(set(told)) == 1
    assert "certificate verify failed. Nothing of it is left" in told[0]
    assert not cluster.data("db7").exists()
    workspace.write(declared)
    workspace.up_well()
    workspace.unchanged()
    eventually(lambda: cluster.sql("db1", query) == [(2,)])


def test_the_vault_by_another_name_and_another_file_of_its_ca(cluster: Cluster) -> None:
    """In place, by the servers too: nobody restarts, and everybody can open the key by it."""
    ca = cluster.base / "ca.pem"
    ca.write_text(f"# the same, in another file\n{cluster.bao.ca.read_text()}")
    address = cluster.bao.address.replace("127.0.0.1", "localhost")
    provider = cluster.workspace.cluster["vault"]["provider"]
    plan = {f"HostFile {name}-{provider}-ca": "update" for name in servers(cluster)}
    plan[f"KeyProvider {provider}"] = "update"
    plan |= CHECKS  # each standby is proved to open the key by it
    # The tokens themselves stay. How to reach them is stored, and until then Pulumi cannot say that they do.
    plan |= dict.fromkeys(OTHER_TOKENS, "update") | {"SecretContent change-replication-secret": "update"}
    change(cluster, lambda c: c["vault"].update(ca=str(ca), addressFromServers=address), plan, [])
    for name in cluster.names:
        assert cluster.sql(name, "SELECT pg_tde_verify_server_key()") == [("",)]


def test_binaries_by_another_path_are_used_the_next_time(cluster: Cluster) -> None:
    link = cluster.base / "bin"
    link.symlink_to(cluster.binaries)
    noted = ("CleanupRecord db1", "DataDirectory db1", "Server db1", "WalEncryption WAL of db1")
    change(cluster, lambda c: c["servers"]["db1"].update(binaries=str(link)), dict.fromkeys(noted, "update"), [])


def test_binaries_of_another_major_version_are_refused(cluster: Cluster) -> None:
    programs = cluster.base / "other"
    programs.mkdir()
    for name in ("initdb", "pg_basebackup"):
        (programs / name).symlink_to(cluster.binaries / name)
    (programs / "postgres").write_text("#!/bin/sh\necho 'postgres (PostgreSQL) 17.4'\n")
    (programs / "postgres").chmod(0o755)
    declared, before = cluster.workspace.cluster, pids(cluster)
    cluster.workspace.write(edited(declared, lambda c: c["servers"]["db1"].update(binaries=str(programs))))
    refused = cluster.workspace.preview()
    cluster.workspace.write(declared)
    assert refused.code != 0
    assert "cluster.servers.db1.binaries: this is PostgreSQL 17, and the data in " in refused.text
    assert "cluster.servers.db2.binaries: this is PostgreSQL 18, and the primary's is 17" in refused.text
    assert pids(cluster) == before


def test_the_table_finds_a_restart_that_nobody_told(cluster: Cluster) -> None:
    """Proof that `change` can fail: a server restarted by hand during it is found."""

    def edit(document: dict[str, Any]) -> None:
        document["servers"]["db1"].setdefault("settings", {})["work_mem"] = "7MB"
        cluster.stop("db3")
        cluster.start("db3")

    before = cluster.workspace.cluster
    with pytest.raises(AssertionError, match="db3"):
        change(cluster, edit, {"Server db1": "update"}, [])
    cluster.workspace.write(before)
    cluster.workspace.up_well()


def test_a_standby_moves_to_another_directory(cluster: Cluster) -> None:
    """Planned as its replacement, and that of nobody else."""
    workspace = cluster.workspace
    before = pids(cluster)
    former = cluster.data("db3")
    workspace.write(
        edited(
            workspace.cluster, lambda c: c["servers"]["db3"].update(dataDirectory=str(cluster.base / "moved" / "data"))
        )
    )
    preview = workspace.preview()
    gone = of_one("db3", "replace").keys() - {
        "Policy db3-policy",
        "Token db3-token",
        "ReplicationSlot tde_db3",
        "CleanupRecord db3",
    }
    assert preview.plan == dict.fromkeys(gone, "replace") | {
        "CleanupRecord db3": "update",
        "Topology change": "update",
    }, preview.changes
    workspace.up_well()
    workspace.unchanged()
    assert not former.exists()
    after = pids(cluster)
    assert [name for name in after if before[name] != after[name]] == ["db3"]


def test_a_mount_that_is_no_longer_the_stacks(cluster: Cluster) -> None:
    """Last, for it cannot be taken back: the same mount, with policies and tokens that cannot meet another stack's."""
    workspace, mount = cluster.workspace, "tde-change"
    workspace.write(edited(workspace.cluster, lambda c: c.update(disposable=False)))
    workspace.up_well()
    plan = {"Mount change-mount": "delete[retain]", **OTHER_TOKENS}
    plan |= {"SecretV2 change-replication-secret": "replace[retain]"}
    plan |= {"SecretContent change-replication-secret": "replace"}
    plan |= dict.fromkeys((f"Policy {name}-policy" for name in workspace.cluster["servers"]), "replace")
    plan[f"KeyProvider {workspace.cluster['vault']['provider']}"] = "update"
    declared, used = workspace.cluster, workspace.cluster["key"]["name"]
    workspace.write(edited(declared, lambda c: (c["vault"].update(existing=True), c["key"].update(name="apart"))))
    assert f'cluster.key.former: the servers use "{used}"' in workspace.preview().text
    workspace.write(declared)
    change(cluster, lambda c: c["vault"].update(existing=True), plan, [])
    for name in cluster.names:
        assert cluster.sql(name, "SELECT pg_tde_verify_server_key()", 'app "1"') == [("",)]
    assert "tde-change__change__db2" in str(cluster.bao.client().sys.list_policies()["data"]["policies"])
    declared = workspace.cluster
    workspace.write(edited(declared, lambda c: c["vault"].update(existing=False)))
    refused = workspace.preview()
    workspace.write(declared)
    assert refused.code != 0
    assert f'cluster.vault.existing: "{mount}" was not made by this stack' in refused.text
    workspace.unchanged()
