"""The stack file: every mistake in its own sentence, at its key, all told at once."""

import json
import re
from pathlib import Path
from typing import Any

import pulumi
import pytest
import yaml
from hypothesis import given, strategies as st

from bootstrap.project import HERE
from tde_replication import stack_file
from tde_replication.host_settings import Docker, Ssh
from tde_replication.preflight.vault import check_vault_from_servers
from tde_replication.settings import Cluster, Server, default_port
from tde_replication.stack_file import StackFileError
from tde_replication.vault.configuration import missing

FILE = "stacks/Pulumi.test.yaml"


def mistakes(document: Any) -> list[str]:
    with pytest.raises(StackFileError) as told:
        stack_file.parse(FILE, json.dumps(document))
    return told.value.mistakes


def servers(**declared: Any) -> dict[str, Any]:
    """These servers, of which the first is the primary."""
    return {"primary": next(iter(declared)), "servers": declared}


def primary(**fields: Any) -> dict[str, Any]:
    """db1 with these settings, and db2 as its standby."""
    return servers(db1=fields, db2={})


def alone(**fields: Any) -> dict[str, Any]:
    return servers(db1=fields)


A_TEXT = "this must be a text"
A_NUMBER = "this must be a whole number"
A_MAPPING = "this must be a mapping"
ABSOLUTE = "is not an absolute path"
VAULT = 'cannot be used in a Vault path (write letters, digits, ".", "_", "-" and "/")'
NAME = "is not a name here (write lower-case letters, digits and hyphens)"
NETWORK = "is neither a network (write 192.0.2.7/32) nor a host name"
SENDERS = "streaming replication needs at least one for each standby, and another for each clone"
OWN = "the stack sets this parameter itself"
NO_PARAMETER = "not a valid parameter name"
BELOW_ROOT = "lies directly below /, where its token and log would lie too (write /srv/pg/data)"
TWO_LINES = "a value cannot hold a line break or a zero byte"
RESERVED = "has a meaning of its own in PostgreSQL or pg_hba.conf: name another role"
LONG = "a" * 60
CONTAINER, MACHINE = {"docker": "postgres"}, {"ssh": "192.0.2.1"}
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJl3dIeudNqd0DPMRD6OIh65tjkxFNOtwGcWB2gCgPhk"
HOST_KEY = "(write ssh-ed25519 AAAA…, or a line of ssh-keyscan)"
WITH_DOT = "for a name with a dot, {database: app, schema: public, table: …}"
SEEN = "as 192.0.2.1 sees them: this machine, as 192.0.2.7/32"
ELSEWHERE = "put db1 on a machine that is reached by ssh, or both on one kind"


@pytest.mark.parametrize(
    ("document", "sentence"),
    [
        ([], f"cluster: {A_MAPPING}"),
        (None, f"cluster: {A_MAPPING}"),
        ({"encription": "off"}, "cluster.encription: there is no such setting"),
        ({"wal_encryption": True}, "cluster.wal_encryption: there is no such setting"),
        ({"encryption": "on"}, "cluster.encryption: this must be 'required', 'if-available' or 'off'"),
        ({"encryption": True}, "cluster.encryption: this must be 'required', 'if-available' or 'off'"),
        ({"walEncryption": "yes"}, "cluster.walEncryption: this must be true or false"),
        ({"rejoin": "copy"}, "cluster.rejoin: this must be 'clone' or 'rewind'"),
        ({"disposable": 1}, "cluster.disposable: this must be true or false"),
        ({"database": ""}, "cluster.database: must not be empty"),
        ({"vault": None}, f"cluster.vault: {A_MAPPING}"),
        ({"vault": {"mount": "a b"}}, f'cluster.vault.mount: "a b" {VAULT}'),
        ({"vault": {"mount": "/"}}, f'cluster.vault.mount: "" {VAULT}'),
        ({"vault": {"mount": "a/../b"}}, f'cluster.vault.mount: "a/../b" {VAULT}'),
        ({"vault": {"mount": "a{b}"}}, f'cluster.vault.mount: "a{{b}}" {VAULT}'),
        (
            primary(host={"ssh": "db1", "packages": "debs"}),
            'cluster.servers.db1.host.packages: "debs" is neither percona, none, nor a directory (write ./debs)',
        ),
        ({"vault": {"ca": "ca.pem"}}, f'cluster.vault.ca: "ca.pem" {ABSOLUTE}'),
        ({"key": {"name": "k 1"}}, f'cluster.key.name: "k 1" {VAULT}'),
        ({"key": {"scope": ["table"]}}, "cluster.key.scope[0]: this must be 'default' or 'server'"),
        ({"key": {"scope": ["server", "server"]}}, 'cluster.key.scope: "server" is used twice'),
        ({"cipher": "aes_192"}, "cluster.cipher: this must be 'aes_128' or 'aes_256'"),
        *(
            (
                {"key": {"bits": bits}},
                f"cluster.key: bits is now the cluster's cipher: remove it, and write cipher: {cipher}",
            )
            for bits, cipher in [(128, "aes_128"), (256, "aes_256")]
        ),
        (
            {"key": {"scope": ["default"]}, "walEncryption": True},
            'cluster.walEncryption: WAL is encrypted with the server key: add "server" to key.scope',
        ),
        ({"databases": ["a", "postgres"]}, 'cluster.databases: "postgres" is named twice (database: counts, too)'),
        ({"databases": ["template0"]}, "cluster.databases: template0 takes no connections: name another one"),
        (
            {"database": "template1"},
            (
                "cluster.database: nobody can make a database as long as a session is in template1: name another one, and add "
                "template1 to databases"
            ),
        ),
        ({"defaultTableAccessMethod": "heap"}, "cluster.defaultTableAccessMethod: this must be 'tde_heap'"),
        (
            {"enforceEncryption": True, "encryption": "off"},
            "cluster.enforceEncryption: no table can be encrypted with encryption: off: remove one of the two",
        ),
        (
            {"defaultTableAccessMethod": "tde_heap", "key": {"scope": ["server"]}},
            'cluster.defaultTableAccessMethod: tables are encrypted with the default key: add "default" to key.scope',
        ),
        (
            primary(settings={"default_table_access_method": "tde_heap"}),
            (
                "cluster.servers.db1.settings.default_table_access_method: tde_heap: in a database without the extension no "
                "table could be made: write defaultTableAccessMethod of the cluster"
            ),
        ),
        (
            primary(settings={"pg_tde.enforce_encryption": "on"}),
            f"cluster.servers.db1.settings.pg_tde.enforce_encryption: {OWN}: write enforceEncryption of the cluster",
        ),
        (
            {"tables": ["app.public"]},
            f'cluster.tables[0]: "app.public" is not database.schema.table (write "app.public.*"; {WITH_DOT})',
        ),
        ({"tables": ["*.*.*", {"table": ""}]}, "cluster.tables[1].table: must not be empty"),
        (
            {"tables": [{"schema": "[a-z]*"}]},
            'cluster.tables[0].schema: "[a-z]*" holds "[": a pattern knows * (any characters) and ? (any one)',
        ),
        ({"tables": [{"schema_name": "public"}]}, "cluster.tables[0].schema_name: there is no such setting"),
        ({"tables": [{"encrypted": "no"}]}, "cluster.tables[0].encrypted: this must be true or false"),
        (
            {"tables": ["*.*.*", {"database": "app?"}]},
            'cluster.tables[1].database: "app?" is not a database that has the extension (write postgres)',
        ),
        (
            {"tables": [{"table": "t", "encrypted": False}], "enforceEncryption": True},
            "cluster.tables[0].encrypted: enforceEncryption lets no table be in clear: remove one of the two",
        ),
        (
            {"tables": ["*.*.*"], "encryption": "off"},
            'cluster.tables: nothing is rewritten without pg_tde: remove it, or write encryption: "required"',
        ),
        (
            {"tables": ["*.*.*"], "key": {"scope": ["server"]}},
            'cluster.tables: tables are encrypted with the default key: add "default" to key.scope',
        ),
        ({"replication": {"role": ""}}, "cluster.replication.role: must not be empty"),
        (
            {"replication": {"role": "é" * 32}},
            f'cluster.replication.role: "{"é" * 32}" is 64 bytes long; PostgreSQL keeps 63',
        ),
        ({"replication": {"role": "all"}}, f'cluster.replication.role: "all" {RESERVED}'),
        ({"replication": {"role": "+group"}}, f'cluster.replication.role: "+group" {RESERVED}'),
        ({"replication": {"role": "pg_x"}}, f'cluster.replication.role: "pg_x" {RESERVED}'),
        (
            {"replication": {"role": "a\nb"}},
            "cluster.replication.role: a name cannot hold line breaks or other unprintable characters",
        ),
        (
            {"replication": {"maxSlotWalKeepSize": "64 gigs"}},
            'cluster.replication.maxSlotWalKeepSize: "64 gigs" is not a size (write 64GB)',
        ),
        (
            {"replication": {"maxSlotWalKeepSize": "lots"}},
            'cluster.replication.maxSlotWalKeepSize: "lots" is not a size (write 64GB)',
        ),
        (
            {"disposable": True, "expires": "8 hours"},
            'cluster.expires: "8 hours" is not a duration (write 8h; m, h, d: minutes, hours, days)',
        ),
        (
            {"replication": {"maxSlotWalKeepSize": "512 mb"}},
            'cluster.replication.maxSlotWalKeepSize: "512 mb" is not a size (write 512MB)',
        ),
        (
            {"key": {"rotateAfter": "90 days"}},
            'cluster.key.rotateAfter: "90 days" is not a duration (write 90d; m, h, d: minutes, hours, days)',
        ),
        (
            {"key": {"rotateAfter": "3 months"}},
            'cluster.key.rotateAfter: "3 months" is not a duration (write 8h; m, h, d: minutes, hours, days)',
        ),
        (
            {"disposable": True, "expires": "0h"},
            'cluster.expires: "0h" is not a duration (write 8h; m, h, d: minutes, hours, days)',
        ),
        (
            {"vault": {"renewal": "timer"}},
            (
                "cluster.vault.renewal: a timer is for servers on machines reached by ssh that the stack makes, and there are "
                "none: remove it"
            ),
        ),
        (
            {"expires": "8h"},
            "cluster.expires: only a disposable cluster may expire: add disposable: true, or remove expires",
        ),
        (
            {"expires": "8h", "disposable": True, "protect": True},
            "cluster.expires: protect: true keeps anybody from destroying this cluster: remove one of the two",
        ),
        ({"replication": {"maxSlotWalKeepSize": 64}}, f"cluster.replication.maxSlotWalKeepSize: {A_TEXT}"),
        (
            {"replication": {"tls": "require"}},
            (
                'cluster.replication.tls: "require" needs a primary that speaks TLS: set ssl: on, ssl_cert_file and '
                "ssl_key_file in servers.db1.settings"
            ),
        ),
        (
            {"replication": {"tls": "verify-ca"}, **primary(settings={"ssl": True})},
            'cluster.replication.rootCertificate: missing, and tls is "verify-ca"',
        ),
        ({"servers": ["db1"]}, f"cluster.servers: {A_MAPPING}"),
        ({"servers": {}}, "cluster.servers: must name at least one server (write {db1: {}})"),
        (servers(db1={}, db2=None), f"cluster.servers.db2: {A_MAPPING}"),
        (servers(db1={}, db2={"name": "db2"}), "cluster.servers.db2.name: there is no such setting"),
        ({"primary": ["db1"]}, f"cluster.primary: {A_TEXT}"),
        ({"primary": "DB1"}, f'cluster.primary: "DB1" {NAME}'),
        ({"primary": "db3"}, 'cluster.primary: there is no server "db3"; write one of: db1, db2'),
        (
            servers(db1={}, db2={}) | {"primary": "db3"},
            'cluster.primary: there is no server "db3"; write one of: db1, db2',
        ),
        ({"servers": {"db1": {}}}, "cluster.primary: missing; write the name of one of the servers: db1"),
        (
            {"servers": {"db2": {}, "db1": {}}},
            "cluster.primary: missing; write the name of one of the servers: db1, db2",
        ),
        (servers(db1={}, db_2={}), f'cluster.servers.db_2: "db_2" {NAME}'),
        (servers(db1={}, **{"-": {}}), f'cluster.servers.-: "-" {NAME}'),
        (servers(db1={}, **{"a\nb": {}}), f'cluster.servers."a\\nb": "a\nb" {NAME}'),
        (
            servers(db1={}, **{LONG: {}}),
            f'cluster.servers.{LONG}: "{LONG}" is 60 characters long; its slot "tde_…" leaves room for 59',
        ),
        (primary(port="5432"), f"cluster.servers.db1.port: {A_NUMBER}"),
        (
            primary(port=54322),
            "cluster.servers.db2.port: missing; the default for its name is 54322, which another server has",
        ),
        (primary(port=0), "cluster.servers.db1.port: 0 is not a port (1 to 65535)"),
        ({"replication": {"passwordVersion": 0}}, "cluster.replication.passwordVersion: this must be 1 or more"),
        (primary(port=65536), "cluster.servers.db1.port: 65536 is not a port (1 to 65535)"),
        (
            primary(host="moon"),
            "cluster.servers.db1.host: this must be local, or a mapping such as {ssh: db1.example.net} or {docker: IMAGE}",
        ),
        (primary(dataDirectory="data"), f'cluster.servers.db1.dataDirectory: "data" {ABSOLUTE}'),
        (primary(dataDirectory="/a/../b"), f'cluster.servers.db1.dataDirectory: "/a/../b" {ABSOLUTE}'),
        (primary(dataDirectory="/a\nb"), f'cluster.servers.db1.dataDirectory: "/a\nb" {ABSOLUTE}'),
        (primary(binaries="bin"), f'cluster.servers.db1.binaries: "bin" {ABSOLUTE}'),
        (primary(listen="*"), "cluster.servers.db1.listen: this must be a list"),
        (
            primary(address="10.0.0.1/8"),
            'cluster.servers.db1.address: "10.0.0.1/8" has bits set right of its mask (write 10.0.0.0/8)',
        ),
        (primary(address="10.0.0.300/32"), f'cluster.servers.db1.address: "10.0.0.300/32" {NETWORK}'),
        (primary(address="10.0.0.1/33"), f'cluster.servers.db1.address: "10.0.0.1/33" {NETWORK}'),
        (primary(address="10.0.0.300"), f'cluster.servers.db1.address: "10.0.0.300" {NETWORK}'),
        (primary(address='db1" trust #'), f'cluster.servers.db1.address: "db1" trust #" {NETWORK}'),
        (primary(settings={"Port": 1}), f"cluster.servers.db1.settings.port: {OWN}"),
        (
            primary(settings={"wal_level": "Minimal"}),
            "cluster.servers.db1.settings.wal_level: Minimal: streaming replication needs replica or logical",
        ),
        (
            primary(settings={"Max_wal_senders": 0}),
            f"cluster.servers.db1.settings.max_wal_senders: 0: {SENDERS}",
        ),
        (
            primary(settings={"max_replication_slots": "00"}),
            f"cluster.servers.db1.settings.max_replication_slots: 00: {SENDERS}",
        ),
        (
            primary(settings={"hot_standby": "OF"}),
            "cluster.servers.db1.settings.hot_standby: OF: a standby that takes no connections cannot be checked",
        ),
        (
            primary(settings={"allow_alter_system": "off"}),
            "cluster.servers.db1.settings.allow_alter_system: off: the stack sets parameters by ALTER SYSTEM",
        ),
        (
            primary(settings={"recovery_target_lsn": "0/1"}),
            "cluster.servers.db1.settings.recovery_target_lsn: 0/1: a standby would end its recovery there, and stop following",
        ),
        (
            primary(settings={"SHARED_preload_libraries": "pg_tde"}),
            "cluster.servers.db1.settings.shared_preload_libraries: pg_tde is added by the stack itself: leave it out",
        ),
        (
            primary(settings={"work_mem": "1MB", "Work_mem": "2MB"}),
            'cluster.servers.db1.settings: "work_mem" has two spellings: write one',
        ),
        (
            servers(db1={"settings": {"Max_Connections": 200}}, db2={"settings": {"max_connections": 100}}),
            "cluster.servers.db2.settings.max_connections: 100 is lower than the primary's 200: the standby would stop replaying",
        ),
        (primary(settings={"pg_tde.wal_encrypt": True}), f"cluster.servers.db1.settings.pg_tde.wal_encrypt: {OWN}"),
        (primary(settings={"work mem": 1}), f"cluster.servers.db1.settings.work mem: {NO_PARAMETER}"),
        *(
            (primary(settings={name: "/tmp/mine"}), f"cluster.servers.db1.settings.{shown}: {NO_PARAMETER}")
            for name, shown in {
                "include": "include",
                "Include_If_Exists": "include_if_exists",
                "include_dir": "include_dir",
                "x\nport": '"x\\nport"',
                "": '""',
            }.items()
        ),
        ({"x\ny": 1}, r'cluster."x\ny": there is no such setting'),
        (primary(settings={"x": "1\nport = 1"}), f"cluster.servers.db1.settings.x: {TWO_LINES}"),
        (primary(settings={"x": "1\0"}), f"cluster.servers.db1.settings.x: {TWO_LINES}"),
        (primary(settings={"x": [1]}), f"cluster.servers.db1.settings.x: {A_TEXT}"),
        (primary(settings={"x": None}), f"cluster.servers.db1.settings.x: {A_TEXT}"),
        (
            primary(settings={"shared_preload_libraries": "auto_explain,pg_tde"}),
            "cluster.servers.db1.settings.shared_preload_libraries: pg_tde is added by the stack itself: leave it out",
        ),
        (
            alone(host=CONTAINER, adopt=True, dataDirectory="/srv/db/data", port=5432),
            "cluster.servers.db1.adopt: only a server on a machine is adopted; the stack always makes its containers",
        ),
        (
            alone(host=CONTAINER, dataDirectory="/data"),
            f'cluster.servers.db1.dataDirectory: "/data" {BELOW_ROOT}',
        ),
        (primary(dataDirectory="/etc"), f'cluster.servers.db1.dataDirectory: "/etc" {BELOW_ROOT}'),
        *(
            (
                primary(dataDirectory=path),
                (
                    f'cluster.servers.db1.dataDirectory: "{path}" lies in /{path.split("/")[1]}, which belongs to the operating '
                    "system (write /srv/pg/data)"
                ),
            )
            for path in ("/etc/postgresql", "/usr/local/pg/data", "/dev/pg/data", "/proc/1/cwd")
        ),
        *(
            (
                primary(address=address),
                (
                    f'cluster.servers.db1.address: "{address}" would let in far more than one server (write 192.0.2.7/32, or a '
                    f"network of at most /{least})"
                ),
            )
            for address, least in (("0.0.0.0/0", 8), ("128.0.0.0/1", 8), ("::/0", 16), ("2000::/3", 16))
        ),
        (
            alone(host=MACHINE | {"jump": ["one", "two"]}),
            "cluster.servers.db1.host.jump: pulumi-command, which prepares the machine, goes through one jump host",
        ),
        *(
            (primary(host=MACHINE | {"hostKeys": keys}), f"cluster.servers.db1.host.hostKeys[{n}]: {told} {HOST_KEY}")
            for n, keys, told in (
                (0, "ssh-ed25519 AAAA", '"ssh-ed25519 AAAA" is not a host key'),
                (1, [KEY, f"@cert-authority * {KEY}"], f'"{f"@cert-authority * {KEY}"[:80]}" is not a host key'),
                (0, f"db1 {KEY}\ndb1 ssh-ed25519", "line 2 of it is not a host key"),
                (0, "# none\n", "it holds no host key"),
            )
        ),
        (
            servers(db1={"host": CONTAINER}, db2={"host": MACHINE}),
            f"cluster.servers.db2.host: a server in a container is reached on its docker network alone: {ELSEWHERE}",
        ),
        (
            servers(db1={}, db2={"host": CONTAINER}),
            f"cluster.servers.db2.host: a local server is reached on this machine's loopback alone: {ELSEWHERE}",
        ),
        (
            servers(db1={"host": MACHINE}, db2={"host": CONTAINER}),
            f"cluster.servers.db2.address: missing; for pg_hba.conf, name where its connections come from {SEEN}",
        ),
    ],
)
def test_each_mistake_is_one_sentence_at_its_key(document: Any, sentence: str) -> None:
    assert mistakes(document) == [sentence]


@pytest.mark.parametrize(
    ("document", "key"),
    [
        ({"vault": {"provider": "Vault"}}, "cluster.vault.provider"),
        ({"vault": {"provider": "v" * 64}}, "cluster.vault.provider"),
        ({"vault": {"tokenPeriod": "1d"}}, "cluster.vault.tokenPeriod"),
        ({"vault": {"tokenPeriod": "0h"}}, "cluster.vault.tokenPeriod"),
        ({"key": {"scope": []}}, "cluster.key.scope"),
        ({"replication": {"passwordVersion": 0}}, "cluster.replication.passwordVersion"),
        ({"replication": {"tls": "on"}}, "cluster.replication.tls"),
    ],
)
def test_other_mistakes_are_told_at_their_key(document: Any, key: str) -> None:
    [line] = mistakes(document)
    assert line.startswith(f"{key}: ")


@pytest.mark.parametrize("spelling", [True, "on", "yes", "True", "1", 1, "tr"])
def test_any_spelling_turns_tls_on(spelling: Any) -> None:
    stack_file.parse(FILE, json.dumps(primary(settings={"ssl": spelling}) | {"replication": {"tls": "require"}}))


@pytest.mark.parametrize("spelling", [False, "off", "no", "perhaps"])
def test_no_other_does(spelling: Any) -> None:
    [told] = mistakes(primary(settings={"ssl": spelling}) | {"replication": {"tls": "require"}})
    assert told.startswith("cluster.replication.tls: ")


def test_a_primary_by_ssh_has_standbys_on_any_kind_of_host() -> None:
    kinds = {"db2": "local", "db3": CONTAINER, "db4": {"ssh": "192.0.2.2"}}
    standbys = {name: {"host": host, "address": "192.0.2.7/32"} for name, host in kinds.items()}
    stack_file.parse(FILE, json.dumps(servers(db1={"host": MACHINE}, **standbys)))


def test_an_adopted_server_may_be_behind_several_machines() -> None:
    adopted = {"adopt": True, "dataDirectory": "/srv/db/data", "port": 5432}
    document = alone(host=MACHINE | {"jump": ["one", "two"]}, **adopted)
    stack_file.parse(FILE, json.dumps(document))


@pytest.mark.parametrize(
    ("document", "address", "told"),
    [
        (alone(host=CONTAINER), "https://127.0.0.1:8200", ["db1"]),
        (servers(db1={"host": MACHINE}, db2={"address": "192.0.2.7/32"}), "http://localhost:8200", ["db1"]),
        (alone(host=CONTAINER), "https://vault.example.net:8200", []),
        (primary(), "https://127.0.0.1:8200", []),
    ],
)
def test_a_vault_on_this_machines_loopback_is_none_for_servers_elsewhere(
    document: dict[str, Any], address: str, told: list[str]
) -> None:
    seen = {"addressFromServers": "https://vault:8200"}
    for vault, expected in (({}, told), (seen, [])):
        cluster = stack_file.parse(FILE, json.dumps(document | {"vault": vault}))
        found = check_vault_from_servers(cluster, address)
        assert len(found) == len(expected)
        assert all(f"vault:address {address} is a loopback address, and db1 would" in line for line in found)


def test_what_is_no_mapping_at_all() -> None:
    with pytest.raises(StackFileError, match="must be a mapping of settings"):
        stack_file.parse(FILE, "encryption: off")


def test_all_mistakes_are_told_at_once_under_one_heading() -> None:
    document = {"primary": "db3", "replication": {"maxSlotWalKeepSize": "64 gigs"}}
    with pytest.raises(StackFileError) as told:
        stack_file.parse(FILE, json.dumps(document))
    assert str(told.value) == (
        f"{FILE} has 2 mistakes; nothing was touched:\n"
        '  cluster.replication.maxSlotWalKeepSize: "64 gigs" is not a size (write 64GB)\n'
        '  cluster.primary: there is no server "db3"; write one of: db1, db2'
    )


def test_mistakes_of_the_vault_are_told_with_those_of_the_cluster(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("VAULT_ADDR", "VAULT_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(pulumi, "get_project", lambda: "tde-replication")
    mistakes_of_vault = missing()
    assert [line.split(";")[0] for line in mistakes_of_vault] == ["vault:address: missing", "vault:token: missing"]
    for document in ("encryption: off", '{"x": 1}', "{}"):
        with pytest.raises(StackFileError) as told:
            stack_file.parse(FILE, document, mistakes_of_vault)
        assert told.value.mistakes[-2:] == mistakes_of_vault
    monkeypatch.setenv("VAULT_ADDR", "https://127.0.0.1:1")
    monkeypatch.setenv("VAULT_TOKEN", "a token")
    assert missing() == []


VAULT, EVIL = "https://vault.example.net:8200", "https://evil.example.net:8200"


@pytest.mark.parametrize(
    ("config", "secrets", "own", "refused"),
    [
        ({}, "", VAULT, None),
        ({"address": VAULT}, "", VAULT, None),
        ({"address": f"{VAULT}/"}, "", VAULT, None),
        (
            {"address": EVIL},
            "",
            VAULT,
            f"only the stack file names {EVIL} (VAULT_ADDR is {VAULT}), and the environment's",
        ),
        ({"address": EVIL}, "", "", f"only the stack file names {EVIL} (VAULT_ADDR is not set), and the environment's"),
        ({"address": EVIL, "token": "t"}, "vault:token", VAULT, "in clear, so that whoever edits the file"),
        ({"address": EVIL, "token": "t"}, "vault:token", "", "in clear, so that whoever edits the file"),
        ({"address": VAULT, "token": "t"}, "vault:token", VAULT, None),
        ({"address": EVIL, "token": "t"}, "vault:token vault:address", VAULT, None),
        ({"address": VAULT, "token": "t"}, "", VAULT, "the stack file has it in clear"),
        ({"address": "http://vault.example.net:8200"}, "", VAULT, "is plain http"),
        ({}, "", "http://192.0.2.7:8200", "is plain http"),
        ({}, "", "http://127.0.0.1@evil.example.net", "is not the address of a Vault"),
        ({}, "", "http://127.0.0.1\\@evil.example.net", "is not the address of a Vault"),
        ({}, "", "http://127.0.0.1.evil.example.net", "is plain http"),
        ({}, "", "http://[::1]:8200", None),
        ({}, "", "http://localhost:8200", None),
        ({}, "", "ftp://vault.example.net", "is not the address of a Vault"),
        ({}, "", "https://vault.example.net?x=/v1/", "is not the address of a Vault"),
    ],
)
def test_which_token_may_go_where(
    config: dict[str, str], secrets: str, own: str, refused: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever proposes a stack file chooses what is in clear in it, and cannot change what is encrypted."""
    monkeypatch.setattr(pulumi, "get_project", lambda: "tde-replication")
    monkeypatch.setenv("VAULT_TOKEN", "of the environment")
    monkeypatch.setenv("VAULT_ADDR", own)
    pulumi.runtime.set_all_config({f"vault:{key}": value for key, value in config.items()}, secrets.split())
    try:
        told = missing()
    finally:
        pulumi.runtime.set_all_config({}, [])
    if refused is None:
        assert told == []
    else:
        [line] = told
        assert refused in line


def test_servers_send_their_tokens_over_plain_http_to_a_loopback_alone() -> None:
    [told] = mistakes({"vault": {"addressFromServers": "http://vault.example.net:8200"}})
    assert told.startswith("cluster.vault.addressFromServers: http://vault.example.net:8200 is plain http")
    assert mistakes({"vault": {"addressFromServers": "https://u:p@vault:8200"}}) == [
        (
            'cluster.vault.addressFromServers: "https://u:p@vault:8200" is not the address of a Vault (write '
            "https://vault.example.net:8200)"
        )
    ]
    for address in ("http://127.0.0.1:8100", "https://tde-docker-vault:8200"):
        stack_file.parse(FILE, json.dumps({"vault": {"addressFromServers": address}}))


def test_one_mistake_is_counted_as_one() -> None:
    with pytest.raises(
        StackFileError, match=r"^stacks/Pulumi.test.yaml has 1 mistake; nothing was touched:\n  cluster.x: "
    ):
        stack_file.parse(FILE, '{"x": 1}')


def test_a_wrong_section_brings_no_mistakes_that_follow_from_it() -> None:
    document = {"key": {"scope": ["server", "table"]}, "walEncryption": True, **primary(port=54321)}
    assert len(mistakes(document)) == 1
    assert len(mistakes({"replication": {"tls": "verify-full", "rootCertificate": "ca.pem"}})) == 1


def test_directories_that_share_a_parent() -> None:
    document = servers(db1={"dataDirectory": "/pg/a"}, db2={"dataDirectory": "/pg/b"})
    reason = "/pg holds another server's directory too; each needs a parent directory of its own for its token and log"
    assert mistakes(document) == [
        f"cluster.servers.db1.dataDirectory: {reason}",
        f"cluster.servers.db2.dataDirectory: {reason}",
    ]


def test_a_default_port_goes_by_the_name_alone() -> None:
    """Whoever takes the first of three standbys out changes nothing of the others."""

    def ports(*standbys: str) -> dict[str, int]:
        cluster = stack_file.parse(FILE, servers(db1={}, **{name: {} for name in standbys}))
        return {server.name: cluster.port(server) for server in cluster.members}

    whole = ports("db2", "db3", "orders")
    assert whole == {"db1": 54321, "db2": 54322, "db3": 54323, "orders": default_port("orders")}
    assert ports("db3", "orders") == {name: whole[name] for name in ("db1", "db3", "orders")}
    names = ("orders", "orders1", "orders-2", "primary", "standby1", "db-007", "db100", "7", "x" * 59)
    assert all(54421 <= default_port(name) <= 55419 for name in names)
    assert len({default_port(name) for name in names}) == len(names)
    assert default_port("orders2") == default_port("orders1") + 1
    assert {default_port(f"db{number}") for number in range(1, 100)} == set(range(54321, 54420))


def test_a_default_port_that_two_names_have_is_told_with_what_to_set() -> None:
    assert mistakes(servers(db2={}, db1={}, db01={})) == [
        "cluster.servers.db1.port: missing; the default for its name is 54321, which another server has"
    ]


def test_the_order_of_the_mapping_means_nothing() -> None:
    """A stack file's own gets lost on its way through Pulumi."""
    declared = {f"db{n}": {"settings": {"work_mem": f"{n}MB"}} for n in (3, 1, 2)}
    cluster = stack_file.parse(FILE, {"primary": "db2", "servers": declared})
    again = stack_file.parse(FILE, {"primary": "db2", "servers": dict(sorted(declared.items()))})
    for one in (cluster, again):
        assert [server.name for server in one.members] == ["db2", "db1", "db3"]
        assert [server.settings["work_mem"] for server in one.members] == ["2MB", "1MB", "3MB"]
        assert one.places == ["cluster.servers.db2", "cluster.servers.db1", "cluster.servers.db3"]
    assert cluster == again


DEEP = json.loads("[" * 400 + "]" * 400)
FORMER = "cluster: the servers are one mapping now, and primary names one of them; "
UNSHOWN = (
    "write each server's settings below its name in servers, and the name of one in primary (see docs/settings.md)"
)


@pytest.mark.parametrize(
    ("document", "shown"),
    [
        ({"standbys": []}, "primary: primary, servers: {primary: {}}"),
        ({"standbys": [{"name": "db2"}]}, "primary: primary, servers: {primary: {}, db2: {}}"),
        ({"primary": {"name": "db1"}}, "primary: db1, servers: {db1: {}, standby1: {}}"),
        (
            {
                "primary": {"name": "db1", "host": {"ssh": "192.0.2.1", "user": "deploy"}, "adopt": True, "port": 5432},
                "standbys": [{"name": "db3", "settings": {"jit": "off"}}, {"listen": ["*"], "name": "db2"}],
            },
            (
                'primary: db1, servers: {db1: {host: {ssh: "192.0.2.1", user: deploy}, adopt: true, port: 5432}, '
                "db3: {settings: {jit: 'off'}}, db2: {listen: [\"*\"]}}"
            ),
        ),
        (
            {
                "primary": {"name": "7", "host": {"ssh": "a\nb"}},
                "standbys": [{"name": "x", "port": None, "settings": {}}],
            },
            'primary: "7", servers: {"7": {host: {ssh: "a\\nb"}}, x: {port: null, settings: {}}}',
        ),
    ],
)
def test_the_former_form_is_told_with_its_content_in_the_new_one(document: dict[str, Any], shown: str) -> None:
    assert mistakes(document | {"encription": "off"}) == [f"{FORMER}write: {shown}"]
    former = [document.get("primary", {"name": "primary"}), *document.get("standbys", [{"name": "standby1"}])]
    assert yaml.safe_load(f"{{{shown}}}") == {
        "primary": former[0]["name"],
        "servers": {one["name"]: {key: one[key] for key in one if key != "name"} for one in former},
    }


@pytest.mark.parametrize(
    "document",
    [
        {"primary": {}},
        {"primary": {"name": 1}},
        {"primary": {"name": "db1"}, "standbys": None},
        {"primary": {"name": "db1"}, "standbys": ["db2"]},
        {"primary": {"name": "db1"}, "standbys": [{"name": "db1"}]},
        {"primary": "db1", "standbys": [{"name": "db2"}]},
        {"primary": {"name": "db1"}, "servers": {"db1": {}}},
        {"standbys": [{"name": "db2", "host": DEEP}]},
        {"standbys": [{"name": "db2", "host": {"ssh": pulumi.Output.from_input("192.0.2.1")}}]},
    ],
)
def test_what_cannot_be_read_of_the_former_form_is_not_guessed(document: dict[str, Any]) -> None:
    with pytest.raises(StackFileError) as told:
        stack_file.parse(FILE, document)
    assert told.value.mistakes == [FORMER + UNSHOWN]


@pytest.mark.parametrize("host", ["local", {"ssh": "db1"}, {"docker": "postgres"}])
def test_a_primary_that_no_standby_can_reach_is_told(host: Any) -> None:
    def mistakes(listen: list[str]) -> list[str]:
        other = "local" if host == "local" else {"ssh": "db2"} if "ssh" in host else host
        standby = {"host": other, "address": "192.0.2.2/32"}
        try:
            stack_file.parse(FILE, json.dumps(servers(db1={"host": host, "listen": listen}, db2=standby)))
        except StackFileError as error:
            return error.mistakes
        return []

    assert mistakes([]) == [
        "cluster.servers.db1.listen: no address, and standbys connect by TCP: name an address of its network, or *"
    ]
    told = (
        "cluster.servers.db1.listen: 127.0.0.1, localhost can be reached on its own machine alone, and db2 is on another "
        "machine: name an address of its network, or *"
    )
    assert mistakes(["127.0.0.1", "localhost"]) == [told] * (host != "local")
    assert mistakes(["::1", "192.0.2.1"]) == []


def test_defaults() -> None:
    cluster = stack_file.parse(FILE, "{}")
    assert cluster.encryption == "required"
    assert [server.name for server in cluster.members] == ["db1", "db2"]
    assert [cluster.port(server) for server in cluster.members] == [54321, 54322]
    assert cluster.places == ["cluster.servers.db1", "cluster.servers.db2"]
    assert not cluster.disposable
    assert cluster.replication.max_slot_wal_keep_size == "4GB"
    assert not cluster.replication.encrypted
    assert sorted(cluster.key.scope) == ["default", "server"]


def test_no_standby() -> None:
    cluster = stack_file.parse(FILE, alone())
    assert [server.name for server in cluster.members] == ["db1"]


def test_the_other_of_the_two_by_default_as_the_primary() -> None:
    cluster = stack_file.parse(FILE, {"primary": "db2"})
    assert (cluster.primary_server.name, [server.name for server in cluster.standbys]) == ("db2", ["db1"])


@pytest.mark.parametrize("host", ["local", {"docker": "postgres:18"}, {"ssh": "db1.example.net"}])
def test_nothing_is_disposable_that_does_not_say_so(host: Any) -> None:
    assert not stack_file.parse(FILE, json.dumps(alone(host=host))).disposable


@pytest.mark.parametrize("stack", ["local", "docker", "staging"])
def test_stacks_that_are_made_and_removed_often_say_that_they_are_disposable(stack: str) -> None:
    file = HERE.root / "stacks" / f"Pulumi.{stack}.yaml"
    document = yaml.safe_load(file.read_text())["config"]["tde-replication:cluster"]
    assert stack_file.parse(file.name, document).disposable


@pytest.mark.parametrize(
    ("given_", "kept"),
    [("10.0.0.7", "10.0.0.7/32"), ("10.0.0.0/255.0.0.0", "10.0.0.0/8"), ("::1", "::1/128"), ("db1.example", "db1.example")],
)  # fmt: skip
def test_networks_are_kept_in_one_spelling(given_: str, kept: str) -> None:
    assert stack_file.parse(FILE, json.dumps(primary(address=given_))).primary_server.address == kept


def test_numbers_and_switches_become_texts() -> None:
    declared = {"work_mem": "8MB", "jit": False, "ssl": True, "max_connections": 50, "seq_page_cost": 1.5}
    assert stack_file.parse(FILE, json.dumps(primary(settings=declared))).primary_server.settings == {
        "work_mem": "8MB",
        "jit": "off",
        "ssl": "on",
        "max_connections": "50",
        "seq_page_cost": "1.5",
    }


def test_slashes_around_a_mount_go() -> None:
    assert stack_file.parse(FILE, '{"vault": {"mount": "/team/tde/"}}').vault.mount == "team/tde"


labels = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,57}[a-z0-9])?", fullmatch=True)
clusters = st.fixed_dictionaries(
    {
        "encryption": st.sampled_from(["required", "if-available", "off"]),
        "servers": st.lists(labels.filter("primary".__ne__), unique_by=default_port, max_size=5).map(
            lambda names: {"primary": {"port": 1}, **{name: {} for name in names}}
        ),
        "replication": st.fixed_dictionaries(
            {"maxSlotWalKeepSize": st.from_regex(r"-1|[0-9]{1,6}(kB|MB|GB|TB)", fullmatch=True)}
        ),
        "primary": st.just("primary"),
    }
)


@given(clusters)
def test_what_is_valid_comes_back_as_it_was(document: dict[str, Any]) -> None:
    cluster = stack_file.parse(FILE, json.dumps(document))
    again = stack_file.parse(FILE, cluster.model_dump_json(by_alias=True))
    assert again == cluster
    assert (
        cluster.model_dump(by_alias=True)["replication"]["maxSlotWalKeepSize"]
        == (document["replication"]["maxSlotWalKeepSize"])
    )


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(sorted(f.alias or n for n, f in Cluster.model_fields.items())), json_values))
def test_whatever_is_written_is_valid_or_told_as_mistakes_with_their_place(document: dict[str, Any]) -> None:
    try:
        stack_file.parse(FILE, json.dumps(document))
        told = []
    except StackFileError as error:
        told = error.mistakes
    assert all(re.match(r"cluster.*: .", line, re.DOTALL) for line in told)


def test_an_adopted_primary_is_not_restarted_unless_the_stack_file_says_so() -> None:
    there = {"adopt": True, "dataDirectory": "/srv/pg", "port": 5432}
    for declared, restart in (({}, "allowed"), (there, "refused"), (there | {"restart": "allowed"}, "allowed")):
        assert stack_file.parse(FILE, json.dumps(primary(**declared))).primary_server.restart == restart


def test_what_another_port_of_one_name_leads_to_is_another_machine() -> None:
    def cluster(*ports: int | None) -> str:
        hosts = [{"ssh": "gate"} | ({"port": port} if port else {}) for port in ports]
        declared = {
            f"db{n}": {"host": host, "address": f"192.0.2.{n}", "dataDirectory": "/srv/pg/data"}
            for n, host in enumerate(hosts)
        }
        return json.dumps(servers(**declared))

    assert len(stack_file.parse("x.yaml", cluster(2201, 2202)).standbys) == 1
    for ports in ((None, None), (None, 22), (2201, 2201)):
        with pytest.raises(StackFileError, match='dataDirectory: "/srv/pg/data" is used twice'):
            stack_file.parse("x.yaml", cluster(*ports))


@pytest.mark.parametrize("path", ["/dev/shm/pg/data", "/var/lib/postgresql/18/main", "/srv/data", "/home/usr/etc"])
def test_a_data_directory_of_its_own(path: str) -> None:
    stack_file.parse(FILE, json.dumps(primary(dataDirectory=path)))


@pytest.mark.parametrize("address", ["10.0.0.0/8", "127.0.0.1/32", "fd00::/16"])
def test_a_private_network_may_hold_the_servers(address: str) -> None:
    stack_file.parse(FILE, json.dumps(primary(address=address)))


def test_a_program_names_settings_as_python_does_and_a_stack_file_by_their_keys() -> None:
    server = Server(data_directory="/srv/db1/data")
    declared = Cluster(wal_encryption=True, primary="db1", servers={"db1": server})
    assert stack_file.parse("a program", declared) is declared
    assert declared.primary_server.name == "db1"
    assert stack_file.parse(FILE, {"walEncryption": True, **alone(dataDirectory="/srv/db1/data")}) == declared
    with pytest.raises(StackFileError) as refused:
        stack_file.parse(FILE, {"wal_encryption": True, **alone(data_directory="/srv/db1/data")})
    assert refused.value.mistakes == [
        "cluster.servers.db1.data_directory: there is no such setting",
        "cluster.wal_encryption: there is no such setting",
    ]


def test_a_contradiction_in_a_program_is_told_as_in_a_stack_file() -> None:
    one = Server(port=5432)
    with pytest.raises(
        StackFileError, match=r"^a program has 1 mistake; .*\n  cluster\.servers\.db2\.port: 5432 is used twice$"
    ):
        stack_file.parse("a program", Cluster(primary="db1", servers={"db1": one, "db2": one}))


def test_a_typed_machine_of_its_own_listens_to_all_as_a_declared_one_does() -> None:
    assert Server(host=Ssh(ssh="db1.example.net")).listen == ["*"]
    assert Server(host=Docker(docker="image:1")).listen == ["*"]
    assert Server().listen == ["127.0.0.1"]


def test_host_keys_are_kept_without_comments() -> None:
    scanned = f"# db1:22 SSH-2.0\n[db1]:22 {KEY} comment\n\n"
    host = MACHINE | {"hostKeys": [f"{KEY} root@db1", scanned]}
    found = stack_file.parse(FILE, alone(host=host)).primary_server.host
    assert isinstance(found, Ssh)
    assert found.own_keys == (KEY, f"[db1]:22 {KEY}")
    assert Ssh(ssh="db1", host_keys=[KEY]) == Ssh.model_validate({"ssh": "db1", "hostKeys": KEY})


def test_a_primary_has_slots_and_connections_for_all_its_standbys() -> None:
    def document(count: int, **parameters: Any) -> dict[str, Any]:
        return servers(db1={"settings": parameters}, **{f"db{n + 2}": {} for n in range(count)})

    assert len(stack_file.parse(FILE, document(6)).standbys) == 6
    assert len(stack_file.parse(FILE, document(12, max_wal_senders=16, max_replication_slots=12)).standbys) == 12
    with pytest.raises(stack_file.StackFileError) as told:
        stack_file.parse(FILE, document(12))
    slots, senders = told.value.mistakes
    low = "10 is too low for 12 standbys: set it to"
    assert slots == f"cluster.servers.db1.settings.max_replication_slots: {low} 12 or more (one for each)"
    assert senders.startswith(
        f"cluster.servers.db1.settings.max_wal_senders: {low} 16 or more (one for each, and another for"
    )
