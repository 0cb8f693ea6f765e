"""A cluster whose addresses are outputs: of what the same program makes, and in a first preview not known."""

import gc
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pulumi
import pytest
from pulumi.output import UNKNOWN, Unknown

from bootstrap.ports import free_ports
from tde_replication import Cluster, EncryptedReplication, Server, Ssh, UserError, Vault
from tde_replication.placeholders import DOMAIN
from tde_replication.vault.address import VaultAddress
from tests.graph.graph import OUTPUTS, TOKEN, VAULT, Graph, listen, run

pytestmark = pytest.mark.filterwarnings("ignore:This resource is deprecated:DeprecationWarning")
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJl3dIeudNqd0DPMRD6OIh65tjkxFNOtwGcWB2gCgPhk"
CLOSED = free_ports(1)[0]
"""Nobody listens there, and says so at once."""
MADE = {"Machine db1", "Machine db2", "CompleteCluster orders"}
"""What is there only where addresses are outputs."""
Of = Callable[[str], Any]
"""Makes of a plain value what a test declares in its place."""


@pytest.fixture(autouse=True)
def _no_word_of_futures_that_failed() -> Iterator[None]:
    """A program that ends leaves some; Pulumi's language hosts have asyncio say nothing of them, either."""
    logger = logging.getLogger("asyncio")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    gc.collect()
    logger.setLevel(level)


def plain(value: str) -> Any:
    return value


def known(value: str) -> Any:
    return pulumi.Output.from_input(value)


def unknown(_: str) -> Any:
    return pulumi.Output.from_input(UNKNOWN)


def cluster(of: Of) -> Cluster:
    """Two machines whose addresses `of` makes of plain ones."""
    servers = {
        name: Server(host=Ssh(ssh=of(address), port=CLOSED, host_keys=[KEY]))
        for name, address in (("db1", "127.0.0.1"), ("db2", "127.0.0.2"))
    }
    return Cluster(
        primary="db1", servers=servers, vault=Vault(address_from_servers="https://vault.example.net"), protect=True
    )


def built(
    declare: Callable[[], Cluster | Mapping[str, Any]], *, preview: bool = False, dependent: bool = False
) -> Graph:
    """All that a program registers for a cluster; `dependent`: and something that depends on the component."""
    graph = Graph()
    listen(graph, preview=preview)

    def program() -> pulumi.Output[Any]:
        vault = VaultAddress(VAULT, pulumi.Output.secret(TOKEN), None)
        made = EncryptedReplication("orders", declare(), vault_address=vault)
        if dependent:
            pulumi.CustomResource("shop:index:App", "app", opts=pulumi.ResourceOptions(depends_on=[made]))

        def keep(name: str) -> pulumi.Output[Any]:
            return pulumi.Output.from_input(getattr(made, name)).apply(
                lambda value: graph.outputs.update({name: value})
            )

        return pulumi.Output.all(*map(keep, OUTPUTS))

    run(program)
    return graph


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, one in value.items():
            yield from leaves(one, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for one in value:
            yield from leaves(one, path)
    else:
        yield path, value


def unknowns(graph: Graph) -> set[str]:
    return {f"{one}: {path}" for one in graph.resources for path, v in leaves(one.inputs) if isinstance(v, Unknown)}


def of_cluster(graph: Graph) -> dict[str, Any]:
    return {str(one): one.inputs for one in graph.resources if str(one) not in MADE}


def test_a_preview_shows_all_that_will_be_made(caplog: pytest.LogCaptureFixture) -> None:
    declared = built(lambda: cluster(plain), preview=True)
    caplog.clear()
    first = built(lambda: cluster(unknown), preview=True)
    assert set(first.labels) - set(declared.labels) == MADE | {
        f"HbaRule replicator from {name}.{DOMAIN}" for name in ("db1", "db2")
    }
    assert set(declared.labels) - set(first.labels) == {f"HbaRule replicator from 127.0.0.{n}/32" for n in (1, 2)}
    assert [path for one in first.resources for path, v in leaves(one.inputs) if DOMAIN in str(v)] == []
    assert unknowns(first) >= {
        "Machine db1: host",
        "Server db2: host",
        "Server db2: settings.primary_conninfo",
        "DataDirectory db2: upstream.host",
        f"HbaRule replicator from db2.{DOMAIN}: address",
        "ReplicationSlot tde_db2: standbyHost",
        "command:remote:Command db1-unit: connection.value",
    }
    assert set(first.outputs) == {"primary_dsn", "standby_dsns", "vault", "encryption", "expires"}
    [told] = [record.message for record in caplog.records if "not everything could be checked" in record.message]
    vault, machines = told.splitlines()[1:]
    why, _, what = machines.partition(". Not checked: ")
    assert why == (
        "  the address of a machine that this program makes is known once it is made: `up` then checks everything before it "
        "touches anything"
    )
    assert sorted(what.split(", ")) == ["all on db1", "all on db2"]
    assert VAULT in vault


def test_a_value_as_an_output_makes_what_the_value_makes() -> None:
    """So a program may have it either way, and its stack has nothing to do for that."""
    assert of_cluster(built(lambda: cluster(known))) == of_cluster(built(lambda: cluster(plain)))


@pytest.mark.parametrize("of", [known, unknown])
def test_machines_outlive_what_lies_on_them(of: Of) -> None:
    graph = built(lambda: cluster(of), preview=of is unknown)
    on_machines = [one for one in graph.resources if "host" in one.inputs or one.kind.startswith("command:")]
    assert len(on_machines) > 20
    machines = {str(one): one.urn for one in graph.of("Machine")}
    for one in on_machines:
        if str(one) not in machines:
            assert set(machines) <= graph.before(str(one)), one
            # What has an input from a machine goes with it, without a question, where the engine replaces that.
            assert not {urn for urns in one.because.values() for urn in urns} & set(machines.values()), one


def test_who_depends_on_the_component_waits_for_all_of_it() -> None:
    graph = built(lambda: cluster(known), dependent=True)
    before = graph.before("shop:index:App app")
    assert before >= {
        "CompleteCluster orders",
        "ReplicationCheck db2",
        "Server db1",
        "HbaRule replicator from 127.0.0.2/32",
    }


def server(**fields: Any) -> dict[str, Any]:
    return {"host": {"ssh": "127.0.0.1", "port": CLOSED, **fields.pop("host", {})}, **fields}


FIELDS: dict[str, tuple[Callable[[Any], Any], str, str]] = {
    "ssh": (lambda v: server(host={"ssh": v}), "127.0.0.1", "Server db1: host"),
    "jump": (lambda v: server(host={"jump": v}), "127.0.0.1", "Server db1: host"),
    "one of jump": (lambda v: server(host={"jump": [v]}), "127.0.0.1", "Server db1: host"),
    "hostKeys": (lambda v: server(host={"hostKeys": v}), KEY, "Server db1: host"),
    "one of hostKeys": (lambda v: server(host={"hostKeys": [KEY, v]}), KEY, "Server db1: host"),
    "listen": (lambda v: server(listen=["127.0.0.1", v]), "192.0.2.3", "Server db1: settings.listen_addresses"),
    "address": (lambda v: server(address=v), "127.0.0.4/32", "DataDirectory db2: upstream.host"),
}
"""By setting: a primary with a value, a good one, and an input that is made of it."""
WRONG = {
    "ssh": "a b",
    "jump": "a b",
    "one of jump": "a b",
    "hostKeys": "ssh-ed25519 AAAA",
    "one of hostKeys": "ssh-ed25519 AAAA",
    "listen": "a b",
    "address": "0.0.0.0/0",
}


def as_mapping(value: Any, setting: str) -> dict[str, Any]:
    standby = {"host": {"ssh": "127.0.0.2", "port": CLOSED}, "port": 5433}
    return {
        "primary": "db1",
        "servers": {"db1": FIELDS[setting][0](value), "db2": standby},
        "vault": {"addressFromServers": "https://vault.example.net"},
    }


@pytest.mark.parametrize("setting", FIELDS)
def test_each_setting_that_may_be_an_output(setting: str) -> None:
    _, good, reached = FIELDS[setting]
    first = built(lambda: as_mapping(unknown(good), setting), preview=True)
    assert reached in unknowns(first)
    assert [path for one in first.resources for path, v in leaves(one.inputs) if DOMAIN in str(v)] == []
    assert of_cluster(built(lambda: as_mapping(known(good), setting))) == of_cluster(
        built(lambda: as_mapping(good, setting))
    )


def refused(
    declare: Callable[[], Cluster | Mapping[str, Any]], error: type[Exception], *, preview: bool = False
) -> Any:
    """What ends a program, and what it had registered by then."""
    graph = Graph()
    listen(graph, preview=preview)
    vault = VaultAddress(VAULT, pulumi.Output.secret(TOKEN), None)
    with pytest.raises(error) as told:
        run(lambda: EncryptedReplication("orders", declare(), vault_address=vault).summary)
    return str(told.value), set(graph.labels)


@pytest.mark.parametrize("setting", FIELDS)
def test_what_is_wrong_in_an_output_ends_the_program_with_the_sentence_that_a_value_has(setting: str) -> None:
    plainly, _ = refused(lambda: as_mapping(WRONG[setting], setting), UserError)
    told, registered = refused(lambda: as_mapping(known(WRONG[setting]), setting), pulumi.RunError)
    assert told == plainly
    assert "has 1 mistake; nothing was touched:" in told
    assert registered <= {"tde:index:EncryptedReplication orders"}


def test_what_a_machine_has_against_it_ends_the_program_before_anything_is_registered() -> None:
    told, registered = refused(lambda: as_mapping(known("no-such.invalid"), "ssh"), pulumi.RunError)
    assert "cluster.servers.db1: db1: the name no-such.invalid is not known here" in told
    assert registered == {"Machine db1", "tde:index:EncryptedReplication orders"}


@pytest.mark.parametrize(
    ("output", "sentence"),
    [
        (lambda: pulumi.Output.from_input(None), "this output has no value"),
        (
            lambda: pulumi.Output.secret("127.0.0.1"),
            "this output is a secret, and plans and states show it: pass pulumi.Output.unsecret of it",
        ),
        (lambda: pulumi.Output.from_input(["127.0.0.1"]), "this must be a text"),
    ],
    ids=["none", "secret", "list"],
)
def test_an_output_that_is_no_address(output: Callable[[], Any], sentence: str) -> None:
    told, registered = refused(lambda: as_mapping(output(), "ssh"), pulumi.RunError)
    assert told.splitlines()[1:] == [f"  cluster.servers.db1.host.ssh: {sentence}"]
    assert registered <= {"tde:index:EncryptedReplication orders"}


@pytest.mark.parametrize(
    ("document", "place"),
    [
        (lambda out: {"primary": out}, "cluster.primary"),
        (lambda out: {"primary": "db1", "servers": {"db1": {"host": out}}}, "cluster.servers.db1.host"),
        (lambda out: {"servers": out}, "cluster.servers"),
        (lambda out: {"primary": "db1", "servers": {"db1": out}}, "cluster.servers.db1"),
        (lambda out: {"vault": {"mount": out}}, "cluster.vault.mount"),
        (lambda out: out, "cluster"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_nothing_else_may_be_one(document: Callable[[Any], Any], place: str) -> None:
    told, registered = refused(lambda: document(known("db1")), UserError)
    assert f"  {place}: only host.ssh, host.jump, host.hostKeys, listen and address may be outputs" in told.splitlines()
    assert registered == set()


def test_servers_with_one_output_are_on_one_machine() -> None:
    """Which is told before that is made."""

    def declare() -> Mapping[str, Any]:
        address = unknown("127.0.0.1")
        return {"primary": "db1", "servers": {name: {"host": {"ssh": address}} for name in ("db1", "db2")}}

    told, registered = refused(declare, UserError, preview=True)
    assert "cluster.servers.db2.port: missing; the default for its name is 5432, which another server has" in told
    assert registered == set()
