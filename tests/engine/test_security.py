"""No secret where others can see it; no name that does more than name; the Vault's policies from both sides.

Each way of looking is shown a planted leak first: one that finds nothing proves nothing."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import hvac.exceptions
import psycopg
import pytest

from tde_replication import stack_file
from tde_replication.contradictions import shown
from tde_replication.review import as_json, as_markdown, as_text, read, review
from tests.engine.certificates import Authority
from tests.engine.change import edited
from tests.engine.cluster import Cluster, base_directory
from tests.engine.leaks import holding, leaked, readable_by_others, watched
from tests.engine.workspace import Workspace
from tests.openbao import OpenBao

MARK = "/tmp/tde-a-shell-ran-this"
ROLE = "r\"o'l\\e %41?#&+ ü $(touch " + MARK.replace("/", "") + ")"
"""Slashes are refused in it, for Vault's sake."""
DIRECTORY = "d'i\"r\\ %41 ;ü`id` $(touch " + MARK.replace("/", "") + ")"
DATABASE = f"d'b\" \\%d;`touch {MARK}`"
LOUD = {
    "log_statement": "all",
    "log_min_duration_statement": "0",
    "log_connections": "on",
    "log_replication_commands": "on",
    "log_min_messages": "debug1",
    "log_error_verbosity": "verbose",
    "application_name": f"a'b\"\\ %s $(touch {MARK}) ü",
}


class Secured(Cluster):
    """A cluster with everything told, and odd names; what its first `up` showed."""

    verbose: str
    arguments: set[bytes]
    environments: set[bytes]
    secrets: dict[str, str]


@pytest.fixture(scope="module")
def cluster(openbao: OpenBao, encrypted_binaries: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    above = base_directory()
    base = above / DIRECTORY
    base.mkdir(mode=0o755)
    os.chown(base, above.stat().st_uid, above.stat().st_gid)
    workspace = Workspace(tmp_path_factory.mktemp("security"), "security", openbao.environment)
    made = Secured(workspace, base, 1, openbao, binaries=encrypted_binaries, replication={"role": ROLE})
    document = workspace.cluster
    document["servers"]["db1"]["settings"] = document["servers"]["db2"]["settings"] = LOUD
    workspace.write(document)
    workspace.init()
    try:
        show_everything(made)
        made.secrets = secrets(made)
        yield made
    finally:
        done = workspace.destroy()
        assert done.code == 0, done.text
        shutil.rmtree(above)


def show_everything(cluster: Secured) -> None:
    """Raise the cluster, and change it at the highest level of every log, under watch."""
    workspace = cluster.workspace
    with watched() as seen:
        workspace.up_well()
        with psycopg.connect(
            host=str(cluster.sockets("db1")), port=cluster.ports["db1"], user="postgres", autocommit=True
        ) as session:
            session.execute(psycopg.sql.SQL("CREATE DATABASE {}").format(psycopg.sql.Identifier(DATABASE)))
        # Another password: it is made, written, and becomes a verifier in front of every log.
        changed = edited(workspace.cluster, lambda c: c.update(database=DATABASE))
        workspace.write(edited(changed, lambda c: c["replication"].update(passwordVersion=2)))
        workspace.environment["PULUMI_DEBUG_COMMANDS"] = "true"
        events = ("--event-log", str(cluster.base / "events.json"))
        done = workspace.up("--diff", "-v=8", "--logtostderr", "--debug", *events)
        del workspace.environment["PULUMI_DEBUG_COMMANDS"]
    assert done.code == 0, done.errors
    cluster.verbose, cluster.arguments, cluster.environments = done.text, seen.arguments, seen.environments


def secrets(cluster: Cluster) -> dict[str, str]:
    key = cluster.bao.client().secrets.kv.v2.read_secret_version(
        "security-principal-key", mount_point="tde-security", raise_on_deleted_version=True
    )
    stored = cluster.bao.client().secrets.kv.v2.read_secret_version(
        f"replication/{ROLE}", mount_point="tde-security", raise_on_deleted_version=True
    )
    [verifier] = cluster.sql("db1", "SELECT rolpassword FROM pg_authid WHERE rolreplication AND NOT rolsuper")
    return {
        "password": stored["data"]["data"]["password"],
        "verifier": verifier[0],
        "stored key of the verifier": verifier[0].rpartition("$")[2],
        "key": key["data"]["data"]["key"],
        "token of db1": cluster.file("db1", "vault-token").read_text(),
        "token of db2": cluster.file("db2", "vault-token").read_text(),
        "VAULT_TOKEN": cluster.bao.token,
    }


def test_the_ways_of_looking_find_what_is_planted(cluster: Secured, tmp_path: Path) -> None:
    wait = "import sys; sys.stdin.read()"
    with (
        watched() as seen,
        subprocess.Popen([sys.executable, "-c", wait, cluster.secrets["password"]], stdin=subprocess.PIPE) as told,
    ):
        assert told.stdin
        while not leaked(cluster.secrets, b"".join(seen.arguments)):
            assert told.poll() is None
        told.stdin.close()
    for name, secret in cluster.secrets.items():
        assert leaked(cluster.secrets, json.dumps({"a": secret})) >= {name}
    (tmp_path / "clear").write_text(cluster.secrets["token of db2"])
    (tmp_path / "clear").chmod(0o644)
    tmp_path.chmod(0o755)
    assert holding(cluster.secrets, tmp_path) == {"clear": {"token of db2"}}
    assert readable_by_others(tmp_path) == ["clear"]
    assert any(b"PATH=" in environment for environment in cluster.environments) or os.geteuid() != 0


def test_no_process_shows_a_secret(cluster: Secured) -> None:
    assert any(b"pg_tde_basebackup" in arguments for arguments in cluster.arguments), (
        "the watch was too slow to see a clone"
    )
    assert leaked(cluster.secrets, b"\n".join(cluster.arguments)) == set()
    assert leaked(cluster.secrets, b"\n".join(cluster.environments)) == set()


def test_no_output_of_pulumi_holds_a_secret(cluster: Secured) -> None:
    workspace = cluster.workspace
    assert "log_statement" in cluster.verbose
    assert leaked(cluster.secrets, cluster.verbose) == set()
    assert leaked(cluster.secrets, (cluster.base / "events.json").read_text()) == set()
    for command in (("preview", "--json"), ("stack", "export"), ("stack", "output", "--json")):
        text = workspace.run(*command).text
        assert "tde_db2" in text or "standbys" in text
        assert leaked(cluster.secrets, text) == set(), command
    assert leaked(cluster.secrets, workspace.run("stack", "export", "--show-secrets").text) >= {
        "password",
        "token of db1",
    }


def test_the_plan_of_a_repair_holds_no_secret(cluster: Secured, tmp_path: Path) -> None:
    workspace = cluster.workspace
    cluster.file("db2", "pgpass").write_text("*:*:*:*:by hand\n")
    cluster.file("db1", "vault-token").write_text("hvs.by-hand")
    role = psycopg.sql.Identifier(ROLE).as_string()
    cluster.sql("db1", f"ALTER ROLE {role} PASSWORD 'by hand'")
    others = {"connection string": "hunter2-by-hand", "another's rule": "hunter3-by-hand"}
    cluster.sql(
        "db2", "ALTER SYSTEM SET primary_conninfo = 'host=192.0.2.1 password=hunter2-by-hand'; SELECT pg_reload_conf()"
    )
    line = "host replication all 127.0.0.1/32 radius radiusservers=192.0.2.1 radiussecrets=hunter3-by-hand\n"
    cluster.edit("db1", "pg_hba.conf", lambda text: line + text)
    cluster.sql("db1", "SELECT pg_reload_conf()")
    workspace.environment["PULUMI_DEBUG_COMMANDS"] = "true"
    texts = [workspace.preview("--event-log", str(tmp_path / "events")).text]
    del workspace.environment["PULUMI_DEBUG_COMMANDS"]
    texts += [workspace.run("preview", "--json", "--diff").text, workspace.up("--debug").text, workspace.state()]
    texts += [
        review_in([review(read((tmp_path / "events").read_text()))]) for review_in in (as_text, as_json, as_markdown)
    ]
    assert "its content was changed" in texts[-3]
    assert ["contentMatches" in text for text in texts[-2:]] == [True] * 2
    workspace.unchanged()
    assert "password=(hidden)" in texts[0]
    assert "radius with options" in texts[0]
    assert "contentMatches" in texts[0]
    assert "passwordMatches" in texts[0]
    assert leaked(cluster.secrets | secrets(cluster) | others, "".join(texts)) == set()


def test_state_and_server_logs_hold_no_secret_in_clear(cluster: Secured) -> None:
    everything = cluster.secrets | secrets(cluster)
    assert "ciphertext" in cluster.workspace.state()
    assert leaked(everything, cluster.workspace.state()) == set()
    for name in cluster.names:
        log = (cluster.base / name / "postgresql.log").read_text()
        assert "connection authorized" in log
        assert leaked(everything, log) == set()
    log = (cluster.base / "db1" / "postgresql.log").read_text()
    role = psycopg.sql.Identifier(ROLE).as_string()
    cluster.sql(
        "db1", f"ALTER ROLE {role} CONNECTION LIMIT 7"
    )  # ours tell nothing, others' do: the log is as loud as it was set
    told = (cluster.base / "db1" / "postgresql.log").read_text().removeprefix(log)
    assert f"ALTER ROLE {role} CONNECTION LIMIT 7" in told
    assert "SCRAM-SHA-256$" not in log
    cluster.sql("db1", f"ALTER ROLE {role} CONNECTION LIMIT -1")


def test_secrets_lie_in_files_of_their_owner_and_nowhere_else(cluster: Secured) -> None:
    """In clear on this machine: each server's own token and the passfile; the verifier lies in the servers' catalog."""
    found = holding(secrets(cluster), cluster.base)
    catalog = {"verifier", "stored key of the verifier"}
    apart = {path: names - catalog for path, names in found.items() if names - catalog}
    assert apart == {
        "db1/security.vault-token": {"token of db1"},
        "db2/security.vault-token": {"token of db2"},
        "db2/security.pgpass": {"password"},
    }
    assert all("/data/" in path for path, names in found.items() if names & catalog)
    for path in apart:
        status = (cluster.base / path).stat()
        assert status.st_mode & 0o777 == 0o600
        assert status.st_uid == cluster.data("db1").stat().st_uid


def test_nothing_is_readable_by_others(cluster: Secured) -> None:
    for name in cluster.names:
        assert readable_by_others(cluster.data(name)) == []
        assert [path for path in readable_by_others(cluster.base / name) if "vault-ca" not in path] == []


def test_nothing_is_left_in_tmp(cluster: Secured) -> None:
    everything, found = secrets(cluster), []
    for path in Path("/tmp").iterdir():
        with suppress(FileNotFoundError):  # it goes meanwhile, as other servers' files do
            if path.is_file() and path.stat().st_size < 10_000_000 and leaked(everything, path.read_bytes()):
                found.append(str(path))
    assert found == []


def test_no_name_reaches_a_shell_and_all_are_taken_literally(cluster: Secured) -> None:
    assert not Path(MARK).exists()
    assert cluster.sql("db2", "SHOW application_name") != []
    [value] = cluster.sql("db2", "SELECT setting FROM pg_file_settings WHERE name = 'application_name' AND applied")
    assert value[0] == LOUD["application_name"]
    assert cluster.sql("db1", "SELECT usename FROM pg_stat_replication") == [(ROLE,)]
    with psycopg.connect(
        host=str(cluster.sockets("db2")), port=cluster.ports["db2"], user="postgres", dbname=DATABASE
    ) as session:
        assert session.execute("SELECT count(*) FROM pg_extension WHERE extname = 'pg_tde'").fetchone() == (1,)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        ("password", "password authentication failed"),
        ("vault", "permission denied"),
        ("dead vault", "nothing listens at https://127.0.0.1:1"),
        ("ca", "is not signed by the CA in"),
    ],
)
def test_an_error_is_told_without_secrets(cluster: Secured, spoil: str, says: str, tmp_path: Path) -> None:
    workspace = cluster.workspace
    environment, known = dict(workspace.environment), secrets(cluster)
    blind = cluster.bao.client().auth.token.create(policies=["default"])["auth"]["client_token"]
    if spoil == "password":
        # The verifier of another password, in front of a clone that wants in with the right one.
        cluster.stop("db2")
        shutil.rmtree(cluster.data("db2"))
        role = psycopg.sql.Identifier(ROLE).as_string()
        cluster.sql("db1", f"ALTER ROLE {role} PASSWORD 'by hand'")
        done = workspace.up("--target", urn(workspace, "DataDirectory", "db2"), "--debug")
    else:
        workspace.environment |= {
            "vault": {"VAULT_TOKEN": blind},
            "dead vault": {"VAULT_ADDR": "https://127.0.0.1:1"},
            "ca": {"VAULT_CACERT": str(Authority(tmp_path, "stranger").file)},
        }[spoil]
        done = workspace.up("--debug")
        workspace.environment = environment
    assert done.code != 0
    assert says.lower() in done.text.lower(), done.errors
    assert leaked(known | {"other token": blind}, done.text) == set()
    workspace.up_well()
    workspace.unchanged()


def urn(workspace: Workspace, kind: str, name: str) -> str:
    exported = json.loads(workspace.run("stack", "export").text)
    [found] = [
        one["urn"] for one in exported["deployment"]["resources"] if one["urn"].endswith(f"postgres:{kind}::{name}")
    ]
    return str(found)


MOUNT = "tde-security"
DATA, METADATA = f"{MOUNT}/data", f"{MOUNT}/metadata"
CALLS: list[tuple[str, str, str, bool, bool]] = [
    # what, method, path; whether the primary's token may, whether a standby's
    ("read a key", "GET", f"{DATA}/security-principal-key", True, True),
    ("look at the mount", "GET", f"sys/mounts/{MOUNT}", True, False),
    ("list keys", "LIST", f"{METADATA}/", True, False),
    ("make a key", "POST", f"{DATA}/made-by-{{}}", True, False),
    ("overwrite a key", "POST", f"{DATA}/security-principal-key", False, False),
    ("patch a key", "PATCH", f"{DATA}/security-principal-key", False, False),
    ("delete a key", "DELETE", f"{DATA}/security-principal-key", False, False),
    ("delete a key for good", "DELETE", f"{METADATA}/security-principal-key", False, False),
    ("destroy a version", "PUT", f"{MOUNT}/destroy/security-principal-key", False, False),
    ("undelete", "PUT", f"{MOUNT}/undelete/security-principal-key", False, False),
    ("read a key's metadata", "GET", f"{METADATA}/security-principal-key", False, False),
    ("set metadata", "POST", f"{METADATA}/security-principal-key", False, False),
    ("configure the mount", "POST", f"{MOUNT}/config", False, False),
    ("read the replication password", "GET", f"{DATA}/replication/x", False, False),
    ("write the replication password", "POST", f"{DATA}/replication/y", False, False),
    ("read another mount", "GET", "other/data/key", False, False),
    ("write another mount", "POST", "other/data/made", False, False),
    ("list mounts", "GET", "sys/mounts", False, False),
    ("unmount", "DELETE", f"sys/mounts/{MOUNT}", False, False),
    ("read a policy", "GET", f"sys/policies/acl/{MOUNT}__db1", False, False),
    ("write its policy", "PUT", f"sys/policies/acl/{MOUNT}__db2", False, False),
    ("seal", "PUT", "sys/seal", False, False),
    ("make a token", "POST", "auth/token/create", False, False),
    ("look itself up", "GET", "auth/token/lookup-self", False, False),
]


def test_policies_let_servers_do_what_pg_tde_needs_and_nothing_else(cluster: Secured) -> None:
    root = cluster.bao.client()
    root.sys.enable_secrets_engine("kv", path="other", options={"version": "2"})
    tokens = {name: cluster.file(name, "vault-token").read_text() for name in ("db1", "db2")}
    assert wrongly(cluster, tokens["db1"], primary=True) == []
    assert wrongly(cluster, tokens["db2"], primary=False) == []
    planted = wrongly(cluster, tokens["db1"], primary=False)
    assert planted == ["could look at the mount", "could list keys", "could make a key"], (
        "the table finds too wide a policy"
    )
    root.sys.disable_secrets_engine("other")


def wrongly(cluster: Cluster, token: str, *, primary: bool) -> list[str]:
    """What `token` could do or not do, against the column of the table that it is held to."""
    wrong = []
    for what, method, path, as_primary, as_standby in CALLS:
        may = as_primary if primary else as_standby
        if allowed(cluster, token, method, path.format(os.urandom(4).hex())) != may:
            wrong.append(f"{'could not' if may else 'could'} {what}")
    return wrong


def allowed(cluster: Cluster, token: str, method: str, path: str) -> bool:
    """Whether the Vault's policies let this call through, whatever becomes of it then."""
    body: dict[str, Any] = {"data": {"key": "AAAAAAAAAAAAAAAAAAAAAA=="}} if method in {"POST", "PATCH"} else {}
    client = cluster.bao.client(token)
    headers = {"Content-Type": "application/merge-patch+json"} if method == "PATCH" else {}
    try:
        client.adapter.request(method, f"v1/{path}", json=body or None, headers=headers)
    except hvac.exceptions.Forbidden:
        return False
    except hvac.exceptions.VaultError:
        return True
    return True


def test_the_replication_role_may_do_nothing_but_replicate(cluster: Secured) -> None:
    """It can log in from this machine (initdb's lines let every role with a password), and then has nobody's rights."""
    cluster.sql("db1", "CREATE TABLE theirs AS SELECT 1 AS a", DATABASE)
    with psycopg.connect(
        host="127.0.0.1",
        port=cluster.ports["db1"],
        user=ROLE,
        password=secrets(cluster)["password"],
        dbname=DATABASE,
        autocommit=True,
    ) as session:
        for query in (
            "SELECT * FROM theirs",
            "CREATE TABLE mine (a int)",
            "CREATE SCHEMA mine",
            "CREATE ROLE other",
            "SELECT rolpassword FROM pg_authid",
            "SELECT pg_read_file('postgresql.auto.conf')",
            "COPY (SELECT 1) TO PROGRAM 'true'",
            "ALTER SYSTEM SET work_mem = '1MB'",
            "SELECT pg_reload_conf()",
            "SELECT pg_tde_list_all_global_key_providers()",
            "SELECT pg_tde_create_key_using_global_key_provider('mine', 'vault')",
            "SELECT pg_promote()",
            "SET ROLE postgres",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                session.execute(query.encode())
    cluster.sql("db1", "DROP TABLE theirs", DATABASE)


def of_db1(**settings: Any) -> dict[str, Any]:
    return {"primary": "db1", "servers": {"db1": settings}}


BAD: list[tuple[str, dict[str, Any]]] = [
    ("cluster.replication.role", {"replication": {"role": "two\nlines"}}),
    ("cluster.replication.role", {"replication": {"role": "ü" * 32}}),
    ("cluster.replication.role", {"replication": {"role": "nul\0"}}),
    ("cluster.replication.role", {"replication": {"role": "../security-principal-key"}}),
    ("cluster.database", {"database": ""}),
    ("cluster.database", {"database": "tab\there"}),
    *(
        (f"cluster.{section}.{field}", {section: {field: value}})
        for section, field in (("vault", "mount"), ("key", "name"))
        for value in ("a b", "a'b", "a%2fb", "a\\b", "$(id)", "a\nb", "ü", "../x", "a//b", "a?b", "a#b", "")
    ),
    *(
        ("cluster.vault.provider", {"vault": {"provider": value}})
        for value in ("A", "a b", "a'", "a\nb", "ü", "x" * 64, "a\n")
    ),
    *(
        (f"cluster.servers.{shown(value)}", {"primary": "db1", "servers": {"db1": {}, value: {}}})
        for value in ("a b", "a'b", "A", "a_b", "$(id)", "a\n", "a/b", "..", "x" * 60, "")
    ),
    *(
        ("cluster.servers.db1.dataDirectory", of_db1(dataDirectory=value))
        for value in ("relative", "/a/../b", "/a\nb", "~/x")
    ),
    ("cluster.servers.db1.settings.work_mem", of_db1(settings={"work_mem": "1\n2"})),
    ("cluster.servers.db1.settings.a b", of_db1(settings={"a b": "1"})),
    ("cluster.servers.db1.settings.x'; y", of_db1(settings={"x'; y": "1"})),
    ("cluster.servers.db1.settings.port", of_db1(settings={"port": "1"})),
    ("cluster.servers.db1.listen[0]", of_db1(listen=["a'b\n"])),
    ("cluster.servers.db1.address", of_db1(address="10.0.0.0/8 trust\nhost all all all trust")),
    ("cluster.servers.db1.address", of_db1(address="all")),
    ("cluster.vault.namespace", {"vault": {"namespace": "a\nb"}}),
    ("cluster.vault.tokenPeriod", {"vault": {"tokenPeriod": "1h\n"}}),
    ("cluster.replication.maxSlotWalKeepSize", {"replication": {"maxSlotWalKeepSize": "1GB\n"}}),
]


@pytest.mark.parametrize(("place", "document"), BAD, ids=[repr(row) for row in BAD])
def test_a_name_that_cannot_work_literally_is_refused_with_one_sentence(place: str, document: dict[str, Any]) -> None:
    with pytest.raises(stack_file.StackFileError) as told:
        stack_file.parse("test", document)
    assert len(told.value.mistakes) == 1
    assert told.value.mistakes[0].startswith(f"{place}: ")
