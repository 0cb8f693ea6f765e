"""Policies of what a plan costs: the engine shows a policy pack no cost, so these are judged here, from the preview's records.

An environment's file is the one that `pulumi preview --policy-pack-config` takes: Pulumi leaves out the rules that only this
module knows, and this module leaves out the others (docs/policies.md).
"""

import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

from tde_replication.errors import UserError
from tde_replication.records import Cost, Fact
from tde_replication.status.faults import known_faults
from tde_replication.status.words import size

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
UNITS = {"kB": 2**10, "MB": 2**20, "GB": 2**30, "TB": 2**40}
LEVELS = ("advisory", "mandatory", "disabled")
"""As Pulumi calls them: a warning, what stops an update, and neither."""
_WINDOW = re.compile(r"(?:([A-Z][a-z]{2}(?:,[A-Z][a-z]{2})*) )?([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")
_SIZE = re.compile(r"(\d+) ?(kB|MB|GB|TB)")


@dataclass(frozen=True)
class Finding:
    """One violation of one policy."""

    policy: str
    mandatory: bool
    text: str


class Impact(Protocol):
    """What one server goes through: `findings.Effect`."""

    @property
    def server(self) -> str: ...
    @property
    def kind(self) -> str: ...


@dataclass(frozen=True)
class Plan:
    """What the policies here are judged by."""

    primaries: Collection[str]
    """Those that are there now."""
    effects: Collection[Impact]
    costs: Collection[Cost]
    """Of what is planned."""
    now: datetime
    labels: Collection[str]
    """Of the pull request, or as a person gives them for one run."""
    facts: Collection[Fact]
    keys: Collection[str]
    """Principal keys that are there now."""
    replaced_keys: Collection[str]
    """Those of them that are not used any more once this is done."""
    caps: Mapping[str, str]
    """By server that is a primary: the declared max_slot_wal_keep_size."""

    def fact(self, kind: str, of: str) -> Fact | None:
        return next((one for one in self.facts if one.kind == kind and one.of == of), None)


@dataclass(frozen=True)
class Environment:
    """An environment's levels and values, by the name of the rule."""

    rules: Mapping[str, Mapping[str, Any]]

    def level(self, name: str) -> str:
        own = self.rules.get(name, {}).get("enforcementLevel") or self.rules.get("all", {}).get("enforcementLevel")
        return str(own or "mandatory")

    def values(self, name: str) -> Mapping[str, Any]:
        return self.rules.get(name, {})


Values = Mapping[str, Any]


@dataclass(frozen=True)
class Rule:
    why: str
    check: Callable[[Plan, Values], Iterator[str]]
    values: Mapping[str, Callable[[Any], object]]
    """What an environment may set, each with what reads it or raises ValueError. The rule holds where the first one is set."""

    @property
    def needs(self) -> str:
        return next(iter(self.values))


def _in_window(plan: Plan, values: Values) -> Iterator[str]:
    windows = _windows(values["windows"])
    if any(window.holds(plan.now) for window in windows):
        return
    when = f"only within {', '.join(values['windows'])} (UTC), and it is {plan.now:%a %H:%M}"
    kinds = {"restart": "is restarted", "stop": "is stopped", "switchover": "hands over", "rewrite": "rewrites tables"}
    for server, kind in dict.fromkeys((one.server, one.kind) for one in plan.effects):
        if server in plan.primaries and kind in kinds:
            yield f"primary {server} {kinds[kind]}: {when}"
    for cost in plan.costs if plan.primaries else ():
        if cost.kind == "clone":
            yield f"{cost.server or 'a standby'} is cloned: {when}"


def _clone_size(plan: Plan, values: Values) -> Iterator[str]:
    most, label = _size(values["most"]), str(values.get("label", "large-clone"))
    if label in plan.labels:
        return
    for cost in plan.costs:
        if cost.kind == "clone" and cost.size is not None and cost.size > most:
            yield (
                f"{cost.server or 'a standby'} is cloned, {size(cost.size)}: more than {values['most']} needs the label {label}"
            )


def _key_age(plan: Plan, values: Values) -> Iterator[str]:
    most = int(values["days"])
    for key in plan.keys:
        if key in plan.replaced_keys:
            continue
        since = plan.fact("key since", key)
        if since is None:
            yield f"it is not known how old key {key} is"
            continue
        age = plan.now - datetime.fromisoformat(since.text)
        if since.number and age >= timedelta(seconds=since.number):
            yield f"key {key} is {age.days} days old and past its key.rotateAfter, and this plan does not rotate it"
        elif age.days > most:
            yield f"key {key} is {age.days} days old, of {most}: set key.rotateAfter, or give key.name another value"


def _pg_tde_faults(plan: Plan, values: Values) -> Iterator[str]:
    accepted = values["accepted"]
    for key in plan.keys:
        found = plan.fact("pg_tde", key)
        if found is None:
            yield "it is not known which pg_tde the primary has"
            continue
        for fault in known_faults(found.text, found.number or 0):
            if not any(word in fault for word in accepted):
                yield f"{found.text}: {fault}"


def _slot_room(plan: Plan, values: Values) -> Iterator[str]:
    for server, cap in plan.caps.items():
        free = plan.fact("free", server)
        if free is None or free.number is None:
            yield f"it is not known how much is free on the disk of {server}"
        elif not cap.startswith("-") and _postgres_size(cap) * 100 > free.number * values["percent"]:
            yield f"slots on {server} may hold back {cap} of WAL, and its disk has {size(free.number)} free"


def _postgres_size(cap: str) -> int:
    number, unit = cap.rstrip("kMGTB "), cap.lstrip("0123456789 ")
    return int(number) * UNITS.get(unit or "MB", 1)


def _whole(value: Any) -> object:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{value!r} is not a whole number")
    return value


def _list(value: Any) -> object:
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise ValueError('write a list of texts, such as ["PG-2608"]')
    return value


def _size(value: Any) -> int:
    found = _SIZE.fullmatch(str(value))
    if not found:
        raise ValueError(f"{value!r} is not a size (write 100GB)")
    return int(found[1]) * UNITS[found[2]]


@dataclass(frozen=True)
class _Window:
    days: frozenset[int]
    begin: timedelta
    end: timedelta
    """Since midnight; one that ends the next day ends after 24 h."""

    def holds(self, now: datetime) -> bool:
        since = now - now.replace(hour=0, minute=0, second=0, microsecond=0)
        today = now.weekday() in self.days and self.begin <= since < self.end
        before = (now.weekday() - 1) % 7 in self.days and self.begin <= since + timedelta(days=1) < self.end
        return today or before


def _windows(value: Any) -> list[_Window]:
    if not isinstance(value, list) or not value:
        raise ValueError('windows is a list such as ["Sun 02:00-04:00"]')
    return [_window(str(one)) for one in value]


def _window(text: str) -> _Window:
    found = _WINDOW.fullmatch(text)
    names = (found[1] or ",".join(DAYS)).split(",") if found else []
    if not found or not set(names) <= set(DAYS):
        raise ValueError(f'{text!r} is not a window (write "Sat,Sun 02:00-04:00", in UTC)')
    begin, end = (timedelta(hours=int(found[n]), minutes=int(found[n + 1])) for n in (2, 4))
    return _Window(frozenset(map(DAYS.index, names)), begin, end if end > begin else end + timedelta(days=1))


def _label(value: Any) -> object:
    if not isinstance(value, str) or not re.fullmatch(r"\S+", value):
        raise ValueError("label is a word")
    return value


RULES = {
    "primary-in-window": Rule(
        "Clients must know when the primary is interrupted, or gives a base backup.",
        _in_window,
        {"windows": _windows},
    ),
    "clone-size": Rule(
        "A large clone loads the network and the primary for hours: a person says that it may.",
        _clone_size,
        {"most": _size, "label": _label},
    ),
    "key-age": Rule("What one key has encrypted for years is lost with it at once.", _key_age, {"days": _whole}),
    "pg-tde-faults": Rule(
        "A pg_tde with a known fault can lose data.",
        _pg_tde_faults,
        {"accepted": _list},
    ),
    "slot-room": Rule(
        "A WAL limit larger than the disk protects nothing.",
        _slot_room,
        {"percent": _whole},
    ),
}


def judged(plan: Plan, environment: Environment) -> tuple[list[str], list[Finding]]:
    """The names of the rules that hold, and what violates the others."""
    passed, findings = [], []
    for name, rule in RULES.items():
        level, values = environment.level(name), environment.values(name)
        if level == "disabled" or rule.needs not in values:
            continue
        found = [Finding(name, level == "mandatory", text) for text in rule.check(plan, values)]
        findings += found
        passed += [] if found else [name]
    return passed, findings


def environment(file: Path) -> Environment:
    """Raises `UserError` for a file that is not one, with all its mistakes."""
    try:
        read = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"the policies in {file} cannot be read: {error}") from None
    if not isinstance(read, dict):
        raise UserError(f"{file} is not a mapping from the names of policies to their levels")
    rules, mistakes = {}, []
    for name, given in read.items():
        one = {"enforcementLevel": given} if isinstance(given, str) else given
        if not isinstance(one, dict) or one.get("enforcementLevel", LEVELS[0]) not in LEVELS:
            mistakes.append(f"{name}: write one of {', '.join(LEVELS)}, or a mapping with enforcementLevel")
            continue
        mistakes += [f"{name}.{mistake}" for mistake in _mistakes(name, one)]
        rules[name] = one
    if mistakes:
        raise UserError(f"{file} has mistakes:\n" + "\n".join(f"  {one}" for one in mistakes))
    return Environment(rules)


def _mistakes(name: str, given: Mapping[str, Any]) -> Iterator[str]:
    if name not in RULES:
        return  # one of the pack's
    for key, value in given.items():
        if key == "enforcementLevel":
            continue
        if (read := RULES[name].values.get(key)) is None:
            yield f"{key} is not a setting of it (it has {', '.join(RULES[name].values)})"
            continue
        try:
            read(value)
        except ValueError as error:
            yield f"{key}: {error}"
