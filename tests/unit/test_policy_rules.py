"""The rules of the policy pack, on the inputs of resources; their environments; and a rule of one's own, as the docs show it."""

import json
import re
import runpy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import tde_rules
from tde_replication.errors import UserError
from tde_replication.review import environment, policies
from tde_rules import RULES, STACK, Resource, Rule, size

ROOT = Path(__file__).resolve().parents[2]
BY_NAME = {rule.name: rule for rule in RULES}
ENVIRONMENTS = sorted((ROOT / "policies").glob("*.json"))
CONNINFO = "host=db1 user=replicator sslmode={} application_name=db2"
DSN = "host=/run/orders port=5432 user=postgres dbname=postgres requirepeer=postgres"


def server(recovery: str = "standby", **settings: str) -> Mapping[str, Any]:
    return {"name": "db2", "recovery": recovery, "settings": {"max_slot_wal_keep_size": "4GB", **settings}}


CASES: list[tuple[str, Mapping[str, Any], dict[str, Any], str]] = [
    ("encryption-in-force", {"encryption": True}, {}, ""),
    ("encryption-in-force", {"encryption": False}, {}, "pg_tde is not in force in cluster it"),
    ("tls-verify-full", server("none"), {}, ""),
    ("tls-verify-full", server(primary_conninfo=CONNINFO.format("verify-full")), {}, ""),
    (
        "tls-verify-full",
        server(primary_conninfo=CONNINFO.format("verify-ca")),
        {},
        "standby it connects with tls: verify-ca",
    ),
    ("tls-verify-full", server(primary_conninfo="host=db1"), {}, "standby it connects with tls: prefer"),
    ("slot-cap", server(), {}, ""),
    ("slot-cap", server(max_slot_wal_keep_size="-1"), {}, "may hold back any amount of WAL"),
    ("slot-cap", {"settings": {}}, {}, "may hold back any amount of WAL"),
    ("slot-cap", server(max_slot_wal_keep_size="65GB"), {}, "may hold back 65GB of WAL: at most 64GB is allowed"),
    ("slot-cap", server(max_slot_wal_keep_size="65GB"), {"most": "1TB"}, ""),
    ("slot-cap", server(max_slot_wal_keep_size="2048"), {"most": "1GB"}, "may hold back 2048 of WAL"),
    ("not-disposable", {"disposable": False}, {}, ""),
    ("not-disposable", {"disposable": True}, {}, "the data of it is disposable"),
    ("protected", server("standby"), {}, ""),
    ("protected", server("none"), {}, "it is not protected"),
    ("protected", {"path": "tde-orders"}, {}, "it is not protected"),
    ("standbys", {"servers": [{}, {}]}, {}, ""),
    ("standbys", {"servers": [{}]}, {}, "cluster it has 0 of at least 1 standbys"),
    ("standbys", {"servers": [{}, {}]}, {"least": 2.0}, "cluster it has 1 of at least 2 standbys"),
    ("synchronous", {"synchronous": {"number": 1.0}}, {}, ""),
    ("synchronous", {}, {}, "commits in cluster it wait for 0 of at least 1 standbys"),
    ("synchronous", {"synchronous": {"number": 1.0}}, {"least": 2.0}, "wait for 1 of at least 2 standbys"),
    ("no-superuser-output", {"readWriteDsn": "host=db1 dbname=postgres"}, {}, ""),
    ("no-superuser-output", {"primaryDsn": DSN}, {}, "output primaryDsn is a connection string of the superuser"),
    ("no-superuser-output", {"urls": ["postgresql://postgres@db1/"]}, {}, "output urls is a connection string"),
]


@pytest.mark.parametrize(("name", "inputs", "config", "says"), CASES)
def test_a_rule(name: str, inputs: Mapping[str, Any], config: dict[str, Any], says: str) -> None:
    found = list(BY_NAME[name].violations(Resource("it", inputs), config))
    assert [bool(says)] * len(found) == [True] * (1 if says else 0)
    assert all(says in one for one in found)


def test_what_pulumi_protects_is_protected() -> None:
    assert not list(BY_NAME["protected"].violations(Resource("it", server("none"), protected=True), {}))


def test_each_rule_has_a_case_of_each_outcome() -> None:
    for outcome in (True, False):
        assert {name for name, _, _, says in CASES if bool(says) == outcome} == set(BY_NAME)


@pytest.mark.parametrize("text", ["", "64 gigs", "-1", "1.5GB"])
def test_what_is_no_size_is_a_mistake(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        size(text)


@pytest.mark.parametrize("file", ENVIRONMENTS, ids=lambda file: file.stem)
def test_an_environment_names_rules_that_there_are_and_values_that_they_have(file: Path) -> None:
    read = environment(file)
    for name, given in read.rules.items():
        assert name in {*BY_NAME, *policies.RULES}, f"there is no rule {name}"
        if rule := BY_NAME.get(name):
            assert set(given) <= {"enforcementLevel", *rule.settings}


def test_production_says_of_each_rule_what_it_is() -> None:
    read = environment(ROOT / "policies" / "production.json")
    assert set(read.rules) == {*BY_NAME, *policies.RULES}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "cannot be read"),
        ("[]", "is not a mapping"),
        ('{"standbys": "fatal"}', "standbys: write one of advisory, mandatory, disabled"),
        ('{"clone-size": {"most": "100 gigs"}}', "clone-size.most: '100 gigs' is not a size"),
        ('{"clone-size": {"least": "1GB"}}', "clone-size.least is not a setting of it"),
        ('{"primary-in-window": {"windows": ["Sunday"]}}', "'Sunday' is not a window"),
        ('{"primary-in-window": {"windows": ["Son 02:00-03:00"]}}', "'Son 02:00-03:00' is not a window"),
        ('{"primary-in-window": {"windows": []}}', "windows is a list"),
    ],
)
def test_a_mistake_in_an_environment_is_a_sentence(tmp_path: Path, content: str, says: str) -> None:
    file = tmp_path / "own.json"
    file.write_text(content)
    with pytest.raises(UserError, match=re.escape(says)):
        environment(file)


def test_the_docs_say_of_each_rule_what_the_code_says() -> None:
    page = (ROOT / "docs" / "policies.md").read_text()
    table = dict(re.findall(r"^\| `([a-z-]+)` \| ([^|]+) \|", page, re.MULTILINE))
    whys = {rule.name: rule.why for rule in RULES} | {name: rule.why for name, rule in policies.RULES.items()}
    assert table == whys
    shown = re.search(r"```json\n(.*?)```", page, re.DOTALL)
    assert shown
    assert json.loads(shown[1]).keys() <= {*BY_NAME, *policies.RULES}


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rule:
    """The rule that docs/policies.md shows."""
    monkeypatch.setattr(tde_rules, "RULES", [])
    shown = re.search(r"```python\n(.*?)```", (ROOT / "docs" / "policies.md").read_text(), re.DOTALL)
    assert shown
    assert len(shown[1].splitlines()) <= 10
    file = tmp_path / "own.py"
    file.write_text(shown[1])
    runpy.run_path(str(file))
    [found] = tde_rules.RULES
    return found


def test_a_rule_of_ones_own_in_ten_lines(own: Rule) -> None:
    assert own.of != STACK
    assert list(own.violations(Resource("db2", server(work_mem="2GB")), {})) == [
        "db2 has work_mem 2GB: at most 256MB are allowed"
    ]
    assert not list(own.violations(Resource("db2", server(work_mem="2GB")), {"most": "4GB"}))
    assert not list(own.violations(Resource("db2", server()), {}))
