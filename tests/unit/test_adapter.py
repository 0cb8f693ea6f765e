"""The adapter between reconcilers and Pulumi, with a reconciler of a world that is a dictionary."""

import sys
import traceback
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, ClassVar, Self

import pytest
from pulumi.dynamic import Config, ConfigureRequest
from pulumi.output import Unknown
from pydantic import SecretStr

from tde_replication import adapter, console, unasked
from tde_replication.adapter import Provider, _showable
from tde_replication.errors import AccessDenied, AnotherCluster, Unavailable, UserError
from tde_replication.hosts import facts
from tde_replication.progress import progress
from tde_replication.reconciler import Resource, Secret
from tde_replication.records import FACTS, Cost, Fact, Record, Unasked
from tde_replication.unasked import could_not_ask

PASSWORD = "pass:word's"
UNKNOWN = Unknown()  # type: ignore[no-untyped-call]


class World:
    """What is there, what was done to it, and what was said of it."""

    def __init__(self) -> None:
        self.thing: dict[str, Any] | None = None
        self.done: list[str] = []
        self.shared: list[tuple[str, bool]] = []
        """The same, and whether answers were shared."""
        self.doubt = False
        self.said: list[tuple[str, bool]] = []
        self.recorded: list[Record] = []
        """For programs."""
        self.error: Exception | None = None

    def touch(self, what: str) -> None:
        if self.error:
            raise self.error
        self.done.append(what)
        self.shared.append((what, facts.current() is not None))
        if self.doubt:
            facts.doubt()


world = World()


class Thing(Resource):
    name: str
    size_limit: int = 1
    colour: str = "red"
    password: Secret | None = None
    made_at: str = ""
    binaries: str = "/bin"

    replaced_by: ClassVar[frozenset[str]] = frozenset({"name"})
    computed: ClassVar[frozenset[str]] = frozenset({"made_at"})
    not_compared: ClassVar[frozenset[str]] = frozenset({"binaries"})
    secrets: ClassVar[frozenset[str]] = frozenset({"password"})

    @property
    def identity(self) -> str:
        return f"thing {self.name}"

    def read(self) -> Self | None:
        world.touch("read")
        return None if world.thing is None else self.replace(**world.thing)

    def refusal(self, live: Self) -> str | None:
        return f"{self.name} is {live.colour} now: nothing is changed" if live.colour == "black" else None

    def refusal_while_unknown(self, live: Self, fields: Collection[str]) -> str | None:
        return f"{live.name} needs {', '.join(sorted(fields))}" if "size_limit" in fields else None

    @property
    def place(self) -> tuple[str, str]:
        return "local", "/data"

    def costs(self, live: Self | None) -> Iterator[Cost]:
        if live is None:
            yield Cost(kind="reload")
            return
        could_not_ask("how long it takes", Unavailable("no server runs"))
        yield Cost(kind="restart", server="t", text="t will be restarted")
        yield Cost(kind="reload", server="u", host="local", data_directory="/other")

    def facts(self) -> Iterator[Fact]:
        yield Fact(kind="free", of=self.name, number=7)

    def create(self) -> Self:
        world.touch("create")
        progress("half of it")
        world.thing = {"size_limit": self.size_limit, "colour": self.colour}
        return self.replace(made_at="noon")

    def update(self, live: Self) -> Self:
        world.touch(f"update {live.size_limit} to {self.size_limit}")
        return self

    def delete(self) -> None:
        world.touch("delete")
        world.thing = None


class ThingProvider(Provider):
    kind = Thing


DECLARED = {"name": "t", "sizeLimit": 2.0, "password": PASSWORD}
STATE = {"name": "t", "sizeLimit": 2.0, "colour": "red", "password": PASSWORD, "madeAt": "noon", "binaries": "/bin"}


@pytest.fixture(autouse=True)
def _new_world(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "world", World())

    def say(text: str, *, urn: str = "", ephemeral: bool = False) -> None:
        del urn
        world.said.append((text, ephemeral))

    monkeypatch.setattr(console, "say", say)
    monkeypatch.setattr(console, "record", world.recorded.append)
    console.tell_cost.cache_clear()


@pytest.fixture
def provider() -> ThingProvider:
    return ThingProvider()


def test_check_takes_what_is_right(provider: ThingProvider) -> None:
    result = provider.check({}, dict(DECLARED))
    assert {name: result.inputs[name] for name in DECLARED} == DECLARED
    assert result.failures == []
    assert world.done == []


def test_a_cost_is_told_to_people_and_recorded_for_programs_once(provider: ThingProvider) -> None:
    for _ in range(2):
        provider.check({}, dict(DECLARED))
        provider.diff("thing t", STATE, {**DECLARED, "sizeLimit": 3})
    assert world.said == [("t will be restarted", False)]
    here: dict[str, Any] = {"host": "local", "data_directory": "/data"}
    assert [record for record in world.recorded if isinstance(record, Cost)] == [
        Cost(kind="reload", of="Thing", **here),
        Cost(kind="restart", server="t", text="t will be restarted", of="Thing", **here),
        Cost(kind="reload", server="u", host="local", data_directory="/other", of="Thing"),
    ], "each says of which server it is"
    assert Unasked(what="how long it takes", why="no server runs") in world.recorded


def test_a_fact_says_of_which_server_it_is(provider: ThingProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FACTS, "true")
    world.thing = {}
    provider.read("thing t", STATE)
    assert world.recorded == [Fact(kind="free", of="t", number=7, host="local", data_directory="/data")]


def test_check_tells_each_mistake_at_its_property_and_holds_no_value(provider: ThingProvider) -> None:
    result = provider.check({}, {"sizeLimit": "lots-of-it", "password": 7})
    assert [failure.property for failure in result.failures] == ["name", "sizeLimit", "password"]
    assert "lots-of-it" not in " ".join(failure.reason for failure in result.failures)


@pytest.mark.parametrize(
    "unknown", [UNKNOWN, {"part": UNKNOWN}, ["part", UNKNOWN]], ids=["all", "of a mapping", "of a list"]
)
def test_what_is_not_known_yet_is_waited_for_and_counts_as_changed(provider: ThingProvider, unknown: Any) -> None:
    assert provider.check({}, {"name": unknown, "sizeLimit": "lots"}).failures == []
    assert provider.check(STATE, {**DECLARED, "name": unknown}).failures == []
    assert provider.diff("thing t", STATE, {**DECLARED, "sizeLimit": unknown}).changes is True
    assert provider.diff("thing t", STATE, {**DECLARED, "name": unknown}).replaces == ["name"]


def test_check_completes_the_inputs_so_that_a_diff_says_what_drift_goes_back_to(provider: ThingProvider) -> None:
    inputs = provider.check(STATE, dict(DECLARED)).inputs
    assert inputs == {**DECLARED, "colour": "red", "binaries": "/bin"}
    assert provider.check(STATE, {"name": "t", "colour": "blue"}).inputs["colour"] == "blue"


def test_an_objection_fails_the_check_and_leaves_refresh_and_destroy_alone(provider: ThingProvider) -> None:
    world.thing = {"colour": "black"}
    found = provider.read("thing t", STATE)
    failures = provider.check(found.inputs or {}, {**DECLARED, "binaries": UNKNOWN}).failures
    assert [(failure.property, failure.reason) for failure in failures] == [("", "t is black now: nothing is changed")]
    assert provider.check(STATE, dict(DECLARED)).failures == []
    assert provider.diff("thing t", found.outs or {}, dict(DECLARED)).changes is True
    provider.delete("thing t", found.outs or {})
    assert world.thing is None


def test_what_must_not_be_planned_without_a_value_fails_the_check_too(provider: ThingProvider) -> None:
    [failure] = provider.check(STATE, {**DECLARED, "sizeLimit": {"part": UNKNOWN}}).failures
    assert failure.reason == "t needs size_limit"
    assert provider.check(STATE, {**DECLARED, "colour": UNKNOWN}).failures == []
    assert provider.check({}, {**DECLARED, "sizeLimit": UNKNOWN}).failures == []


def test_what_an_objection_quotes_is_escaped(provider: ThingProvider) -> None:
    """A CI system would obey a line of it."""
    declared = {**DECLARED, "name": "t\n##vso[task.setvariable]"}
    [failure] = provider.check({**STATE, "colour": "black"}, declared).failures
    assert failure.reason == "t\n\\x23#vso[task.setvariable] is black now: nothing is changed"


def test_nothing_changed(provider: ThingProvider) -> None:
    result = provider.diff("thing t", STATE, dict(DECLARED))
    assert result.changes is False
    assert result.replaces == []


def test_pulumis_own_keys_and_absent_values_are_no_change(provider: ThingProvider) -> None:
    assert provider.diff("thing t", {**STATE, "__provider": "x"}, {**DECLARED, "colour": None}).changes is False


def test_a_changed_field(provider: ThingProvider) -> None:
    result = provider.diff("thing t", STATE, {**DECLARED, "sizeLimit": 3.0})
    assert result.changes is True
    assert result.replaces == []


def test_drift_of_a_field_that_is_not_declared_is_compared_with_its_default(provider: ThingProvider) -> None:
    assert provider.diff("thing t", {**STATE, "colour": "blue"}, dict(DECLARED)).changes is True


def test_a_field_that_replaces(provider: ThingProvider) -> None:
    result = provider.diff("thing t", STATE, {**DECLARED, "name": "other"})
    assert result.replaces == ["name"]
    assert result.delete_before_replace is True


def test_a_computed_or_unmanaged_value_not_known_yet_does_not(provider: ThingProvider) -> None:
    unknown = {"madeAt": UNKNOWN, "binaries": UNKNOWN}
    assert provider.diff("thing t", STATE, {**DECLARED, **unknown}).changes is False


def test_computed_fields_are_not_compared(provider: ThingProvider) -> None:
    assert provider.diff("thing t", STATE, {**DECLARED, "madeAt": "midnight"}).changes is False


def test_a_changed_password_is_a_change(provider: ThingProvider) -> None:
    assert provider.diff("thing t", STATE, {**DECLARED, "password": "another"}).changes is True


def test_an_unmanaged_field_is_stored_without_work(provider: ThingProvider) -> None:
    news = {**DECLARED, "binaries": "/other"}
    assert provider.diff("thing t", STATE, dict(news)).changes is True
    assert provider.update("thing t", STATE, news).outs == {**STATE, "binaries": "/other", "sizeLimit": 2}
    assert world.done == []


def test_create(provider: ThingProvider) -> None:
    result = provider.create(dict(DECLARED))
    assert result.id == "thing t"
    assert result.outs == {**STATE, "sizeLimit": 2}
    assert world.said == [("half of it", True)]


def test_update_does_the_work_and_keeps_what_create_found_out(provider: ThingProvider) -> None:
    result = provider.update("thing t", STATE, {**DECLARED, "sizeLimit": 3.0})
    assert world.done == ["update 2 to 3"]
    assert result.outs == {**STATE, "sizeLimit": 3}


def test_read_shows_the_live_world_as_inputs_too(provider: ThingProvider) -> None:
    world.thing = {"size_limit": 9}
    result = provider.read("thing t", STATE)
    assert result.id == "thing t"
    assert result.outs == {**STATE, "sizeLimit": 9}
    assert result.inputs == {name: value for name, value in (result.outs or {}).items() if name != "madeAt"}
    assert provider.diff("thing t", result.outs or {}, dict(DECLARED)).changes is True


def test_an_untouched_thing_reads_as_its_state(provider: ThingProvider) -> None:
    created = provider.create(dict(DECLARED)).outs or {}
    assert provider.read("thing t", created).outs == created
    assert provider.diff("thing t", created, dict(DECLARED)).changes is False


def test_a_vanished_thing_has_no_id(provider: ThingProvider) -> None:
    result = provider.read("thing t", STATE)
    assert (result.id, result.outs, result.inputs) == ("", {}, {})


def test_what_cannot_be_read_now_is_shown_as_last_known(provider: ThingProvider) -> None:
    world.error = Unavailable("no server runs on /d")
    result = provider.read("thing t", STATE)
    assert result.outs == {**STATE, "sizeLimit": 2}
    assert world.said == [("shown as last known: no server runs on /d", False)]


def test_what_cannot_be_read_now_is_noted_for_a_drift_check(
    provider: ThingProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(unasked.FILE, str(tmp_path / "unasked"))
    world.error = Unavailable("no server runs on /d")
    provider.read("thing t", STATE)
    assert unasked.read(tmp_path / "unasked") == [("Thing thing t", "no server runs on /d")]


def test_reads_share_what_they_ask_and_nothing_else_does(provider: ThingProvider) -> None:
    provider.create(dict(DECLARED))
    provider.read("thing t", STATE)
    provider.update("thing t", STATE, {**DECLARED, "sizeLimit": 3.0})
    provider.delete("thing t", STATE)
    assert world.shared == [("create", False), ("read", True), ("update 2 to 3", False), ("delete", False)]


@pytest.mark.parametrize("live", [None, {"colour": "blue"}], ids=["gone", "changed"])
def test_what_looks_changed_is_read_again_by_itself(provider: ThingProvider, live: dict[str, Any] | None) -> None:
    world.thing = live
    provider.read("thing t", STATE)
    assert world.shared == [("read", True), ("read", False)]


def test_what_shared_answers_do_not_do_for_is_read_by_itself(provider: ThingProvider) -> None:
    world.thing, world.doubt = {"size_limit": 2}, True
    assert provider.read("thing t", STATE).id == "thing t"
    assert world.shared == [("read", True), ("read", False)]


def test_a_change_drops_what_was_shared(provider: ThingProvider) -> None:
    with adapter.FACTS.read():
        assert adapter.FACTS.ask("key", lambda: "before") == "before"
        provider.update("thing t", STATE, {**DECLARED, "sizeLimit": 3.0})
        assert adapter.FACTS.ask("key", lambda: "after") == "after"


def test_what_cannot_be_changed_now_fails(provider: ThingProvider) -> None:
    world.error = Unavailable("no server runs on /d")
    with pytest.raises(Unavailable):
        provider.create(dict(DECLARED))
    with pytest.raises(Unavailable):
        provider.delete("thing t", STATE)


def test_delete(provider: ThingProvider) -> None:
    world.thing = {}
    provider.delete("thing t", STATE)
    assert world.thing is None


def configured(provider: ThingProvider, *config: tuple[str, str]) -> ThingProvider:
    found = {f"tde-replication:{key}": value for key, value in config}
    provider.configure(ConfigureRequest(Config(found, "tde-replication")))
    return provider


def test_what_does_not_answer_keeps_its_delete_from_ending(provider: ThingProvider) -> None:
    world.error = Unavailable("thing t: no server runs on /d.")
    shown = as_pulumi_shows_it(lambda: configured(provider).delete("thing t", STATE))
    assert shown == (
        "Unavailable: Thing thing t was not removed: thing t: no server runs on /d. Make it reachable and run this again; or "
        "leave behind what does not answer: `TDE_REPLICATION_LEAVE_UNREACHABLE=true pulumi destroy`\n"
    )


def test_what_does_not_answer_is_left_behind_where_the_stack_says_so(provider: ThingProvider) -> None:
    world.error = Unavailable("thing t: no server runs on /d.")
    configured(provider, ("leaveUnreachable", "true")).delete("thing t", STATE)
    assert world.said == [("left behind: Thing thing t (thing t: no server runs on /d)", False)]


def test_a_machine_that_lets_nobody_in_is_left_behind_where_the_stack_says_so(provider: ThingProvider) -> None:
    """Elsewhere it is a mistake to mend, also for a mere read."""
    world.error = AccessDenied("db3 shows another host key than the one known for it")
    with pytest.raises(AccessDenied):
        configured(provider).read("thing t", STATE)
    with pytest.raises(
        AccessDenied, match="or leave behind what does not answer: `TDE_REPLICATION_LEAVE_UNREACHABLE=true"
    ):
        provider.delete("thing t", STATE)
    leaving = configured(provider, ("leaveUnreachable", "true"))
    assert leaving.read("thing t", STATE).outs == {**STATE, "sizeLimit": 2}
    leaving.delete("thing t", STATE)
    assert "left behind: Thing thing t (db3 shows another host key than the one known for it)" in str(world.said)


def test_what_another_cluster_holds_is_left_to_it(provider: ThingProvider) -> None:
    world.error = AnotherCluster("thing t: the server on /d is another cluster.")
    configured(provider).delete("thing t", STATE)
    assert world.said == [("left behind: Thing thing t (thing t: the server on /d is another cluster)", False)]


def test_what_answers_and_refuses_is_not_left_behind(provider: ThingProvider) -> None:
    world.error = UserError("thing t: in use")
    with pytest.raises(UserError):
        configured(provider, ("leaveUnreachable", "true")).delete("thing t", STATE)


def as_pulumi_shows_it(call: Any) -> str:
    try:
        call()
    except Exception:  # noqa: BLE001 - as Pulumi's own server does
        return traceback.format_exc()
    raise AssertionError("it did not fail")


@pytest.mark.parametrize("kind", [UserError, Unavailable])
@pytest.mark.parametrize("call", ["create", "update", "delete", "read"])
def test_a_problem_is_one_clean_line(provider: ThingProvider, call: str, kind: type[UserError]) -> None:
    if call in {"read", "delete"} and kind is Unavailable:
        return
    world.error = kind("thing t: it is somebody else's. Move it away")
    calls = {
        "create": lambda: provider.create(dict(DECLARED)),
        "update": lambda: provider.update("thing t", STATE, {**DECLARED, "sizeLimit": 3.0}),
        "delete": lambda: provider.delete("thing t", STATE),
        "read": lambda: provider.read("thing t", STATE),
    }
    assert as_pulumi_shows_it(calls[call]) == f"{kind.__name__}: thing t: it is somebody else's. Move it away\n"


def test_any_other_error_shows_its_place_in_our_code_also_after_a_problem(provider: ThingProvider) -> None:
    world.error = UserError("a sentence")
    as_pulumi_shows_it(lambda: provider.create(dict(DECLARED)))
    world.error = KeyError("a defect")
    shown = as_pulumi_shows_it(lambda: provider.create(dict(DECLARED)))
    assert "in create" in shown
    assert "Traceback" in shown


HOSTILE = "black\x1b[2J\n::error::pwned\n##vso[task.setvariable]"


def test_a_live_value_is_escaped_for_a_diff_prints_it_as_it_is(provider: ThingProvider) -> None:
    world.thing = {"colour": HOSTILE}
    found = provider.read("thing t", STATE)
    outputs, inputs = found.outs or {}, found.inputs or {}
    for shown in (outputs["colour"], inputs["colour"]):
        assert "\x1b" not in shown
        assert "\n::" not in shown
        assert "##vso[" not in shown
    assert provider.diff("thing t", outputs, dict(DECLARED)).changes


def test_what_is_declared_so_stays_as_it_is(provider: ThingProvider) -> None:
    world.thing = {"colour": HOSTILE}
    declared = {**DECLARED, "colour": HOSTILE}
    found = provider.read("thing t", {**STATE, "colour": HOSTILE})
    outputs = found.outs or {}
    assert outputs["colour"] == HOSTILE
    assert not provider.diff("thing t", outputs, declared).changes


@pytest.mark.parametrize(
    ("live", "known", "shown"),
    [
        ({"a\x1b": "x\x1b"}, {}, {"a\\x1b": "x\\x1b"}),
        ({"a\x1b": "x\x1b"}, {"a\x1b": "x\x1b"}, {"a\x1b": "x\x1b"}),
        ({"a\x1b": "y\x1b"}, {"a\x1b": "x\x1b"}, {"a\x1b": "y\\x1b"}),
        ({"a": ["x\x1b", "y\x1b"]}, {"a": ["x\x1b"]}, {"a": ["x\x1b", "y\\x1b"]}),
        (["x\x1b"], None, ["x\\x1b"]),
        (7, "x", 7),
        (None, "x", None),
    ],
)
def test_nested_values_too(live: object, known: object, shown: object) -> None:
    assert _showable(live, known) == shown


def test_a_secret_is_shown_nowhere_but_in_what_goes_to_the_engine() -> None:
    thing = Thing.model_validate(DECLARED)
    assert isinstance(thing.password, SecretStr)
    assert PASSWORD not in f"{thing!r} {thing!s} {thing.password} {thing.replace(size_limit=3)!r}"
    assert thing.model_dump(by_alias=True)["password"] == PASSWORD


def test_a_secret_in_the_wrong_place_is_not_told(provider: ThingProvider) -> None:
    props = {"name": "t", "sizeLimit": PASSWORD, "password": [PASSWORD]}
    assert PASSWORD not in as_pulumi_shows_it(lambda: provider.create(props))
    assert PASSWORD not in str([failure.reason for failure in provider.check({}, props).failures])
