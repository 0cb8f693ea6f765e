"""What a stranger's stack file may have the runner reach: a hostile file for every setting that leads to a process, a socket or a
path, and no setting that nobody has thought of."""

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from bootstrap import __main__ as bootstrap
from bootstrap.project import BootstrapError, Project
from bootstrap.vault_check import why_unusable
from tde_replication import allowed, settings, stack_file
from tde_replication.allowed import VARIABLE, configuration, secrets_provider
from tde_replication.host_settings import Docker, Settings, Ssh
from tde_replication.stack_file import StackFileError
from tde_replication.vault_settings import DatabaseKey


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
    "Vault": {"mount", "existing", "network", "namespace", "provider", "token_period"},  # at VAULT_ADDR, or of docker
    "Key": {"name", "scope", "former", "rotate_after"},
    "DatabaseKey": {"name"},
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


def test_each_setting_is_known_to_reach_something_or_nothing() -> None:
    """Whoever adds one decides which, in HOSTILE or HARMLESS above; one that reaches something is checked in `allowed`."""
    cluster = settings.Cluster()
    sections = (cluster.vault, cluster.key, cluster.replication, cluster.primary_server)
    models: list[type[Settings]] = [Ssh, Docker, DatabaseKey, *(type(one) for one in sections)]
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
    assert line.startswith(f"{VARIABLE}: 'everything' begins with none of local, ssh, ")


def test_the_configuration_of_a_provider_leads_nowhere_else() -> None:
    keys = ["tde-replication:cluster", "vault:address", "vault:token", "pulumi:tags", "docker:host", "vault:headers"]
    assert configuration(keys, {}) == []
    assert [line.partition(": ")[0] for line in configuration(keys, {VARIABLE: ""})] == ["docker:host", "vault:headers"]
    assert configuration(keys, {VARIABLE: "config:docker:host config:vault:*"}) == []


def test_what_decrypts_a_stack_file_is_not_asked_either() -> None:
    what = "awskms://k?endpoint=evil"
    assert secrets_provider(what, {}) is None
    for usual in ("", "passphrase"):
        assert secrets_provider(usual, {VARIABLE: ""}) is None
    assert secrets_provider(what, {VARIABLE: "secrets:awskms://k*"}) is None
    assert f"does not list secrets:{what}" in str(secrets_provider(what, {VARIABLE: ""}))


@pytest.mark.parametrize(
    "text",
    ["secretsprovider: awskms://k", '{"secrets\\u0070rovider": "awskms://k"}', "? secretsprovider\n: awskms://k"],
)
def test_bootstrap_looks_for_it_before_pulumi_does(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str) -> None:
    (tmp_path / "stacks").mkdir()
    (tmp_path / "stacks" / "Pulumi.evil.yaml").write_text(f"{text}\n")
    (tmp_path / ".venv").symlink_to(sys.prefix)
    monkeypatch.setattr(bootstrap, "HERE", Project(tmp_path))
    monkeypatch.setattr(bootstrap, "prepare", lambda *_, **__: (None, None))
    monkeypatch.setenv(VARIABLE, "")
    for command in (["run", "true"], ["preview"]):
        with pytest.raises(BootstrapError, match=r"Pulumi\.evil\.yaml: secretsprovider: this run may not reach it"):
            bootstrap.main(["--stack", "evil", *command])


def test_a_vault_that_only_the_file_names_is_not_even_asked_for_its_health(tmp_path: Path) -> None:
    file = tmp_path / "Pulumi.evil.yaml"
    file.write_text("config:\n  vault:address: https://127.0.0.1:1\n")
    environ = {"VAULT_TOKEN": "t", "VAULT_ADDR": "https://127.0.0.1:2"}
    assert why_unusable(file, environ), "asked, and it does not answer"
    assert why_unusable(file, {**environ, VARIABLE: ""}) is None


def test_without_the_list_nothing_is_kept_from_its_own_reader() -> None:
    assert allowed.allowed({name: value for name, value in os.environ.items() if name != VARIABLE}) is None
