"""The place of a server on a machine reached by ssh, as a stack declares it: no machine is asked anything here."""

import json
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import yaml

from bootstrap import vault_container
from bootstrap.vault_container import ContainerVault
from tde_replication import stack_file
from tde_replication.errors import UserError
from tde_replication.hosts.placement import Placement, PlacementContext
from tde_replication.hosts.ssh import placement
from tests.ssh.sshd import generated, own_configuration, running_agent, signed

pytestmark = pytest.mark.filterwarnings("ignore:This resource is deprecated:DeprecationWarning")
ADDRESS = {"address": "192.0.2.11/32"}


def declared(host: dict[str, Any], **server: Any) -> Placement:
    document = {"primary": "db1", "servers": {"db1": {"host": host, **ADDRESS, **server}}}
    cluster = stack_file.parse("x.yaml", json.dumps(document))
    db1 = cluster.primary_server
    return placement.declare(db1, cluster.port(db1), PlacementContext("tde-replication", "orders", "orders"))


def test_the_defaults() -> None:
    site = declared({"ssh": "db1.example.net", "user": "deploy"})
    assert site.address == "ssh://deploy@db1.example.net?account=postgres&unit=tde-orders-db1"
    assert site.data == PurePosixPath("/var/lib/postgresql/18/tde-orders-db1/data")
    assert site.binaries == PurePosixPath("/usr/lib/postgresql/18/bin")
    assert (site.port, site.replication_host, site.replication_sources) == (5432, "192.0.2.11", ("192.0.2.11/32",))
    assert site.parameters == {"unix_socket_directories": "/run/tde-orders-db1"}
    assert site.has_pg_tde


def test_red_hat() -> None:
    site = declared({"ssh": "db1", "system": "redhat", "version": 17})
    assert site.data == PurePosixPath("/var/lib/pgsql/17/tde-orders-db1/data")
    assert site.binaries == PurePosixPath("/usr/pgsql-17/bin")


@pytest.mark.parametrize(
    ("ssh", "address", "replication_host", "client"),
    [
        ("192.0.2.7", None, "192.0.2.7", "192.0.2.7/32"),
        ("2001:db8::7", None, "2001:db8::7", "2001:db8::7/128"),
        ("localhost", "192.0.2.0/24", "localhost", "192.0.2.0/24"),
        ("alias", "db1.internal", "db1.internal", "db1.internal"),
    ],
)
def test_how_the_others_know_it(ssh: str, address: str | None, replication_host: str, client: str) -> None:
    site = declared({"ssh": ssh}, address=address)
    assert (site.replication_host, site.replication_sources) == (replication_host, (client,))


def test_a_name_with_several_addresses_gives_a_rule_for_each_whatever_their_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A resolver answers in another order each time: a rule for the first one changed at random."""
    found = ["192.0.2.12", "2001:db8::7", "192.0.2.11", "192.0.2.12"]
    for order in (found, found[::-1]):
        answer = [(2, 1, 6, "", (address, 0)) for address in order]
        monkeypatch.setattr("socket.getaddrinfo", lambda *_, answer=answer, **__: answer)
        site = declared({"ssh": "db1.example.net"}, address=None)
        assert site.replication_sources == ("192.0.2.11/32", "192.0.2.12/32", "2001:db8::7/128")


def test_a_name_that_is_not_known_here_needs_an_address() -> None:
    with pytest.raises(UserError, match=r"db1: the name no-such\.invalid is not known here.*set `address`"):
        declared({"ssh": "no-such.invalid"}, address=None)


def test_an_adopted_server_has_its_own_unit_and_nothing_is_made() -> None:
    site = declared({"ssh": "127.0.0.1", "port": 1}, adopt=True, dataDirectory="/var/lib/postgresql/18/main", port=5432)
    assert site.address.endswith("unit=postgresql@18-main")
    assert not site.parameters
    assert not isinstance(site, placement.MachinePlacement)


def test_a_unit_of_debian_s_runs_only_what_is_adopted() -> None:
    with pytest.raises(UserError, match=r"it can be adopted \(adopt: true\)"):
        declared({"ssh": "db1", "unit": "postgresql@18-main"})


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One that holds nothing."""
    with running_agent(Path(tempfile.mkdtemp(dir=tmp_path))) as socket:
        monkeypatch.setenv("SSH_AUTH_SOCK", socket)
        yield


@pytest.mark.parametrize("content", [None, "", "a\n"])
def test_a_certificate_that_is_none_is_named(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "id-cert.pub"
    if content is not None:
        file.write_text(content)
    with pytest.raises(UserError, match=rf"^host\.certificate: {file} is not a readable certificate$"):
        declared({"ssh": "db1", "certificate": str(file)})


def test_a_certificate_needs_an_agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = tmp_path / "id"
    certificate = signed(key, generated(tmp_path / "ca"), "deploy")
    host = {"ssh": "db1", "key": str(key), "certificate": str(certificate)}
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    with pytest.raises(UserError, match=r"has host\.certificate from an agent alone"):
        declared(host)
    with running_agent(tmp_path) as socket:
        monkeypatch.setenv("SSH_AUTH_SOCK", socket)
        with pytest.raises(UserError, match=r"has host\.certificate from an agent alone"):
            declared(host)
        subprocess.run(["ssh-add", "-q", key], check=True)
        assert declared(host)
        # With a key beside it, Go's ssh would not come to ask the agent.
        assert "private_key" not in connection(host)


@pytest.mark.usefixtures("agent")
def test_an_agent_without_keys_leaves_it_to_the_key_file(tmp_path: Path, ssh_config: Path) -> None:
    key = generated(tmp_path / "id")
    ssh_config.write_text(f"IdentityFile {key}\n")
    assert "private_key" in connection({"ssh": "db1"})
    subprocess.run(["ssh-add", "-q", key], check=True)
    assert "private_key" not in connection({"ssh": "db1"})


def test_the_jump_host_of_ones_own_ssh_configuration(ssh_config: Path) -> None:
    assert "proxy" not in connection({"ssh": "db1"})
    ssh_config.write_text("Host db1\n ProxyJump ops@bastion:2022\nHost bastion\n HostName 192.0.2.9\n")
    proxy = connection({"ssh": "db1"})["proxy"]
    assert (proxy["host"], proxy["port"], proxy["user"]) == ("192.0.2.9", 2022, "ops")
    for address in ("192.0.2.8", "2001:db8::8"):
        ssh_config.write_text(f"Host db1\n ProxyJump ops@[{address}]\n")
        assert connection({"ssh": "db1"})["proxy"]["host"] == address
    # The stack file's goes before it, as with ssh.
    assert connection({"ssh": "db1", "jump": "other"})["proxy"]["host"] == "other"
    assert "proxy" not in connection({"ssh": "db2"})
    ssh_config.write_text("ProxyJump a,b\n")
    with pytest.raises(
        UserError, match="goes through one jump host, and your ssh configuration names 2 on the way to db1"
    ):
        declared({"ssh": "db1"})
    ssh_config.write_text("ProxyCommand nc %h %p\n")
    with pytest.raises(UserError, match="takes no ProxyCommand, as your ssh configuration has it for db1"):
        declared({"ssh": "db1"})


@pytest.fixture
def ssh_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return own_configuration(tmp_path, monkeypatch.setenv)


def connection(host: dict[str, Any]) -> dict[str, Any]:
    """What pulumi-command is given, as far as it says something."""
    from tde_replication.hosts.ssh import registration  # noqa: PLC0415 - importing pulumi-command warns

    site = declared(host)
    assert isinstance(site, placement.MachinePlacement)
    arguments = vars(registration.connection(site.login))
    return {name: vars(value) if name == "proxy" else value for name, value in arguments.items() if value is not None}


def test_packages_that_are_brought(tmp_path: Path) -> None:
    brought = {"ssh": "127.0.0.1", "port": 1, "packages": f"{tmp_path}/"}
    with pytest.raises(UserError, match=r"host.packages: .* holds no \.deb files"):
        declared(brought)
    (tmp_path / "percona-postgresql-18_18.1_amd64.deb").touch()
    assert declared(brought).has_pg_tde is None  # the machine may have it; this one does not answer
    (tmp_path / "percona-pg-tde18_2.2_amd64.deb").touch()
    assert declared(brought).has_pg_tde
    with pytest.raises(UserError, match=r"holds no \.rpm files"):
        declared(brought | {"system": "redhat"})


def test_a_unit_that_is_there_starts_a_directory_of_its_own() -> None:
    host = {"ssh": "db1", "system": "redhat", "unit": "postgresql-18"}
    with pytest.raises(
        UserError, match="postgresql-18 starts the server of one data directory: name that in dataDirectory"
    ):
        declared(host)
    assert declared(host, dataDirectory="/var/lib/pgsql/18/data").address.endswith("unit=postgresql-18")


def test_a_path_that_a_unit_cannot_have() -> None:
    with pytest.raises(UserError, match="cannot hold a path with a space or a quote"):
        declared({"ssh": "db1"}, dataDirectory="/srv/it's mine/data")


@pytest.mark.parametrize(
    ("stack", "kind", "encryption"),
    [
        ("local", "local", "if-available"),
        ("docker", "docker", "required"),
        ("staging", "ssh", "required"),
        ("production", "ssh", "required"),
    ],
)
def test_the_stack_files_are_right(stack: str, kind: str, encryption: str, request: pytest.FixtureRequest) -> None:
    file = request.config.rootpath / "stacks" / f"Pulumi.{stack}.yaml"
    document = yaml.safe_load(file.read_text())["config"]["tde-replication:cluster"]
    cluster = stack_file.parse(file.name, json.dumps(document))
    assert {server.kind for server in cluster.members} == {kind}
    assert cluster.encryption == encryption
    assert cluster.standbys


def test_the_stack_file_of_docker_names_its_own_vault(request: pytest.FixtureRequest) -> None:
    file = request.config.rootpath / "stacks" / "Pulumi.docker.yaml"
    vault = yaml.safe_load(file.read_text())["config"]["tde-replication:cluster"]["vault"]
    assert vault == {
        "network": ContainerVault.name,
        "addressFromServers": f"https://{ContainerVault.name}:{vault_container.PORT}",
    }


def test_every_stack_file_is_looked_at(request: pytest.FixtureRequest) -> None:
    found = {file.name for file in (request.config.rootpath / "stacks").glob("Pulumi.*.yaml")}
    assert found == {f"Pulumi.{stack}.yaml" for stack in ("local", "docker", "staging", "production")}


def test_a_stack_file_is_no_file_of_host_keys(tmp_path: Path) -> None:
    """Whoever proposes it could have put their own machine's key into it."""
    key = " ".join(generated(tmp_path / "key").with_name("key.pub").read_text().split()[:2])
    file = tmp_path / "Pulumi.orders.yaml"
    file.write_text(f"config:\n  tde-replication:cluster: {{}}\nevil.example.net {key}\n")
    with pytest.raises(UserError, match=r"host.knownHosts: line 1 of .*Pulumi.orders.yaml is not a host key"):
        declared({"ssh": "evil.example.net", "knownHosts": str(file)})
    file.write_text(f"db1.example.net {key}\n")
    declared({"ssh": "db1.example.net", "knownHosts": str(file)})
