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
from tde_replication.vault.address import VaultAddress

FILE = "stacks/Pulumi.test.yaml"


def mistakes(document: Any) -> list[str]:
    with pytest.raises(StackFileError) as told:
        stack_file.parse(FILE, json.dumps(document))
    return told.value.mistakes


def primary(**fields: Any) -> dict[str, Any]:
    return {"primary": {"name": "db1", **fields}}


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
        ({"disposable": 1}, "cluster.disposable: this must be true or false"),
        ({"database": ""}, "cluster.database: must not be empty"),
        ({"vault": None}, f"cluster.vault: {A_MAPPING}"),
        ({"vault": {"mount": "a b"}}, f'cluster.vault.mount: "a b" {VAULT}'),
        ({"vault": {"mount": "/"}}, f'cluster.vault.mount: "" {VAULT}'),
        ({"vault": {"mount": "a/../b"}}, f'cluster.vault.mount: "a/../b" {VAULT}'),
        ({"vault": {"mount": "a{b}"}}, f'cluster.vault.mount: "a{{b}}" {VAULT}'),
        (
            primary(host={"ssh": "db1", "packages": "debs"}),
            'cluster.primary.host.packages: "debs" is neither percona, none, nor a directory (write ./debs)',
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
        ({"replication": {"maxSlotWalKeepSize": 64}}, f"cluster.replication.maxSlotWalKeepSize: {A_TEXT}"),
        (
            {"replication": {"tls": "require"}},
            (
                'cluster.replication.tls: "require" needs a primary that speaks TLS: set ssl: on, ssl_cert_file and '
                "ssl_key_file in primary.settings"
            ),
        ),
        (
            {"replication": {"tls": "verify-ca"}, **primary(settings={"ssl": True})},
            'cluster.replication.rootCertificate: missing, and tls is "verify-ca"',
        ),
        ({"standbys": {"name": "db2"}}, "cluster.standbys: this must be a list"),
        ({"standbys": ["db2"]}, f"cluster.standbys[0]: {A_MAPPING}"),
        ({"standbys": [{"name": "db2"}, {}]}, "cluster.standbys[1].name: this is missing"),
        ({"standbys": [{"name": "db2"}, {"name": "db2"}]}, 'cluster.standbys[1].name: "db2" is used twice'),
        ({"standbys": [{"name": "primary"}]}, 'cluster.standbys[0].name: "primary" is used twice'),
        ({"standbys": [{"name": "db_2"}]}, f'cluster.standbys[0].name: "db_2" {NAME}'),
        ({"standbys": [{"name": "-"}]}, f'cluster.standbys[0].name: "-" {NAME}'),
        (
            {"standbys": [{"name": LONG}]},
            f'cluster.standbys[0].name: "{LONG}" is 60 characters long; its slot "tde_…" leaves room for 59',
        ),
        (primary(port="5432"), f"cluster.primary.port: {A_NUMBER}"),
        (
            primary(port=54322),
            "cluster.standbys[0].port: missing; the default for its name is 54322, which another server has",
        ),
        (primary(port=0), "cluster.primary.port: input should be greater than or equal to 1"),
        (primary(port=65536), "cluster.primary.port: input should be less than or equal to 65535"),
        (
            primary(host="moon"),
            "cluster.primary.host: this must be local, or a mapping such as {ssh: db1.example.net} or {docker: IMAGE}",
        ),
        (primary(dataDirectory="data"), f'cluster.primary.dataDirectory: "data" {ABSOLUTE}'),
        (primary(dataDirectory="/a/../b"), f'cluster.primary.dataDirectory: "/a/../b" {ABSOLUTE}'),
        (primary(dataDirectory="/a\nb"), f'cluster.primary.dataDirectory: "/a\nb" {ABSOLUTE}'),
        (primary(binaries="bin"), f'cluster.primary.binaries: "bin" {ABSOLUTE}'),
        (primary(listen="*"), "cluster.primary.listen: this must be a list"),
        (
            primary(address="10.0.0.1/8"),
            'cluster.primary.address: "10.0.0.1/8" has bits set right of its mask (write 10.0.0.0/8)',
        ),
        (primary(address="10.0.0.300/32"), f'cluster.primary.address: "10.0.0.300/32" {NETWORK}'),
        (primary(address="10.0.0.1/33"), f'cluster.primary.address: "10.0.0.1/33" {NETWORK}'),
        (primary(address="10.0.0.300"), f'cluster.primary.address: "10.0.0.300" {NETWORK}'),
        (primary(address='db1" trust #'), f'cluster.primary.address: "db1" trust #" {NETWORK}'),
        (primary(settings={"Port": 1}), f"cluster.primary.settings.port: {OWN}"),
        (
            primary(settings={"wal_level": "Minimal"}),
            "cluster.primary.settings.wal_level: Minimal: streaming replication needs replica or logical",
        ),
        (
            primary(settings={"Max_wal_senders": 0}),
            f"cluster.primary.settings.max_wal_senders: 0: {SENDERS}",
        ),
        (
            primary(settings={"max_replication_slots": "00"}),
            f"cluster.primary.settings.max_replication_slots: 00: {SENDERS}",
        ),
        (
            primary(settings={"hot_standby": "OF"}),
            "cluster.primary.settings.hot_standby: OF: a standby that takes no connections cannot be checked",
        ),
        (
            primary(settings={"allow_alter_system": "off"}),
            "cluster.primary.settings.allow_alter_system: off: the stack sets parameters by ALTER SYSTEM",
        ),
        (
            primary(settings={"recovery_target_lsn": "0/1"}),
            "cluster.primary.settings.recovery_target_lsn: 0/1: a standby would end its recovery there, and stop following",
        ),
        (
            primary(settings={"SHARED_preload_libraries": "pg_tde"}),
            "cluster.primary.settings.shared_preload_libraries: pg_tde is added by the stack itself: leave it out",
        ),
        (
            primary(settings={"work_mem": "1MB", "Work_mem": "2MB"}),
            'cluster.primary.settings: "work_mem" has two spellings: write one',
        ),
        (
            primary(settings={"Max_Connections": 200})
            | {"standbys": [{"name": "db2", "settings": {"max_connections": 100}}]},
            "cluster.standbys[0].settings.max_connections: 100 is lower than the primary's 200: the standby would stop replaying",
        ),
        (primary(settings={"pg_tde.wal_encrypt": True}), f"cluster.primary.settings.pg_tde.wal_encrypt: {OWN}"),
        (primary(settings={"work mem": 1}), f"cluster.primary.settings.work mem: {NO_PARAMETER}"),
        *(
            (primary(settings={name: "/tmp/mine"}), f"cluster.primary.settings.{shown}: {NO_PARAMETER}")
            for name, shown in {
                "include": "include",
                "Include_If_Exists": "include_if_exists",
                "include_dir": "include_dir",
                "x\nport": '"x\\nport"',
                "": '""',
            }.items()
        ),
        ({"x\ny": 1}, r'cluster."x\ny": there is no such setting'),
        (primary(settings={"x": "1\nport = 1"}), f"cluster.primary.settings.x: {TWO_LINES}"),
        (primary(settings={"x": "1\0"}), f"cluster.primary.settings.x: {TWO_LINES}"),
        (primary(settings={"x": [1]}), f"cluster.primary.settings.x: {A_TEXT}"),
        (primary(settings={"x": None}), f"cluster.primary.settings.x: {A_TEXT}"),
        (
            primary(settings={"shared_preload_libraries": "auto_explain,pg_tde"}),
            "cluster.primary.settings.shared_preload_libraries: pg_tde is added by the stack itself: leave it out",
        ),
        (
            primary(host=CONTAINER, adopt=True, dataDirectory="/srv/db/data", port=5432) | {"standbys": []},
            "cluster.primary.adopt: only a server on a machine is adopted; the stack always makes its containers",
        ),
        (
            primary(host=CONTAINER, dataDirectory="/data") | {"standbys": []},
            f'cluster.primary.dataDirectory: "/data" {BELOW_ROOT}',
        ),
        (primary(dataDirectory="/etc"), f'cluster.primary.dataDirectory: "/etc" {BELOW_ROOT}'),
        *(
            (
                primary(dataDirectory=path),
                (
                    f'cluster.primary.dataDirectory: "{path}" lies in /{path.split("/")[1]}, which belongs to the operating '
                    "system (write /srv/pg/data)"
                ),
            )
            for path in ("/etc/postgresql", "/usr/local/pg/data", "/dev/pg/data", "/proc/1/cwd")
        ),
        *(
            (
                primary(address=address),
                (
                    f'cluster.primary.address: "{address}" would let in far more than one server (write 192.0.2.7/32, or a '
                    f"network of at most /{least})"
                ),
            )
            for address, least in (("0.0.0.0/0", 8), ("128.0.0.0/1", 8), ("::/0", 16), ("2000::/3", 16))
        ),
        (
            primary(host=MACHINE | {"jump": ["one", "two"]}) | {"standbys": []},
            "cluster.primary.host.jump: pulumi-command, which prepares the machine, goes through one jump host",
        ),
        *(
            (primary(host=MACHINE | {"hostKeys": keys}), f"cluster.primary.host.hostKeys[{n}]: {told} {HOST_KEY}")
            for n, keys, told in (
                (0, "ssh-ed25519 AAAA", '"ssh-ed25519 AAAA" is not a host key'),
                (1, [KEY, f"@cert-authority * {KEY}"], f'"{f"@cert-authority * {KEY}"[:80]}" is not a host key'),
                (0, f"db1 {KEY}\ndb1 ssh-ed25519", "line 2 of it is not a host key"),
                (0, "# none\n", "it holds no host key"),
            )
        ),
        (
            primary(host=CONTAINER) | {"standbys": [{"name": "db2", "host": MACHINE}]},
            f"cluster.standbys[0].host: a primary in a container is reached on its docker network alone: {ELSEWHERE}",
        ),
        (
            primary() | {"standbys": [{"name": "db2", "host": CONTAINER}]},
            f"cluster.standbys[0].host: a local primary is reached on this machine's loopback alone: {ELSEWHERE}",
        ),
        (
            primary(host=MACHINE) | {"standbys": [{"name": "db2", "host": CONTAINER}]},
            f"cluster.standbys[0].address: missing; for pg_hba.conf, name where its connections come from {SEEN}",
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
    standbys = [{"name": name, "host": host, "address": "192.0.2.7/32"} for name, host in kinds.items()]
    stack_file.parse(FILE, json.dumps(primary(host=MACHINE) | {"standbys": standbys}))


def test_an_adopted_server_may_be_behind_several_machines() -> None:
    adopted = {"adopt": True, "dataDirectory": "/srv/db/data", "port": 5432}
    document = primary(host=MACHINE | {"jump": ["one", "two"]}, **adopted) | {"standbys": []}
    stack_file.parse(FILE, json.dumps(document))


@pytest.mark.parametrize(
    ("document", "address", "told"),
    [
        (primary(host=CONTAINER) | {"standbys": []}, "https://127.0.0.1:8200", ["db1"]),
        (primary(host=MACHINE), "http://localhost:8200", ["db1"]),
        (primary(host=CONTAINER) | {"standbys": []}, "https://vault.example.net:8200", []),
        (primary(), "https://127.0.0.1:8200", []),
    ],
)
def test_a_vault_on_this_machines_loopback_is_none_for_servers_elsewhere(
    document: dict[str, Any], address: str, told: list[str]
) -> None:
    seen = {"addressFromServers": "https://vault:8200"}
    standbys = [{"name": "db2", "address": "192.0.2.7/32"}] if document.get("standbys") is None else []
    for vault, expected in (({}, told), (seen, [])):
        cluster = stack_file.parse(FILE, json.dumps(document | {"standbys": standbys, "vault": vault}))
        found = check_vault_from_servers(cluster, address)
        assert len(found) == len(expected)
        assert all(f"vault:address {address} is a loopback address, and db1 would" in line for line in found)


def test_what_is_no_mapping_at_all() -> None:
    with pytest.raises(StackFileError, match="must be a mapping of settings"):
        stack_file.parse(FILE, "encryption: off")


def test_all_mistakes_are_told_at_once_under_one_heading() -> None:
    document = {
        "standbys": [{"name": "db2"}, {"name": "db2"}],
        "replication": {"maxSlotWalKeepSize": "64 gigs"},
    }
    with pytest.raises(StackFileError) as told:
        stack_file.parse(FILE, json.dumps(document))
    assert str(told.value) == (
        f"{FILE} has 2 mistakes; nothing was touched:\n"
        '  cluster.replication.maxSlotWalKeepSize: "64 gigs" is not a size (write 64GB)\n'
        '  cluster.standbys[1].name: "db2" is used twice'
    )


def test_mistakes_of_the_vault_are_told_with_those_of_the_cluster(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("VAULT_ADDR", "VAULT_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(pulumi, "get_project", lambda: "tde-replication")
    missing = VaultAddress.missing()
    assert [line.split(";")[0] for line in missing] == ["vault:address: missing", "vault:token: missing"]
    for document in ("encryption: off", '{"x": 1}', "{}"):
        with pytest.raises(StackFileError) as told:
            stack_file.parse(FILE, document, missing)
        assert told.value.mistakes[-2:] == missing
    monkeypatch.setenv("VAULT_ADDR", "https://127.0.0.1:1")
    monkeypatch.setenv("VAULT_TOKEN", "a token")
    assert VaultAddress.missing() == []


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
        told = VaultAddress.missing()
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
    document = primary(dataDirectory="/pg/a") | {"standbys": [{"name": "db2", "dataDirectory": "/pg/b"}]}
    reason = "/pg holds another server's directory too; each needs a parent directory of its own for its token and log"
    assert mistakes(document) == [
        f"cluster.primary.dataDirectory: {reason}",
        f"cluster.standbys[0].dataDirectory: {reason}",
    ]


def test_a_default_port_goes_by_the_name_alone() -> None:
    """Whoever takes the first of two standbys out changes nothing of the other."""

    def ports(*standbys: str) -> dict[str, int]:
        cluster = stack_file.parse(FILE, json.dumps({"standbys": [{"name": name} for name in standbys]}))
        return {server.name: cluster.port(server) for server in cluster.servers}

    both = ports("standby1", "standby2")
    assert both == {"primary": 54321, "standby1": 54322, "standby2": 54323}
    assert ports("standby2") == {name: both[name] for name in ("primary", "standby2")}
    names = ("orders", "orders1", "orders-2", "db1", "db2", "db-007", "db100", "7", "x" * 59)
    assert all(54421 <= default_port(name) <= 55419 for name in names)
    assert len({default_port(name) for name in names}) == len(names)
    assert default_port("db2") == default_port("db1") + 1


def test_a_default_port_that_two_names_have_is_told_with_what_to_set() -> None:
    document = json.dumps({"standbys": [{"name": "db1"}, {"name": "db01"}]})
    with pytest.raises(StackFileError) as told:
        stack_file.parse(FILE, document)
    assert told.value.mistakes == [
        f"cluster.standbys[1].port: missing; the default for its name is {default_port('db1')}, which another server has"
    ]


@pytest.mark.parametrize("host", ["local", {"ssh": "db1"}, {"docker": "postgres"}])
def test_a_primary_that_no_standby_can_reach_is_told(host: Any) -> None:
    def mistakes(listen: list[str]) -> list[str]:
        other = "local" if host == "local" else {"ssh": "db2"} if "ssh" in host else host
        servers = {
            "primary": {"name": "db1", "host": host, "listen": listen},
            "standbys": [{"name": "db2", "host": other, "address": "192.0.2.2/32"}],
        }
        try:
            stack_file.parse(FILE, json.dumps(servers))
        except StackFileError as error:
            return error.mistakes
        return []

    assert mistakes([]) == [
        "cluster.primary.listen: no address, and standbys connect by TCP: name an address of its network, or *"
    ]
    told = (
        "cluster.primary.listen: 127.0.0.1, localhost can be reached on its own machine alone, and db2 is on another "
        "machine: name an address of its network, or *"
    )
    assert mistakes(["127.0.0.1", "localhost"]) == [told] * (host != "local")
    assert mistakes(["::1", "192.0.2.1"]) == []


def test_defaults() -> None:
    cluster = stack_file.parse(FILE, "{}")
    assert cluster.encryption == "required"
    assert [server.name for server in cluster.servers] == ["primary", "standby1"]
    assert [cluster.port(server) for server in cluster.servers] == [54321, 54322]
    assert cluster.places == ["cluster.primary", "cluster.standbys[0]"]
    assert not cluster.disposable
    assert cluster.replication.max_slot_wal_keep_size == "4GB"
    assert not cluster.replication.encrypted
    assert sorted(cluster.key.scope) == ["default", "server"]


def test_no_standby() -> None:
    cluster = stack_file.parse(FILE, '{"standbys": []}')
    assert [server.name for server in cluster.servers] == ["primary"]


@pytest.mark.parametrize("host", ["local", {"docker": "postgres:18"}, {"ssh": "db1.example.net"}])
def test_nothing_is_disposable_that_does_not_say_so(host: Any) -> None:
    assert not stack_file.parse(FILE, json.dumps(primary(host=host) | {"standbys": []})).disposable


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
    assert stack_file.parse(FILE, json.dumps(primary(address=given_))).primary.address == kept


def test_numbers_and_switches_become_texts() -> None:
    declared = {"work_mem": "8MB", "jit": False, "ssl": True, "max_connections": 50, "seq_page_cost": 1.5}
    assert stack_file.parse(FILE, json.dumps(primary(settings=declared))).primary.settings == {
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
        "standbys": st.lists(labels.filter("primary".__ne__), unique_by=default_port, max_size=5).map(
            lambda names: [{"name": name} for name in names]
        ),
        "replication": st.fixed_dictionaries(
            {"maxSlotWalKeepSize": st.from_regex(r"-1|[0-9]{1,6}(kB|MB|GB|TB)", fullmatch=True)}
        ),
        "primary": st.fixed_dictionaries({"name": st.just("primary"), "port": st.integers(1, 54321)}),
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
        assert stack_file.parse(FILE, json.dumps(primary(**declared))).primary.restart == restart


def test_what_another_port_of_one_name_leads_to_is_another_machine() -> None:
    def cluster(*ports: int | None) -> str:
        hosts = [{"ssh": "gate"} | ({"port": port} if port else {}) for port in ports]
        one, two = [
            {"name": f"db{n}", "host": host, "address": f"192.0.2.{n}", "dataDirectory": "/srv/pg/data"}
            for n, host in enumerate(hosts)
        ]
        return json.dumps({"primary": one, "standbys": [two]})

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
    declared = Cluster(wal_encryption=True, primary=Server(name="db1", data_directory="/srv/db1/data"), standbys=[])
    assert stack_file.parse("a program", declared) is declared
    document = {"walEncryption": True, "primary": {"name": "db1", "dataDirectory": "/srv/db1/data"}, "standbys": []}
    assert stack_file.parse(FILE, document) == declared
    with pytest.raises(StackFileError) as refused:
        stack_file.parse(FILE, {"wal_encryption": True, "primary": {"data_directory": "/srv/db1/data", "name": "db1"}})
    assert refused.value.mistakes == [
        "cluster.primary.data_directory: there is no such setting",
        "cluster.wal_encryption: there is no such setting",
    ]


def test_a_contradiction_in_a_program_is_told_as_in_a_stack_file() -> None:
    twice = Cluster(primary=Server(name="db1"), standbys=[Server(name="db1")])
    with pytest.raises(
        StackFileError, match=r'^a program has 1 mistake; .*\n  cluster.standbys\[0\].name: "db1" is used twice$'
    ):
        stack_file.parse("a program", twice)


def test_a_typed_machine_of_its_own_listens_to_all_as_a_declared_one_does() -> None:
    assert Server(name="db1", host=Ssh(ssh="db1.example.net")).listen == ["*"]
    assert Server(name="db1", host=Docker(docker="image:1")).listen == ["*"]
    assert Server(name="db1").listen == ["127.0.0.1"]


def test_host_keys_are_kept_without_comments() -> None:
    scanned = f"# db1:22 SSH-2.0\n[db1]:22 {KEY} comment\n\n"
    host = MACHINE | {"hostKeys": [f"{KEY} root@db1", scanned]}
    found = stack_file.parse(FILE, primary(host=host) | {"standbys": []}).primary.host
    assert isinstance(found, Ssh)
    assert found.own_keys == (KEY, f"[db1]:22 {KEY}")
    assert Ssh(ssh="db1", host_keys=[KEY]) == Ssh.model_validate({"ssh": "db1", "hostKeys": KEY})


def test_a_primary_has_slots_and_connections_for_all_its_standbys() -> None:
    def document(count: int, **parameters: Any) -> dict[str, Any]:
        return {
            "primary": {"name": "db0", "settings": parameters},
            "standbys": [{"name": f"db{n + 1}"} for n in range(count)],
        }

    assert len(stack_file.parse(FILE, document(6)).standbys) == 6
    assert len(stack_file.parse(FILE, document(12, max_wal_senders=16, max_replication_slots=12)).standbys) == 12
    with pytest.raises(stack_file.StackFileError) as told:
        stack_file.parse(FILE, document(12))
    slots, senders = told.value.mistakes
    low = "10 is too low for 12 standbys: set it to"
    assert slots == f"cluster.primary.settings.max_replication_slots: {low} 12 or more (one for each)"
    assert senders.startswith(
        f"cluster.primary.settings.max_wal_senders: {low} 16 or more (one for each, and another for"
    )
