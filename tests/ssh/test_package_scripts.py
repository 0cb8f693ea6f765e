"""How Percona's repository is set up and its packages are installed: against fakes of the programs that do it, which write down
how they were called. No repository was reached: whether Percona's has these names, no test here can tell."""

from collections.abc import Callable, Iterator

import pytest

from tde_replication.hosts.ssh import scripts as ssh_scripts
from tests.ssh.booted import Booted, Lab

PLACE = "/opt/fakes"
CALLED = f"{PLACE}/called"
# Writes its name and arguments down, one line a call, the release package's own place left out; fails where it is told to.
RECORD = f"""\
#!/bin/sh
name=${{0##*/}}
line="$name $*"
echo "$line" | sed 's,/tmp/tmp\\.[A-Za-z0-9]*,FILE,' >>{CALLED}
case $line in *"$(cat {PLACE}/broken 2>/dev/null || echo nothing-is)"*) echo "$name: it is broken" >&2; exit 9 ;; esac
installed={PLACE}/installed
"""
FINGERPRINT = "4D1BB29D63D98E422B2113B19334A25F8507EFA5"
"""Of the key that Percona signs its packages with, as its own images import it."""
FAKES = {
    "dpkg-query": """
for package; do case $package in percona-*) grep -qx "$package" "$installed" && printf 'installed ' ;; esac; done; true
""",
    "apt-get": """
case $line in
*" install "*) for package; do case $package in percona-*) echo "$package" >>"$installed" ;; esac; done ;;
esac
""",
    "curl": """
while [ "$1" != -o ]; do shift; done; echo key >"$2"
""",
    "gpg": f"""
for file; do :; done
[ "$(cat "$file")" = key ] || exit 2
printf 'pub:-:4096:1:9334A25F8507EFA5:::::::\\nfpr:::::::::%s:\\n' "$(cat {PLACE}/fingerprint)"
printf 'uid:-::::::::Percona:\\nsub:-:4096:1:1111111111111111:::::::\\nfpr:::::::::1111111111111111111111111111111111111111:\\n'
""",
    "rpm": """
shift; for package; do grep -qx "$package" "$installed" || exit 1; done
""",
    "dnf": """
case $line in
*" install "*) for package; do case $package in percona-*) echo "$package" >>"$installed" ;; esac; done ;;
esac
""",
}
APT = "apt-get -qq -o DPkg::Lock::Timeout=300 update"
INSTALL = "apt-get -qq -y -o DPkg::Lock::Timeout=300 install"
KEY = "https://repo.percona.com/yum/PERCONA-PACKAGING-KEY"


def trusted(file: str) -> list[str]:
    """How Percona's key comes to be in `file`."""
    return [
        f"curl -fsSL --proto =https --max-filesize 100000 -o {file}.new {KEY}",
        f"gpg --batch --no-options --with-colons --show-keys {file}.new",
    ]


DEBIAN_KEY, REDHAT_KEY = "/usr/share/keyrings/tde-replication-percona.asc", "/etc/pki/rpm-gpg/tde-replication-percona"
DEBIAN_SOURCE, REDHAT_SOURCE = (
    "/etc/apt/sources.list.d/tde-replication-ppg-18.list",
    "/etc/yum.repos.d/tde-replication-ppg-17.repo",
)
DEBIAN = [
    "dpkg-query -Wf ${db:Status-Status}  percona-pg-tde18 percona-postgresql-18",
    APT,
    f"{INSTALL} ca-certificates curl gnupg",
    *trusted(DEBIAN_KEY),
    APT,
    f"{INSTALL} percona-postgresql-18 percona-pg-tde18",
]
REDHAT = [
    "rpm -q percona-postgresql17-server percona-pg_tde17",
    "dnf -qy module disable postgresql",
    *trusted(REDHAT_KEY),
    "dnf -y install percona-postgresql17-server percona-postgresql17-contrib percona-pg_tde17",
]
FAMILIES = [pytest.param("debian", "18", DEBIAN, id="debian"), pytest.param("redhat", "17", REDHAT, id="redhat")]


@pytest.fixture(scope="module")
def booted(laboratory: Lab) -> Booted:
    return laboratory.boot("scripts")[0]


@pytest.fixture
def machine(booted: Booted) -> Iterator[Booted]:
    """With the fakes before all other programs."""
    booted.root(f"mkdir -p {PLACE}/bin /etc/pki/rpm-gpg /etc/yum.repos.d; touch {PLACE}/installed {CALLED}")
    booted.root(f'echo "$1" >{PLACE}/fingerprint', FINGERPRINT)
    for name, does in FAKES.items():
        booted.root(f'printf %s "$2" >"{PLACE}/bin/$1"; chmod 0755 "{PLACE}/bin/$1"', name, RECORD + does)
    yield booted
    booted.root(f"rm -rf {PLACE} /etc/postgresql-common/createcluster.d/tde-replication.conf /etc/pki /etc/yum.repos.d")
    booted.root(f"rm -f {DEBIAN_KEY}* {DEBIAN_SOURCE}")


@pytest.fixture
def run(machine: Booted) -> Callable[..., tuple[int, list[str]]]:
    """The script as a stack runs it, over standard input: its status, and the programs that it has called."""

    def call(*arguments: str) -> tuple[int, list[str]]:
        machine.root(f": >{CALLED}")
        script = f"export PATH={PLACE}/bin:$PATH\n{ssh_scripts.PACKAGES}"
        status, _ = machine.container.exec_run(["/bin/sh", "-c", script, "sh", *arguments])
        assert status is not None
        return status, machine.root(f"cat {CALLED}").splitlines()

    return call


@pytest.mark.parametrize(("system", "version", "calls"), FAMILIES)
def test_once_and_no_more(
    run: Callable[..., tuple[int, list[str]]], machine: Booted, system: str, version: str, calls: list[str]
) -> None:
    assert run("make", system, version) == (0, calls)
    assert run("make", system, version) == (0, calls[:1])
    assert run("remove", system, version) == (0, [])  # they stay: other servers may use them
    assert machine.root("ls /tmp") == ""
    if system == "debian":
        # Else Debian's package makes a cluster of its own, which takes the port.
        file = "/etc/postgresql-common/createcluster.d/tde-replication.conf"
        assert machine.root('cat "$1"', file) == "create_main_cluster = false\n"


@pytest.mark.parametrize(("system", "version", "calls"), FAMILIES)
def test_what_failed_is_tried_again_from_where_it_was(
    run: Callable[..., tuple[int, list[str]]], machine: Booted, system: str, version: str, calls: list[str]
) -> None:
    for failing in (calls[-3], calls[-1]):
        machine.root(f'echo "$1" >{PLACE}/broken', failing)
        status, called = run("make", system, version)
        assert (status != 0, called[-1]) == (True, failing)
    machine.root(f"rm {PLACE}/broken")
    assert run("make", system, version) == (0, calls)
    assert run("make", system, version) == (0, calls[:1])


@pytest.mark.parametrize(("system", "version", "calls"), FAMILIES)
def test_a_percona_release_that_is_there_is_used(
    run: Callable[..., tuple[int, list[str]]], machine: Booted, system: str, version: str, calls: list[str]
) -> None:
    """Two entries of one repository with two keys are an error to apt."""
    machine.root(f"cp {PLACE}/bin/curl {PLACE}/bin/percona-release")
    machine.root(f"sed -i '/^while/d' {PLACE}/bin/percona-release")
    status, called = run("make", system, version)
    assert (status, called[-1]) == (0, calls[-1])
    assert f"percona-release setup -y ppg-{version}" in called
    assert not any("PERCONA-PACKAGING-KEY" in call for call in called)
    assert machine.root(f"ls {DEBIAN_SOURCE} {REDHAT_SOURCE} 2>/dev/null || true") == ""


def test_what_is_installed_is_signed_by_perconas_key(
    run: Callable[..., tuple[int, list[str]]], machine: Booted
) -> None:
    assert run("make", "debian", "18")[0] == 0
    source = f"deb [signed-by={DEBIAN_KEY}] https://repo.percona.com/ppg-18/apt trixie main\n"
    assert machine.root('cat "$1"', DEBIAN_SOURCE) == source
    assert run("make", "redhat", "17")[0] == 0
    repository = machine.root('cat "$1"', REDHAT_SOURCE).splitlines()
    assert "gpgcheck=1" in repository
    assert f"gpgkey=file://{REDHAT_KEY}" in repository
    assert "baseurl=https://repo.percona.com/ppg-17/yum/release/$releasever/RPMS/$basearch" in repository


@pytest.mark.parametrize(("system", "version", "calls"), FAMILIES)
def test_another_key_installs_nothing(
    run: Callable[..., tuple[int, list[str]]], machine: Booted, system: str, version: str, calls: list[str]
) -> None:
    machine.root(f"echo 0000000000000000000000000000000000000000 >{PLACE}/fingerprint")
    status, called = run("make", system, version)
    assert (status != 0, called) == (
        True,
        calls[: calls.index(trusted(DEBIAN_KEY if system == "debian" else REDHAT_KEY)[1]) + 1],
    )
    files = f"{DEBIAN_KEY} {DEBIAN_KEY}.new {REDHAT_KEY} {REDHAT_KEY}.new {DEBIAN_SOURCE} {REDHAT_SOURCE}"
    assert machine.root(f"ls {files} 2>/dev/null || true") == ""
