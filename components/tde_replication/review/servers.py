"""Which server of which cluster a resource, a cost or a fact of a preview is of."""

from collections.abc import Iterator
from dataclasses import replace

from tde_replication.records import Cost, Fact
from tde_replication.review.preview import Inputs, Preview, Step

CLUSTER = "cluster"
"""Stands for what is of no single server."""
OF_ONE = {"Server", "DataDirectory", "WalEncryption"}
"""What each server has for itself; all else is on the primary, whichever that is now, or of the whole cluster."""
_NAMED = {"Server", "DataDirectory"}

_Place = tuple[object, object]
"""Host and data directory, which no two servers share."""
_Named = tuple[str, str]
"""A cluster, and a server of it."""


class Servers:
    """A server is called by its name, and by its cluster's too where a stack has several clusters."""

    def __init__(self, preview: Preview) -> None:
        steps = [step for step in preview.steps.values() if step.type in _NAMED]
        self._all = dict.fromkeys(_named(step) for step in steps)
        self._several = len({cluster for cluster, _ in self._all}) > 1
        self._by_place: dict[_Place, _Named] = {}
        self.roles: dict[str, str] = {}
        self.primaries: set[str] = set()
        """Those that are there."""
        for step in steps:
            for inputs in (step.declared, step.found, step.recorded):
                if inputs:
                    self._by_place.setdefault(_place(inputs), _named(step))
            if step.type == "Server":
                now = step.found or step.recorded or step.inputs
                name = self.of(step)
                self.roles[name] = "primary" if now.get("recovery") == "none" else "standby"
                if step.recorded and self.roles[name] == "primary":
                    self.primaries.add(name)

    def of(self, step: Step) -> str:
        return self._called(self._at(step))

    def concerns(self, cost: Cost, step: Step) -> bool:
        """Whether it is a cost of that resource."""
        if cost.of in {"", step.type}:
            at = self._costs_at(cost)
            if cost.of in OF_ONE:
                return at == self._at(step) if at else not cost.server
            return at is None or at[0] == step.part_of
        return False

    def of_cost(self, cost: Cost) -> str:
        at = self._costs_at(cost)
        return self._called(at) if at else cost.server or CLUSTER

    def placed(self, fact: Fact) -> Fact:
        """As of a server, or a key, that is called as here."""
        at = self._by_place.get((fact.host, fact.data_directory))
        if at is None:
            return fact
        return replace(fact, of=self._called(at if fact.kind == "free" else (at[0], fact.of)))

    def key(self, step: Step) -> str:
        """The principal key of that resource."""
        at = self._at(step)
        name = str(step.inputs.get("key"))
        return self._called((at[0], name)) if at else name

    def described(self, name: str, more: str = "") -> str:
        """With what it is now, and with `more` of it."""
        told = ", ".join(filter(None, [self.roles.get(name), more]))
        return f"{name} ({told})" if told else name

    def cluster_of(self, name: str) -> str:
        """The cluster that a server is of; empty where there is only one."""
        return next((at[0] for at in self._all if self._called(at) == name), "") if self._several else ""

    def _called(self, at: _Named | None) -> str:
        if at is None:
            return CLUSTER
        return "/".join(at) if self._several else at[1]

    def _at(self, step: Step) -> _Named | None:
        if step.type in _NAMED:
            return _named(step)
        if step.type == "Container":
            host = f"docker://{step.inputs.get('name')}"
            return next((at for place, at in self._by_place.items() if place[0] == host), (step.part_of, step.name))
        inputs = (step.declared, step.found, step.recorded)
        return next((self._by_place[_place(one)] for one in inputs if one and _place(one) in self._by_place), None)

    def _costs_at(self, cost: Cost) -> _Named | None:
        if at := self._by_place.get((cost.host, cost.data_directory)):
            return at
        named = [at for at in self._all if at[1] == cost.server]
        return named[0] if len(named) == 1 else None


def _named(step: Step) -> _Named:
    return step.part_of, str(step.inputs.get("name", step.name))


def _place(inputs: Inputs) -> _Place:
    return inputs.get("host"), inputs.get("dataDirectory")


def costs_of(preview: Preview, planned: list[Step], servers: Servers) -> Iterator[Cost]:
    """The costs of what is planned, each with its server."""
    for cost in preview.costs:
        if any(servers.concerns(cost, step) for step in planned):
            yield replace(cost, server=servers.of_cost(cost))
