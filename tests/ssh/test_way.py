"""A whole stack by every way there is to a machine: through a jump host, by certificate, on another port, by IPv6."""

import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from docker.types import IPAMConfig, IPAMPool

from tde_replication.hosts.ssh.login import Login
from tde_replication.hosts.ssh.machine import SshHost
from tests.engine.workspace import Workspace
from tests.openbao import openbao  # noqa: F401 - a fixture
from tests.ssh.booted import USER, Booted, Lab
from tests.ssh.sshd import generated, own_configuration, running_agent, signed
from tests.ssh.test_booted import ABOVE, answers, unencrypted, workspace  # noqa: F401 - a fixture

PORT = 2222


@pytest.fixture(scope="module")
def machines(laboratory: Lab) -> list[Booted]:
    return laboratory.boot("bastion", "behind", "six")


@pytest.fixture
def addresses(machines: list[Booted], daemon: docker.DockerClient) -> Iterator[list[str]]:
    """What `behind` and `six` are called on a network of IPv6."""
    subnet = f"fd00:{secrets.token_hex(2)}:{secrets.token_hex(2)}::/64"
    v4 = f"10.{100 + secrets.randbelow(50)}.{secrets.randbelow(256)}.0/24"
    pools = [IPAMPool(subnet=v4), IPAMPool(subnet=subnet)]
    network = daemon.networks.create(
        f"tde-six-{secrets.token_hex(4)}", enable_ipv6=True, ipam=IPAMConfig(pool_configs=pools)
    )
    for machine in machines[1:]:
        network.connect(machine.container)
    network.reload()
    found = {name: one["IPv6Address"].partition("/")[0] for name, one in network.attrs["Containers"].items()}
    yield [found[str(machine.container.id)] for machine in machines[1:]]
    for machine in machines[1:]:
        network.disconnect(machine.container)
    network.remove()


@pytest.fixture
def authority(machines: list[Booted], tmp_path: Path) -> Path:
    """Who signs the keys that `bastion` and `behind` let in; the second only from the first, and on another port."""
    bastion, behind, six = machines
    key = generated(tmp_path / "authority")
    public = key.with_name("authority.pub").read_text()
    settings = "/etc/ssh/sshd_config.d/tests.conf"
    trust = f'echo "$1" >/etc/ssh/authority.pub; echo "TrustedUserCAKeys /etc/ssh/authority.pub" >{settings}; '
    restart = "systemctl restart ssh"
    bastion.root(f"{trust}rm /home/{USER}/.ssh/authorized_keys; {restart}", public)
    only = f'printf "Port {PORT}\\nAllowUsers {USER}@{bastion.address}\\n" >>{settings}; '
    behind.root(f"{trust}{only}rm /home/{USER}/.ssh/authorized_keys; {restart}", public)
    six.root(restart)  # it listens where there was no IPv6 when it was booted
    return key


def learn(home: Path, machine: Booted, name: str) -> None:
    """Put a machine's host keys into known_hosts under another name."""
    with (home / "known_hosts").open("a") as known:
        known.writelines(f"{name} {key}\n" for key in machine.root("cat /etc/ssh/ssh_host_*_key.pub").splitlines())


@pytest.mark.soak
def test_through_a_jump_host_by_certificate_on_another_port_and_by_ipv6(
    machines: list[Booted],
    addresses: list[str],
    authority: Path,
    workspace: Workspace,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bastion, behind, six = machines
    key = tmp_path / "id"
    certificate = signed(key, authority, USER)
    known = bastion.home / "known_hosts"
    learn(bastion.home, behind, f"[{behind.address}]:{PORT}")
    learn(bastion.home, six, addresses[1])
    files = {"key": str(key), "certificate": str(certificate), "knownHosts": str(known)}
    direct: dict[str, Any] = {"ssh": behind.address, "port": PORT, "user": USER, "packages": "none", **files}
    primary = {"address": f"{addresses[0]}/128", "host": direct | {"jump": f"{USER}@{bastion.address}"}}
    host = {
        "ssh": addresses[1],
        "user": USER,
        "packages": "none",
        "key": str(six.home / "id"),
        "knownHosts": str(known),
    }
    before = [machine.found() for machine in machines]
    with running_agent(tmp_path) as agent:
        monkeypatch.setenv("SSH_AUTH_SOCK", agent)
        workspace.environment["SSH_AUTH_SOCK"] = agent
        subprocess.run(["ssh-add", "-q", key], check=True)
        workspace.write(unencrypted(db1=primary, db2={"host": host}))
        workspace.up_well()
        workspace.unchanged()
        standby = SshHost(Login(addresses[1], user=USER, key=host["key"], known_hosts=str(known)).address(unit="none"))
        data = ABOVE / "tde-staging-db2/data"
        with standby.connect(data, "postgres") as connection:
            query = "SELECT status, sender_host FROM pg_stat_wal_receiver"
            assert connection.execute(query).fetchone() == ("streaming", addresses[0])
        assert "Accepted publickey" in behind.root("journalctl --no-pager -o cat -u ssh | grep CERT")
        assert "Accepted publickey" in bastion.root("journalctl --no-pager -o cat -u ssh | grep CERT")
        state = workspace.state()
        assert key.read_text().splitlines()[1] not in state
        # The same way, by the user's own ssh configuration.
        file = own_configuration(tmp_path, workspace.environment.__setitem__)
        file.write_text(
            f"Host {behind.address}\n ProxyJump {USER}@{bastion.address}\n"
            f"Host {bastion.address}\n UserKnownHostsFile {known}\n StrictHostKeyChecking yes\n CertificateFile {certificate}\n"
        )
        workspace.write(unencrypted(db1=primary | {"host": direct}, db2={"host": host}))
        preview = workspace.preview()
        assert preview.code == 0, preview.errors or preview.text
        assert set(preview.plan.values()) == {"update"}, preview.text
        workspace.up_well()
        workspace.unchanged()
        done = workspace.destroy()
        assert done.code == 0, done.errors or done.text
    assert [machine.found() for machine in machines] == before
