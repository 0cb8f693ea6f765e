"""What a preview planned, read from Pulumi's JSON: of each resource the inputs as recorded, as found, and as declared.

Pulumi has two forms of it. The stream (``--event-log``; ``preview --json`` with PULUMI_ENABLE_STREAMING_JSON_PREVIEW) holds an
event a line, also debug messages, and so the project's records. The digest (``preview --json`` alone) is one object without them.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tde_replication import records
from tde_replication.errors import UserError
from tde_replication.records import Cost, Fact, Unasked

Inputs = dict[str, Any]

UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
"""What Pulumi writes for a value that it does not know yet."""
SECRET = "[secret]"  # noqa: S105 - what Pulumi writes for one
_SIGNATURE = "4dabf18193072939515e22adb298388d"
"""The key that marks a secret, an asset or another special value."""
_PROBLEM = re.compile(r"^\S+ resource '[^']*' has a problem: ")
"""What Pulumi puts before the sentence of a failed check."""
_COLOR = re.compile(r"<\{%[a-z ]*%\}>")
"""What Pulumi writes for a colour of its display."""
_BEGIN = re.compile(r"\S")
_OPERATIONS = {
    "create-replacement": "replace",
    "delete-replaced": "replace",
    "import-replacement": "replace",
    "read-replacement": "same",
    "discard-replaced": "same",
    "read": "same",
    "refresh": "same",
    "discard": "same",
}


@dataclass
class Step:
    """What happens to one resource."""

    urn: str
    operation: str = "same"
    """create, update, replace, delete, import or same."""
    recorded: Inputs | None = None
    """As the last `up` left them; None: it was in no state."""
    found: Inputs | None = None
    """As the refresh found them; None: it is gone, or was in no state."""
    declared: Inputs | None = None
    """None: it is not declared."""
    parent: str = ""
    """The URN of the resource that it is a part of."""

    @property
    def type(self) -> str:
        """Without its package and module."""
        return self.token.rpartition(":")[2]

    @property
    def token(self) -> str:
        return self.urn.split("::")[2].rpartition("$")[2]

    @property
    def name(self) -> str:
        return _name(self.urn)

    @property
    def part_of(self) -> str:
        """The name of its parent: of a server, its cluster's."""
        return _name(self.parent) if self.parent else ""

    @property
    def inputs(self) -> Inputs:
        """Those that say best what it is."""
        return self.declared or self.found or self.recorded or {}


@dataclass(frozen=True)
class Message:
    severity: str
    text: str
    urn: str = ""


@dataclass(frozen=True)
class Violation:
    """What a policy pack says of one resource, or of the stack."""

    policy: str
    level: str
    """advisory or mandatory."""
    text: str
    """The policy's description, and in a line below it what is wrong."""

    @property
    def sentence(self) -> str:
        """What is wrong alone."""
        return self.text.partition("\n")[2] or self.text


@dataclass
class Preview:
    """Of one stack."""

    stack: str = ""
    steps: dict[str, Step] = field(default_factory=dict)
    """By URN, in the order in which Pulumi told of them."""
    costs: list[Cost] = field(default_factory=list)
    unasked: list[Unasked] = field(default_factory=list)
    facts: list[Fact] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    violations: list[Violation] = field(default_factory=list)
    policies: set[str] = field(default_factory=set)
    """The names of those that a policy pack has tried."""
    streamed: bool = False
    """Whether it was read from the stream, which holds costs."""
    complete: bool = False
    """Whether the preview came to its end."""

    def step(self, urn: str) -> Step:
        if not self.stack:
            self.stack = urn.split("::", maxsplit=1)[0].rpartition(":")[2]
        return self.steps.setdefault(urn, Step(urn))


def read(text: str, source: str = "the preview") -> Preview:
    """Raises `UserError` for what is not the JSON of a preview; `source` is what it calls the text."""
    try:
        documents = list(_documents(text))
        if len(documents) == 1 and "steps" in documents[0]:
            made = _digest(documents[0])
        else:
            stream = _Stream()
            for document in documents:
                stream.read(document)
            made = stream.end()
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise UserError(f"{source} is not the JSON of a Pulumi preview ({type(error).__name__}: {error})") from None
    if not made.steps and not made.messages:
        raise UserError(f"{source} holds no event of a Pulumi preview: did `pulumi preview --json` write it?")
    return made


def _documents(text: str) -> Iterator[dict[str, Any]]:
    decoder, position = json.JSONDecoder(), 0
    while begin := _BEGIN.search(text, position):
        document, position = decoder.raw_decode(text, begin.start())
        yield document


def _digest(digest: Mapping[str, Any]) -> Preview:
    made = Preview()
    for event in digest["steps"]:
        step = made.step(event["urn"])
        step.parent = _parent(event.get("newState")) or _parent(event.get("oldState")) or step.parent
        old, new = _inputs(event.get("oldState")), _inputs(event.get("newState"))
        if event["op"] == "refresh":
            step.recorded, step.found = old, new
        else:
            _plan(step, event["op"], old, new)
    created = [step for step in made.steps.values() if step.operation == "create"]
    for step in created:
        step.found = None  # the digest's refresh shows what is gone as it was
    for event in digest.get("diagnostics") or []:
        _message(made, event)
    made.complete = bool(digest.get("changeSummary")) and not any(one.severity == "error" for one in made.messages)
    return made


class _Stream:
    """Reads events one by one."""

    def __init__(self) -> None:
        self.made = Preview(streamed=True)
        self._refreshing: set[str] = set()
        self._planning = False
        self._early: list[Cost] = []
        """What the repair of drift would cost, as the refresh says. What the plan says of the same server replaces it."""

    def read(self, event: Mapping[str, Any]) -> None:
        if started := event.get("resourcePreEvent"):
            self._started(started["metadata"])
        elif ended := event.get("resOutputsEvent"):
            of = ended["metadata"]
            if of["urn"] in self._refreshing:
                self.made.step(of["urn"]).found = _inputs(of.get("new"))
        elif message := event.get("diagnosticEvent"):
            self._said(message)
        elif violation := event.get("policyEvent"):
            name, level = str(violation["policyName"]), str(violation.get("enforcementLevel"))
            self.made.policies.add(name)
            self.made.violations.append(Violation(name, level, _COLOR.sub("", str(violation["message"])).strip()))
        elif tried := event.get("policyAnalyzeSummaryEvent") or event.get("policyAnalyzeStackSummaryEvent"):
            self.made.policies.update([*(tried.get("passed") or []), *(tried.get("failed") or [])])
        elif summary := event.get("summaryEvent"):
            self.made.complete = summary.get("result", "succeeded") == "succeeded"

    def end(self) -> Preview:
        self.made.costs = list(dict.fromkeys([*self._early, *self.made.costs]))
        self.made.unasked = list(dict.fromkeys(self.made.unasked))
        self.made.violations = list(dict.fromkeys(self.made.violations))
        return self.made

    def _started(self, of: Mapping[str, Any]) -> None:
        step, old, new = self.made.step(of["urn"]), _inputs(of.get("old")), _inputs(of.get("new"))
        step.parent = _parent(of.get("new")) or _parent(of.get("old")) or step.parent
        if of["op"] == "refresh":
            self._refreshing.add(of["urn"])
            step.recorded = step.found = old
        else:
            self._planning = True
            self._refreshing.discard(of["urn"])
            _plan(step, of["op"], old, new)

    def _said(self, message: Mapping[str, Any]) -> None:
        match records.read(message["message"]):
            case Cost() as cost if self._planning:
                self._early = [one for one in self._early if _whose(one) != _whose(cost)]
                self.made.costs.append(cost)
            case Cost() as cost:
                self._early.append(cost)
            case Unasked() as unasked:
                self.made.unasked.append(unasked)
            case Fact() as fact:
                self.made.facts.append(fact)
            case _ if message.get("severity") != "debug" and not message.get("ephemeral"):
                _message(self.made, message)


def _whose(cost: Cost) -> tuple[str, ...]:
    return cost.of, cost.server, cost.host, cost.data_directory


def _plan(step: Step, operation: str, old: Inputs | None, new: Inputs | None) -> None:
    operation = _OPERATIONS.get(operation, operation)
    if operation == "replace" or step.operation != "replace":
        step.operation = operation
    if operation == "same":
        return
    step.found = old or step.found if operation != "create" else None
    step.declared = new or step.declared if operation != "delete" else None


def _message(made: Preview, event: Mapping[str, Any]) -> None:
    text = str(event["message"]).strip()
    severity, urn = str(event.get("severity", "info")), str(event.get("urn", ""))
    if severity == "info#err":  # from the program's standard error, a line each, where Pulumi's host is a stand-in
        word, _, rest = text.partition(": ")
        last = made.messages[-1] if made.messages else None
        if word in {"warning", "error"}:
            severity, text = word, rest
        elif last and text and last.severity == "error":
            made.messages[-1] = Message("error", f"{last.text}\n{text}", last.urn)
            return
    if text:
        made.messages.append(Message(severity, _PROBLEM.sub("", text.removeprefix(f"{severity}: ")), urn))


def _name(urn: str) -> str:
    return urn.split("::", 3)[3]


def _parent(state: Mapping[str, Any] | None) -> str:
    return str((state or {}).get("parent") or "")


def _inputs(state: Mapping[str, Any] | None) -> Inputs | None:
    """Without Pulumi's own keys."""
    if not state:
        return None
    return {key: _value(value) for key, value in (state.get("inputs") or {}).items() if not key.startswith("__")}


def _value(value: Any) -> Any:
    match value:
        case dict() if _SIGNATURE in value:
            return SECRET
        case dict():
            return {key: _value(one) for key, one in value.items()}
        case list():
            return [_value(one) for one in value]
    return value
