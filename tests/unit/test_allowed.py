"""What a stranger's stack file may have the runner reach: a hostile file for every setting that leads to a process, a socket or a
path, and no setting that nobody has thought of."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bootstrap import __main__ as bootstrap
from bootstrap.project import BootstrapError, Project
from bootstrap.vault_check import why_unusable
from tde_replication import allowed, stack_file
from tde_replication.allowed import VARIABLE, configuration, of_pulumi
from tde_replication.host_settings import Settings
from tde_replication.stack_file import StackFileError


def one(**host: Any) -> dict[str, Any]:
    return {"primary": "db1", "servers": {"db1": {"host": {"ssh": "db1.example.net", **host}}}}


HOSTILE: dict[str, tuple[dict[str, Any], str]] = {
    "Server.host": ({"primary": "db1", "servers": {"db1": {}}}, "local"),
    "Ssh.ssh": (one(ssh="evil.example"), "ssh:evil.example"),
    "Ssh.jump": (one(jump="root@evil.example:2222"), "ssh:evil.example"),
    "Ssh.key": (one(key="/root/.ssh/id_of_another"), "file:/root/.ssh/id_of_another"),
    "Ssh.certificate": (one(certificate="/root/.ssh/cert.pub"), "file:/root/.ssh/cert.pub"),
    "Ssh.known_hosts": (one(knownHosts="/etc/shadow"), "file:/etc/shadow"),
    "Ssh.packages": (one(packages="/root/packages"), "file:/root/packages"),
    "Docker.docker": ({"primary": "db1", "servers": {"db1": {"host": {"docker": "evil/image"}}}}, "docker:evil/image"),
    "Vault.ca": ({**one(), "vault": {"ca": "/root/.ssh/id_rsa"}}, "file:/root/.ssh/id_rsa"),
    "Vault.address_from_servers": (
        {**one(), "vault": {"addressFromServers": "https://evil.example:8200"}},
        "vault:https://evil.example:8200",
    ),
}
HARMLESS = {
    "Ssh": {"user", "port", "account", "host_keys", "system", "version", "unit"},  # on the machine that is listed
    "Docker": set[str](),
    "Server": {
        *(
            "port",
            "data_directory",
            "binaries",
            "listen",
            "upstream",
        ),  # on the machine of its host, or another server's
        *("address", "adopt", "restart", "settings", "apply_delay"),
    },
    "Vault": {
        "name",
        "mount",
        "existing",
        "network",
        "namespace",
        "provider",
        "token_period",
        "renewal",
    },  # at VAULT_ADDR, or of docker
    "Key": {"name", "scope", "former", "rotate_after"},
    "DatabaseKey": {"name"},
    "Archive": {"pgbackrest"},
    "PgBackRest": {"stanza"},  # in the repository that the servers' own configuration names
    "Tables": {"database", "schema_name", "table", "encrypted"},
    "Synchronous": {"mode", "number", "standbys", "when_too_few"},
    "Cluster": {
        *("encryption", "cipher", "wal_encryption", "key", "keys"),
        *("database", "databases", "enforce_encryption", "default_table_access_method", "tables"),
        *("protect", "disposable", "expires", "replication", "synchronous", "primary", "rejoin", "archive"),
        *("minor_upgrade", "vault", "servers"),  # models above
    },
    "Replication": {"role", "tls", "max_slot_wal_keep_size", "root_certificate", "password_version"},
}
"""What leads nowhere that is not listed already."""


def refused(cluster: dict[str, Any], monkeypatch: pytest.MonkeyPatch, words: str) -> list[str]:
    monkeypatch.setenv(VARIABLE, words)
    try:
        stack_file.parse("a file", cluster)
    except StackFileError as error:
        return [line for line in error.mistakes if VARIABLE in line]
    return []


@pytest.mark.parametrize("setting", HOSTILE)
def test_a_hostile_setting_reaches_nothing_that_is_not_listed(setting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster, word = HOSTILE[setting]
    machine = "" if word in {"local", "ssh:evil.example"} else "ssh:db1.example.net "
    for words in ("", f"{machine}ssh:*.example.net", f"{machine}{word}x"):
        assert any(f"does not list {word}" in line for line in refused(cluster, monkeypatch, words)), words
    assert refused(cluster, monkeypatch, f"ssh:db1.example.net {word}") == []
    monkeypatch.delenv(VARIABLE)
    assert not [line for line in _mistakes(cluster) if VARIABLE in line]


def _mistakes(cluster: dict[str, Any]) -> list[str]:
    try:
        stack_file.parse("a file", cluster)
    except StackFileError as error:
        return error.mistakes
    return []


def _all(base: type[Settings]) -> Iterator[type[Settings]]:
    for model in base.__subclasses__():
        yield model
        yield from _all(model)


def test_each_setting_is_known_to_reach_something_or_nothing() -> None:
    """Whoever adds one decides which, in HOSTILE or HARMLESS above; one that reaches something is checked in `allowed`."""
    models = list(_all(Settings))
    assert {model.__name__ for model in models} == set(HARMLESS)
    for model in models:
        reaching = {name.partition(".")[2] for name in HOSTILE if name.partition(".")[0] == model.__name__}
        assert not set(model.model_fields) - reaching - HARMLESS[model.__name__], model.__name__
        assert not reaching & HARMLESS[model.__name__]


def test_a_pattern_is_of_the_whole_name(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("db1.example.net.evil.example", "evildb1.example.com", "example.net"):
        assert refused(one(ssh=name), monkeypatch, "ssh:*.example.net ssh:db1.*.com")
    for name in ("db1.example.net", "DB1.Example.Net", "192.0.2.7"):
        assert not refused(one(ssh=name), monkeypatch, "ssh:*.example.net ssh:192.0.2.*")


def test_the_files_of_the_project_are_its_own_and_links_are_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret").symlink_to("/etc/shadow")
    (tmp_path / "packages").mkdir()
    words = "ssh:db1.example.net"
    assert not refused(one(knownHosts="stacks/known_hosts", packages="./packages"), monkeypatch, words)
    for path, real in {
        "secret": "/etc/shadow",
        "../elsewhere": str(tmp_path.parent / "elsewhere"),
        "~/.ssh/id_rsa": str(Path("~/.ssh/id_rsa").expanduser().resolve()),
        ".local/passphrase": str(tmp_path / ".local" / "passphrase"),
    }.items():
        [line] = refused(one(key=path), monkeypatch, words)
        assert line.endswith(f"does not list file:{real}")


def test_a_word_of_no_kind_is_a_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    [line] = refused(one(), monkeypatch, "ssh:db1.example.net everything")
    assert line.startswith(f"{VARIABLE}: 'everything' must begin with one of local, ssh, ")


def test_the_configuration_of_a_provider_leads_nowhere_else() -> None:
    keys = ["tde-replication:cluster", "vault:address", "vault:token", "pulumi:tags", "docker:host", "vault:headers"]
    assert configuration(keys, {}) == []
    assert [line.partition(": ")[0] for line in configuration(keys, {VARIABLE: ""})] == ["docker:host", "vault:headers"]
    assert configuration(keys, {VARIABLE: "config:docker:host config:vault:*"}) == []


def test_what_decrypts_a_stack_file_is_not_asked_either() -> None:
    stranger = {"secretsprovider": "awskms://k?endpoint=evil"}
    assert of_pulumi(stranger, {}) == []
    for usual in (None, "", "passphrase"):
        assert of_pulumi({"secretsprovider": usual, "encryptionsalt": "v1:…"}, {VARIABLE: ""}) == []
    assert of_pulumi(stranger, {VARIABLE: "secrets:awskms://k*"}) == []
    [line] = of_pulumi(stranger, {VARIABLE: ""})
    assert line.endswith("does not list secrets:awskms://k?endpoint=evil")


@pytest.mark.parametrize(
    ("opened", "words"),
    [
        (["ours/production", "evil/env"], ["environment:evil/env"]),
        ({"values": {"environmentVariables": {"VAULT_ADDR": "https://evil.example"}}}, ["environment:inline"]),
        ({"imports": ["ours/production"], "values": {}}, ["environment:inline"]),
        ([{"evil/env": {"merge": False}}], ["environment:inline"]),
        ("ours/production", ["environment:inline"]),
        ({}, ["environment:inline"]),
    ],
)
def test_no_environment_changes_the_variables_of_a_run(opened: object, words: list[str]) -> None:
    lines = of_pulumi({"environment": opened}, {VARIABLE: "environment:ours/*"})
    assert [line.rpartition("does not list ")[2] for line in lines] == words
    assert (
        of_pulumi({"environment": opened}, {}) == of_pulumi({"environment": opened}, {VARIABLE: "environment:*"}) == []
    )


@pytest.mark.parametrize("key", ["Environment", "SecretsProvider", "b'environment'", "later"])
def test_a_key_that_pulumi_might_obey_is_refused(key: str) -> None:
    assert of_pulumi({"config": {}, key: "evil"}, {}) == []
    assert of_pulumi({"config": {}, key: "evil"}, {VARIABLE: "environment:* secrets:*"}) == [
        f"{key}: not a key of a stack file: {VARIABLE} is set, so it is refused"
    ]


SECRETS, ENVIRONMENT = "secretsprovider: this run may not", "environment: this run may not"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("secretsprovider: awskms://k", SECRETS),
        ('{"secrets\\u0070rovider": "awskms://k"}', SECRETS),
        ("? secretsprovider\n: awskms://k", SECRETS),
        ("environment: [evil/env]", ENVIRONMENT),
        ("environment: {values: {environmentVariables: {PATH: /evil}}}", ENVIRONMENT),
        ("<<: {environment: {values: {at: 2026-11-30}}}", ENVIRONMENT),
        ("!!binary ZW52aXJvbm1lbnQ=: [evil/env]", "b'environment': not a key"),
    ],
)
def test_bootstrap_looks_for_it_before_pulumi_does(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, says: str
) -> None:
    (tmp_path / "stacks").mkdir()
    (tmp_path / "stacks" / "Pulumi.evil.yaml").write_text(f"{text}\n")
    (tmp_path / ".venv").symlink_to(sys.prefix)
    monkeypatch.setattr(bootstrap, "HERE", Project(tmp_path))
    monkeypatch.setattr(bootstrap, "prepare", lambda *_, **__: (None, None))
    monkeypatch.setenv(VARIABLE, "")
    for command in (["run", "true"], ["preview"]):
        with pytest.raises(BootstrapError) as raised:
            bootstrap.main(["--stack", "evil", *command])
        assert str(raised.value).startswith(f"Pulumi.evil.yaml: {says}")


def test_a_vault_that_only_the_file_names_is_not_even_asked_for_its_health(tmp_path: Path) -> None:
    file = tmp_path / "Pulumi.evil.yaml"
    file.write_text("config:\n  vault:address: https://127.0.0.1:1\n")
    environ = {"VAULT_TOKEN": "t", "VAULT_ADDR": "https://127.0.0.1:2"}
    assert why_unusable(file, environ), "asked, and it does not answer"
    assert why_unusable(file, {**environ, VARIABLE: ""}) is None


def test_without_the_list_nothing_is_kept_from_its_own_reader() -> None:
    assert allowed.allowed({name: value for name, value in os.environ.items() if name != VARIABLE}) is None
