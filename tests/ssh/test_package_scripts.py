"""How Percona's repository is set up and its packages are installed: against fakes of the programs that do it, which write down
how they were called. No repository was reached: whether Percona's has these names, no test here can tell."""

from collections.abc import Callable, Iterator

import pytest

from components.hosts import ssh_scripts
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
release() {{ cp "$0" {PLACE}/bin/percona-release; }}
"""
FAKES = {
    "dpkg-query": """
for package; do case $package in percona-*) grep -qx "$package" "$installed" && printf 'installed ' ;; esac; done; true
""",
    "apt-get": """
case $line in
*.deb) [ -s "$(echo "$line" | sed 's/.* //')" ] && release ;;
*" install "*) for package; do case $package in percona-*) echo "$package" >>"$installed" ;; esac; done ;;
esac
""",
    "curl": """
while [ "$1" != -o ]; do shift; done; echo package >"$2"
""",
    "rpm": """
shift; for package; do grep -qx "$package" "$installed" || exit 1; done
""",
    "dnf": """
case $line in
*.rpm) release ;;
*" install "*) for package; do case $package in percona-*) echo "$package" >>"$installed" ;; esac; done ;;
esac
""",
}
APT = "apt-get -qq -o DPkg::Lock::Timeout=300 update"
INSTALL = "apt-get -qq -y -o DPkg::Lock::Timeout=300 install"
DEBIAN = [
    "dpkg-query -Wf ${db:Status-Status}  percona-pg-tde18 percona-postgresql-18",
    APT,
    f"{INSTALL} ca-certificates curl gnupg lsb-release",
    "curl -fsSL -o FILE.deb https://repo.percona.com/apt/percona-release_latest.generic_all.deb",
    f"{INSTALL} FILE.deb",
    "percona-release setup -y ppg-18",
    APT,
    f"{INSTALL} percona-postgresql-18 percona-pg-tde18",
]
REDHAT = [
    "rpm -q percona-postgresql17-server percona-pg_tde17",
    "dnf -y install https://repo.percona.com/yum/percona-release-latest.noarch.rpm",
    "dnf -qy module disable postgresql",
    "percona-release setup -y ppg-17",
    "dnf -y install percona-postgresql17-server percona-postgresql17-contrib percona-pg_tde17",
]
FAMILIES = [pytest.param("debian", "18", DEBIAN, id="debian"), pytest.param("redhat", "17", REDHAT, id="redhat")]


@pytest.fixture(scope="module")
def booted(laboratory: Lab) -> Booted:
    return laboratory.boot("scripts")[0]


@pytest.fixture
def machine(booted: Booted) -> Iterator[Booted]:
    """With the fakes before all other programs."""
    booted.root(f"mkdir -p {PLACE}/bin; touch {PLACE}/installed {CALLED}")
    for name, does in FAKES.items():
        booted.root(f'printf %s "$2" >"{PLACE}/bin/$1"; chmod 0755 "{PLACE}/bin/$1"', name, RECORD + does)
    yield booted
    booted.root(f"rm -rf {PLACE} /etc/postgresql-common/createcluster.d/tde-replication.conf")


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
    for failing in (calls[-3] if system == "debian" else calls[-2], calls[-1]):
        machine.root(f'echo "$1" >{PLACE}/broken', failing)
        status, called = run("make", system, version)
        assert (status != 0, called[-1]) == (True, failing)
    machine.root(f"rm {PLACE}/broken")
    # The repository's own package is there by now.
    rest = [call for call in calls if "FILE" not in call and ".rpm" not in call]
    assert run("make", system, version) == (0, rest)
    assert run("make", system, version) == (0, calls[:1])
