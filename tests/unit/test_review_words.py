"""Drift as a DBA reads it: each field that can drift has words of its own, or says enough by itself."""

import pytest

from tde_replication.review import as_json, as_markdown, as_text, read, review
from tde_replication.review.changes import Change
from tde_replication.review.words import GONE, WORDS, in_words
from tde_replication.vault import resources as in_vault
from tests.engine.drift_page import WATCHED
from tests.unit.previews import Stream
from tests.unit.test_review import managed

SAYS_ENOUGH = {
    "CompleteCluster": {"servers"},
    "DatabaseEncryption": {"settings"},
    "Expiry": {"after"},
    "Extension": {"version"},
    "HbaRule": {"connectionType", "databases", "method"},
    "HostFile": {"mode", "owner"},
    "KeyBinding": {"provider"},
    "KeyProvider": {"caPath", "mountPath", "namespace", "tokenPath", "type", "url"},
    "PrincipalKey": {"provider"},
    "ReplicationRole": {"attributes"},
    "ReplicationSlot": {"slotType"},
    "Server": {"settings"},
    "SynchronousStandbys": {"names"},
    "Token": {"periodHours", "policies"},
}
"""A parameter, an address, a name: found → declared is what a DBA would write."""
DECLARED_ALONE = {
    "CleanupRecord": {"settings"},
    "DataDirectory": {"primaryIdentifier"},
    "HostFile": {"content", "path"},
    "KeyBinding": {"scope"},
    "KeyProvider": {"provider"},
    "Password": {"version"},
    "PrincipalKey": {"key"},
    "ReplicationCheck": {
        *("encryption", "key", "primaryDirectory", "primaryHost"),
        *("senderDirectory", "senderHost", "slot", "standby", "vault"),
    },
    "ReplicationRole": {"password", "role"},
    "ReplicationSlot": {"slot"},
    "SecretContent": {"mount", "namespace", "name", "password", "username"},
    "Server": {"container"},
    "Stanza": {"stanza"},
    "TableEncryption": {"patterns"},
    "Token": {"namespace", "server"},
    "HbaRule": {"role"},
    "Topology": {"synchronous"},
}
"""What no read finds another: only a stack file changes it."""
PLACES = {"address", "dataDirectory", "database", "host", "madeAt", "systemIdentifier"}
"""Which thing it is: another one is another resource."""


def test_every_field_that_can_drift_is_decided_upon() -> None:
    more = [(name, getattr(in_vault, name)) for name in ("Token", "SecretContent")]
    for name, one in [*managed(), *more]:
        kind = one.provider.kind
        passed = kind.computed | kind.not_compared | kind.create_only
        fields = {field.alias or key for key, field in kind.model_fields.items() if key not in passed} - PLACES
        words = {field for of, field in WORDS if of == name}
        assert fields == words | SAYS_ENOUGH.get(name, set()) | DECLARED_ALONE.get(name, set()), name
        assert not words & SAYS_ENOUGH.get(name, set()), name


def test_words_are_of_resources_that_are_watched() -> None:
    assert {kind for kind, _ in WORDS} | GONE.keys() <= WATCHED.keys()


@pytest.mark.parametrize(
    ("drift", "told"),
    [
        (
            Change("ReplicationRole replicator", "passwordMatches", "false", "true"),
            "its password was changed → it is set again; nobody is disconnected",
        ),
        (Change("HostFile db2-vault-token", "", "gone", "made again"), "it was removed → it is written again"),
        (Change("SecretV2 x", "", "gone", "made again"), "gone → it is made again"),
        (Change("HostFile db2-pgpass", "", "gone", "not planned yet"), "it was removed → not planned yet"),
        (
            Change("Server db1", "pendingReload", "[work_mem, jit]", "[]"),
            "changed in a file and not loaded: work_mem, jit → set as declared and loaded",
        ),
        (Change("Server db2", "recovery", "none", "standby"), "it is set up as a primary → as a standby"),
        (
            Change("HbaRule x", "upstreams", "[]", "[db2]"),
            "of db2, only these have its line: none → all have it; nobody is disconnected",
        ),
        (Change("Server db1", "settings.work_mem", "1MB", "4MB"), None),
        (Change("Extension pg_tde", "version", "2.1", "2.2"), None),
    ],
)
def test_words(drift: Change, told: str | None) -> None:
    found = in_words(drift)
    assert (f"{found.found} → {found.declared}" if told else None) == told
    assert told or found == drift


def test_a_value_is_not_taken_for_a_template() -> None:
    found = in_words(Change("Topology x", "primary", "{declared.__class__}", "db1"))
    assert found.found == "{declared.__class__} takes writes"


def test_drift_is_shown_in_words_to_people_and_as_it_is_to_programs() -> None:
    was = {"passwordMatches": True, "attributes": ["LOGIN"]}
    live = {"passwordMatches": False, "attributes": []}
    found = review(read(Stream().change("ReplicationRole", "replicator", was, live, was).text))
    assert "  ReplicationRole replicator: its password was changed → it is set again; nobody" in as_text([found])
    assert "  ReplicationRole replicator  attributes: [] → [LOGIN]" in as_text([found])
    markdown = as_markdown([found])
    assert "- ReplicationRole replicator: its password was changed → it is set again; nobody" in markdown
    assert '"passwordMatches"' in as_json([found])
