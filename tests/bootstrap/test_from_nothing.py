"""What a newcomer types, in a clone of their own: `make up`, `make drift`, `make destroy`, with the stack file as it comes."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from bootstrap.ports import free_ports
from bootstrap.project import HERE
from tde_replication.host_settings import SUPPORTED
from tde_replication.hosts.account import service_account
from tde_replication.hosts.installation import find_installation
from tests.bootstrap import clone as clones
from tests.bootstrap.clone import Clone


@pytest.fixture
def clone() -> Iterator[Clone]:
    with clones.clone() as made:
        yield made


def declare_ports(clone: Clone) -> list[int]:
    """Leave the stack file as it comes, but for its ports: those may be in use here."""
    file = clone.project.root / "stacks" / "Pulumi.local.yaml"
    text, shipped = file.read_text(), "servers: {db1: {}, db2: {}}"
    assert shipped in text
    one, other = free_ports(2)
    ports = f"servers: {{db1: {{port: {one}}}, db2: {{port: {other}}}}}"
    file.write_text(text.replace(shipped, ports))
    return [one, other]


def test_up_again_drift_and_destroy(clone: Clone) -> None:
    up_again_drift_and_destroy(clone)


@pytest.mark.soak
def test_the_same_by_an_ordinary_user() -> None:
    account = service_account()
    if not account.switches:
        pytest.skip("this is one already")
    with clones.clone(owner=account) as clone:
        if clone.run("python3", "-c", "import sys; sys.exit(sys.version_info < (3, 11))").returncode:
            pytest.skip("there is no Python 3.11 for others than root")
        assert "PostgreSQL does not run as root" not in up_again_drift_and_destroy(clone)


def public_sockets(ports: list[int]) -> list[Path]:
    """Also of other servers that had these ports and were killed."""
    return [path for port in ports for path in Path("/tmp").glob(f".s.PGSQL.{port}*")]


def up_again_drift_and_destroy(clone: Clone) -> str:
    """What the first `up` said."""
    ports = declare_ports(clone)
    before, sockets = clone.files(), public_sockets(ports)
    encrypted = find_installation(HERE.root, None, SUPPORTED).has_pg_tde
    state = "encrypted by pg_tde" if encrypted else "NOT ENCRYPTED: this PostgreSQL"

    first = clone.make("up")
    summary = first[first.index("local: 1 primary, 1 standby, streaming") :]
    assert state in summary.splitlines()[0]
    assert [int(port) for port in re.findall(r"127\.0\.0\.1:(\d+)", summary)] == ports
    assert [role for _, role in re.findall(r"^  (db\d) +(\w+) ", summary, re.MULTILINE)] == ["primary", "standby"]
    superuser, apps = (printed(summary, name) for name in ("try", "apps"))
    assert answer(clone, superuser, "SELECT pg_is_in_recovery(), current_user") == "f|postgres"
    answer(clone, superuser, "CREATE ROLE app LOGIN PASSWORD 'a b'")
    as_app = f'. ./env.sh; PGUSER=app PGPASSWORD="a b" psql "$({apps})"'
    assert answer(clone, as_app, "SELECT pg_is_in_recovery(), current_user") == "f|app"
    assert "make destroy" in summary

    assert state in clone.make("preview") or encrypted
    again = clone.make("up")
    assert re.search(r"Resources:\n\s+\d+ unchanged\n", again), again
    assert state in again
    assert "no drift: " in clone.make("drift")

    clone.make("destroy")
    clone.gone()
    assert public_sockets(ports) == sockets
    assert clone.files() == before
    return first


def printed(summary: str, name: str) -> str:
    """A command that `make up` prints, without the comment behind it."""
    found = re.search(rf"^{name}: +(.*?)(?:   #.*)?$", summary, re.MULTILINE)
    assert found, summary
    return found[1]


def answer(clone: Clone, psql: str, sql: str) -> str:
    done = clone.run("bash", "-c", f'{psql} -v ON_ERROR_STOP=1 -Atc "{sql}"')
    assert done.returncode == 0, done.stdout
    return done.stdout.splitlines()[-1]


def test_a_stack_of_ones_own_by_hand(clone: Clone) -> None:
    (clone.project.root / "stacks" / "Pulumi.orders.yaml").write_text("config: {}\n")
    clone.environ["STACK"] = "orders"
    done = clone.run("bash", "-c", ". ./env.sh && pulumi stack init orders && pulumi stack rm --yes --preserve-config")
    assert done.returncode == 0, done.stdout


def test_root_is_told_whose_the_servers_are_with_a_vault_of_its_own_too(clone: Clone) -> None:
    clone.environ |= {"VAULT_ADDR": "http://127.0.0.1:1", "VAULT_TOKEN": "a token"}
    done = clone.run("make", "up")
    assert done.returncode
    assert "nothing listens at http://127.0.0.1:1" in done.stdout
    account = service_account()
    told = f"servers: on this machine as {account.name}, because PostgreSQL does not run as root"
    assert (told in done.stdout) == account.switches
