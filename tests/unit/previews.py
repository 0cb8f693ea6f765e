"""Previews as Pulumi writes them: the stream, an event a line, and the digest."""

import json
from dataclasses import dataclass, field
from typing import Any

from tde_replication.records import Record, written

Inputs = dict[str, Any]
DYNAMIC = "pulumi-python:dynamic/postgres:"
SECRET = {"4dabf18193072939515e22adb298388d": "1b47061264138c4ac30d75fd1eb44270", "ciphertext": "[secret]"}
UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"


@dataclass
class Stream:
    stack: str = "orders"
    refreshed: list[dict[str, Any]] = field(default_factory=list)
    planned: list[dict[str, Any]] = field(default_factory=list)
    result: str = "succeeded"
    cluster: str = ""
    """What is said from now on is of that component's resources; empty: of one without a name."""

    def urn(self, kind: str, name: str) -> str:
        token = kind if ":" in kind else DYNAMIC + kind
        return f"urn:pulumi:{self.stack}::tde-replication::tde:index:EncryptedReplication${token}::{name}"

    def refresh(self, kind: str, name: str, recorded: Inputs, found: Inputs | None) -> "Stream":
        urn = self.urn(kind, name)
        self.refreshed.append(self._event("resourcePreEvent", "refresh", urn, recorded, recorded))
        self.refreshed.append(self._event("resOutputsEvent", "refresh", urn, recorded, found))
        return self

    def plan(self, operation: str, kind: str, name: str, old: Inputs | None, new: Inputs | None) -> "Stream":
        self.planned.append(self._event("resourcePreEvent", operation, self.urn(kind, name), old, new))
        return self

    def change(
        self, kind: str, name: str, recorded: Inputs, found: Inputs | None, declared: Inputs, operation: str = "update"
    ) -> "Stream":
        """Refreshed, and planned."""
        self.refresh(kind, name, recorded, found)
        return self.plan(operation if found else "create", kind, name, found, declared)

    def record(self, record: Record, *, early: bool = False) -> "Stream":
        """`early`: while it refreshes."""
        event = {"diagnosticEvent": {"prefix": "debug: ", "message": f"{written(record)}\n", "severity": "debug"}}
        (self.refreshed if early else self.planned).append(event)
        return self

    def say(self, text: str, severity: str = "info", urn: str = "") -> "Stream":
        self.planned.append({"diagnosticEvent": {"message": f"{text}\n", "severity": severity, "urn": urn}})
        return self

    def _event(self, kind: str, operation: str, urn: str, old: Inputs | None, new: Inputs | None) -> dict[str, Any]:
        component = f"urn:pulumi:{self.stack}::tde-replication::tde:index:EncryptedReplication::{self.cluster}"
        parent = {"parent": component} if self.cluster else {}
        inputs = {name: one for name, one in (("old", old), ("new", new)) if one is not None}
        states = {name: {"urn": urn, **parent, "inputs": one} for name, one in inputs.items()}
        return {kind: {"metadata": {"op": operation, "urn": urn, **states}, "planning": True}}

    @property
    def text(self) -> str:
        stack = f"urn:pulumi:{self.stack}::tde-replication::pulumi:pulumi:Stack::tde-replication-{self.stack}"
        root = self._event("resourcePreEvent", "same", stack, {}, {})
        events = [*self.refreshed, root, *self.planned, {"summaryEvent": {"result": self.result}}, {"cancelEvent": {}}]
        return "\n".join(json.dumps({"sequence": number, **event}) for number, event in enumerate(events)) + "\n"

    @property
    def digest(self) -> str:
        """The same without what only the stream holds."""
        steps = [
            _step(one["resourcePreEvent"]) for one in [*self.refreshed, *self.planned] if "resourcePreEvent" in one
        ]
        said = [one["diagnosticEvent"] for one in self.planned if "diagnosticEvent" in one]
        shown = [one for one in said if one["severity"] != "debug"]
        summary = {"update": 1} if self.result == "succeeded" else {}
        return json.dumps({"config": {}, "steps": steps, "diagnostics": shown, "changeSummary": summary}, indent=4)


def _step(event: dict[str, Any]) -> dict[str, Any]:
    of = event["metadata"]
    return {"op": of["op"], "urn": of["urn"], "oldState": of.get("old"), "newState": of.get("new")}


def server(name: str, **more: Any) -> Inputs:
    """Inputs of a Server."""
    recovery = "none" if name == "db1" else "standby"
    return {
        "__provider": "x",
        "name": name,
        "host": f"ssh://{name}",
        "dataDirectory": "/pg",
        "recovery": recovery,
        **more,
    }


def changed(stream: Stream, **settings: str) -> Stream:
    """The stack file sets parameters of db1."""
    before = server("db1", settings={"port": "5432"})
    return stream.change("Server", "db1", before, before, {**before, "settings": {"port": "5432", **settings}})
