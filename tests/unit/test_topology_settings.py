"""Who streams from whom, and what commits wait for, as a stack file declares it."""

import json
from contextlib import nullcontext
from typing import Any
from unittest.mock import Mock

import pytest
import yaml

from tde_replication import stack_file
from tde_replication.postgres.switchover_checks import against_demotion
from tde_replication.postgres.synchronous import Synchronous, wanted
from tde_replication.postgres.topology_server import TopologyServer
from tde_replication.stack_file import StackFileError

FILE = "stacks/Pulumi.orders.yaml"
TLS = {"ssl": "on"}
REFUSED = {"restart": "refused"}
NOBODY = "a container gets another version by another image, and restart: refused forbids it"
ADOPTED = {"adopt": True, "port": 5432, "dataDirectory": "/srv/db1/data"}


def document(cluster: dict[str, Any] | None = None, **servers: dict[str, Any]) -> dict[str, Any]:
    """db1 is the primary; db2 and db3 are there too."""
    return {"primary": "db1", "servers": {"db1": {}, "db2": {}, "db3": {}} | servers} | (cluster or {})


def mistakes(declared: dict[str, Any]) -> list[str]:
    with pytest.raises(StackFileError) as told:
        stack_file.parse(FILE, json.dumps(declared))
    return told.value.mistakes


@pytest.mark.parametrize(
    ("declared", "sentence"),
    [
        (
            document(db3={"upstream": "db9"}),
            'cluster.servers.db3.upstream: there is no server "db9"; write one of: db1, db2, db3',
        ),
        (
            document(db2={"upstream": "db2"}),
            "cluster.servers.db2.upstream: db2 from db2: none of them would stream from the primary",
        ),
        (
            document(db1=ADOPTED, db3={**ADOPTED, "port": 5433, "dataDirectory": "/srv/db3/data"}),
            (
                "cluster.servers.db3.adopt: only one server is adopted, which was the primary before the stack, and db1 is: "
                "leave it out; a standby is always made by a base backup"
            ),
        ),
        (
            document({"primary": "db2"}, db1={"adopt": True, "port": 5432}),
            "cluster.servers.db1.dataDirectory: missing; it says which server is adopted",
        ),
        (
            document({"primary": "db2"}, db1={"adopt": True, "dataDirectory": "/srv/db1/data"}),
            "cluster.servers.db1.port: missing; the others must know where the adopted server listens",
        ),
        (
            document({"minorUpgrade": "standbys"}, db2=REFUSED, db3=REFUSED),
            f"cluster.minorUpgrade: none of the standbys would be restarted ({NOBODY}): remove it",
        ),
        (
            document({"minorUpgrade": "all"}, db1=REFUSED, db2=REFUSED, db3=REFUSED),
            f"cluster.minorUpgrade: none of the servers would be restarted ({NOBODY}): remove it",
        ),
        (document(db1={"applyDelay": "1h"}), "cluster.servers.db1.applyDelay: a primary replays nothing: leave it out"),
        (document(db3={"applyDelay": "1 hour"}), 'cluster.servers.db3.applyDelay: "1 hour" is not a time (write 1h)'),
        (document(db3={"applyDelay": "-1"}), 'cluster.servers.db3.applyDelay: "-1" is not a time (write 1h)'),
        (
            document(db3={"settings": {"recovery_min_apply_delay": "1h"}}),
            (
                "cluster.servers.db3.settings.recovery_min_apply_delay: the stack sets this parameter itself: write applyDelay "
                "of the server"
            ),
        ),
        (
            document(db1={"settings": {"synchronous_standby_names": "*"}}),
            (
                "cluster.servers.db1.settings.synchronous_standby_names: the stack sets this parameter itself: write synchronous "
                "of the cluster"
            ),
        ),
        (
            document({"synchronous": {"standbys": ["db2", "db9"]}}),
            'cluster.synchronous.standbys: there is no server "db9"; write some of: db1, db2, db3',
        ),
        (document({"synchronous": {"standbys": ["db2", "db2"]}}), 'cluster.synchronous.standbys: "db2" is used twice'),
        (
            document({"synchronous": {"standbys": ["db2", "db3"]}}, db3={"upstream": "db2"}),
            (
                "cluster.synchronous.standbys: db3 streams from db2, and commits wait only for what streams from the primary: "
                "leave it out"
            ),
        ),
        (
            document({"synchronous": {"standbys": ["db1", "db2"], "number": 2}}),
            (
                "cluster.synchronous.number: commits would wait for ever: 2 synchronous standbys are wanted, and beside the "
                "primary db1 there is 1 (db2)"
            ),
        ),
        (
            document({"synchronous": {"standbys": ["db1"]}}),
            (
                "cluster.synchronous.number: commits would wait for ever: 1 synchronous standbys are wanted, and beside the "
                "primary db1 there is none"
            ),
        ),
        (
            document(db3={"upstream": "db2", "settings": {"sync_replication_slots": "on"}}),
            (
                "cluster.servers.db3.settings.sync_replication_slots: PostgreSQL synchronizes slots from a primary alone, and "
                "db3 streams from db2: leave it out"
            ),
        ),
        (
            document(
                {"replication": {"tls": "require"}},
                db1={"settings": TLS},
                db3={"upstream": "db2"},
            ),
            (
                'cluster.replication.tls: "require" needs an upstream that speaks TLS: set ssl: on, ssl_cert_file and ssl_key_'
                "file in servers.db2.settings"
            ),
        ),
        (
            document(
                db1={"host": {"ssh": "db1.example.net"}},
                db2={"host": "local", "address": "192.0.2.7/32"},
                db3={"host": {"ssh": "db3.example.net"}, "upstream": "db2"},
            ),
            (
                "cluster.servers.db3.host: a local server is reached on this machine's loopback alone: put db2 on a machine that "
                "is reached by ssh, or both on one kind"
            ),
        ),
        (
            document(
                db1={"host": {"ssh": "db1.example.net"}},
                db2={"host": {"ssh": "db2.example.net"}, "listen": ["127.0.0.1"]},
                db3={"host": {"ssh": "db3.example.net"}, "upstream": "db2"},
            ),
            (
                "cluster.servers.db2.listen: 127.0.0.1 can be reached on its own machine alone, and db3 is on another machine: "
                "name an address of its network, or *"
            ),
        ),
        (
            document(db2={"settings": {"max_wal_senders": "1"}}, db3={"upstream": "db2"}, db4={"upstream": "db2"}),
            (
                "cluster.servers.db2.settings.max_wal_senders: 1 is too low for 2 standbys: set it to 2 or more (one for each)"
            ),
        ),
    ],
)
def test_each_mistake_is_one_sentence_at_its_key(declared: dict[str, Any], sentence: str) -> None:
    assert mistakes(declared) == [sentence]


def test_an_adopted_server_may_be_a_standby() -> None:
    """So that another primary is one line."""
    cluster = stack_file.parse(FILE, json.dumps(document({"primary": "db2"}, db1=ADOPTED)))
    assert [(one.name, one.adopt, one.restart) for one in cluster.standbys] == [
        ("db1", True, "refused"),
        ("db3", False, "allowed"),
    ]


def test_any_server_of_the_production_stack_may_be_the_primary(request: pytest.FixtureRequest) -> None:
    file = request.config.rootpath / "stacks" / "Pulumi.production.yaml"
    document = yaml.safe_load(file.read_text())["config"]["tde-replication:cluster"]
    for name in document["servers"]:
        assert stack_file.parse(file.name, json.dumps({**document, "primary": name})).primary_server.name == name


def test_a_circle_is_told_of_each_that_is_in_it() -> None:
    found = mistakes(document(db2={"upstream": "db3"}, db3={"upstream": "db2"}, db4={"upstream": "db2"}))
    assert found == [
        "cluster.servers.db2.upstream: db2 from db3 from db2: none of them would stream from the primary",
        "cluster.servers.db3.upstream: db3 from db2 from db3: none of them would stream from the primary",
    ]


def test_a_primary_streams_from_nobody_whatever_it_says_of_its_time_as_a_standby() -> None:
    """So that another primary is one line."""
    cluster = stack_file.parse(FILE, json.dumps(document(db1={"upstream": "db2"}, db2={"upstream": "db1"})))
    assert [cluster.upstream(standby).name for standby in cluster.standbys] == ["db1", "db1"]
    assert [source.name for source in cluster.sources] == ["db1"]


@pytest.mark.parametrize(
    ("declared", "names"),
    [
        ({}, ["db2", "db3"]),
        ({"standbys": ["db3", "db1", "db2"]}, ["db3", "db2"]),
    ],
)
def test_who_is_synchronous(declared: dict[str, Any], names: list[str]) -> None:
    more = {"db4": {"upstream": "db2"}, "db5": {"applyDelay": "1h"}}
    cluster = stack_file.parse(FILE, json.dumps(document({"synchronous": declared}, **more)))
    assert cluster.synchronous_standbys == names


def test_how_it_is_written_for_postgresql() -> None:
    declared = Synchronous(mode="quorum", number=2, standbys=["db-2", "db3", "db4"])
    assert declared.names() == 'ANY 2 ("db-2", "db3", "db4")'
    assert declared.model_copy(update={"mode": "priority"}).names() == 'FIRST 2 ("db-2", "db3", "db4")'
    assert declared.names(["db4", "db9"]) == 'ANY 1 ("db4")'
    assert declared.names([]) == ""


@pytest.mark.parametrize(
    ("names", "number"),
    [("", 0), (" ", 0), ("db2, db3", 1), ("2 (db2, db3)", 2), ("any 3(a,b,c)", 3), ("FIRST 1 (x)", 1)],
)
def test_how_many_standbys_a_commit_waits_for(names: str, number: int) -> None:
    assert wanted(names) == number


def server(name: str, upstream: str = "") -> TopologyServer:
    return TopologyServer(
        name=name, host="local", data_directory=f"/{name}/data", binaries="/bin", slot=f"tde_{name}", upstream=upstream
    )


def test_only_what_streams_from_the_primary_takes_its_place() -> None:
    [why] = against_demotion(server("db1"), server("db3", upstream="db2"))
    assert why == (
        "db3 streams from db2, and not from db1: take upstream out of its settings, and run `up` before this"
    )


def test_whose_slots_are_not_to_be_on_a_server() -> None:
    servers = [server("db1"), server("db2"), server("db3", "db2"), server("db4", "db1")]
    db1, db2, *_ = servers
    assert db2.strays(servers, "db1") == {"tde_db1", "tde_db2", "tde_db4"}
    assert db1.strays(servers, "db2") == {"tde_db1", "tde_db2", "tde_db3"}


@pytest.mark.parametrize(("files", "refused"), [(16, False), (17, True)])
def test_a_primary_that_has_much_to_archive_is_not_stopped(
    files: int, *, refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    primary = Mock(row=Mock(side_effect=[(1,), None]), rows=Mock(return_value=[]), value=Mock(return_value=files))
    monkeypatch.setattr(TopologyServer, "session", lambda _: nullcontext(primary))
    found = list(against_demotion(server("db1"), server("db2")))
    assert [one.partition(" WAL")[0] for one in found] == (["17"] if refused else [])
