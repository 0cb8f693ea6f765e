"""The rules of the policy pack, as functions of one resource's inputs. The standard library is enough for them.

Rules of what an update costs (a restart, a clone) are not here: the engine shows a policy no cost, and the review shows all of
them (docs/policies.md).
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

STACK = "pulumi:pulumi:Stack"
UNITS = {"": 2**20, "B": 1, "kB": 2**10, "MB": 2**20, "GB": 2**30, "TB": 2**40}
"""Bytes. PostgreSQL counts max_slot_wal_keep_size in MB where it has no unit."""


@dataclass(frozen=True)
class Resource:
    name: str
    inputs: Mapping[str, Any]
    """As `check` has completed them; of the stack itself: its outputs."""
    protected: bool = False


Config = Mapping[str, Any]
"""What a rule is configured with, defaults included."""
Check = Callable[[Resource, Config], Iterator[str]]


@dataclass(frozen=True)
class Rule:
    name: str
    why: str
    check: Check
    """One sentence for each violation."""
    of: str
    """The types of resources that it looks at, without their modules; or `STACK`."""
    level: str = "mandatory"
    """advisory, mandatory or disabled, where an environment does not say otherwise."""
    settings: Mapping[str, tuple[str, Any]] = field(default_factory=dict)
    """The JSON type and the default of each value that an environment may set."""

    def violations(self, resource: Resource, config: Config) -> Iterator[str]:
        return self.check(resource, {name: default for name, (_, default) in self.settings.items()} | dict(config))


RULES: list[Rule] = []


def rule(name: str, why: str, **more: Any) -> Callable[[Check], Check]:
    """Add the function below it to the pack."""

    def add(check: Check) -> Check:
        RULES.append(Rule(name, why, check, **more))
        return check

    return add


@rule("encryption-in-force", "Data at rest must be encrypted.", of="Topology")
def encryption_in_force(cluster: Resource, _: Config) -> Iterator[str]:
    if not cluster.inputs["encryption"]:
        yield f"pg_tde is not in force in cluster {cluster.name}: set encryption: required, and use a server that has it"


@rule(
    "tls-verify-full", "A standby must know that it streams from its primary, and nobody may read along.", of="Server"
)
def tls_verify_full(server: Resource, _: Config) -> Iterator[str]:
    if conninfo := server.inputs["settings"].get("primary_conninfo"):
        mode = re.search(r"\bsslmode='?([a-z-]+)", conninfo)
        if (found := mode[1] if mode else "prefer") != "verify-full":
            yield f"standby {server.name} connects with tls: {found}: set replication.tls: verify-full"


@rule(
    "slot-cap",
    "A standby that is gone must not fill its primary's disk.",
    of="Server",
    settings={"most": ("string", "64GB")},
)
def slot_cap(server: Resource, config: Config) -> Iterator[str]:
    cap, most = server.inputs["settings"].get("max_slot_wal_keep_size", "-1"), config["most"]
    if cap.startswith("-"):
        yield f"slots on {server.name} may hold back any amount of WAL: set replication.maxSlotWalKeepSize"
    elif size(cap) > size(most):
        yield f"slots on {server.name} may hold back {cap} of WAL: at most {most} is allowed"


@rule("not-disposable", "Data that is disposable is removed by a mistake in a stack file.", of="DataDirectory")
def not_disposable(directory: Resource, _: Config) -> Iterator[str]:
    if directory.inputs["disposable"]:
        yield f"the data of {directory.name} is disposable: remove disposable: true"


@rule("protected", "One wrong `destroy` must not take the primary or its keys.", of="Server Mount")
def protected(resource: Resource, _: Config) -> Iterator[str]:
    if not resource.protected and resource.inputs.get("recovery", "none") == "none":
        yield f"{resource.name} is not protected: set protect: true"


@rule(
    "standbys",
    "One server alone is an outage when it fails.",
    of="Topology",
    settings={"least": ("integer", 1)},
)
def standbys(cluster: Resource, config: Config) -> Iterator[str]:
    count = len(cluster.inputs["servers"]) - 1
    if count < config["least"]:
        yield f"cluster {cluster.name} has {count} of at least {config['least']:g} standbys"


@rule(
    "synchronous",
    "A committed row must outlive the primary's machine.",
    of="Topology",
    level="disabled",
    settings={"least": ("integer", 1)},
)
def synchronous(cluster: Resource, config: Config) -> Iterator[str]:
    count = (cluster.inputs.get("synchronous") or {}).get("number", 0)
    if count < config["least"]:
        yield (
            f"commits in cluster {cluster.name} wait for {count:g} of at least {config['least']:g} standbys: set "
            "synchronous.number"
        )


@rule("no-superuser-output", "Whoever may read a stack's outputs would have the superuser's way in.", of=STACK)
def no_superuser_output(stack: Resource, _: Config) -> Iterator[str]:
    for name, value in stack.inputs.items():
        if re.search(r"\buser=postgres\b|//postgres[:@]", str(value)):
            yield f"output {name} is a connection string of the superuser: remove its export from the program"


def size(text: str) -> int:
    """In bytes. Raises ValueError for what is no size of PostgreSQL's."""
    found = re.fullmatch(r"(\d+)\s*([kMGT]?B)?", text.strip())
    if not found:
        raise ValueError(f"{text!r} is not a size (write 64GB)")
    return int(found[1]) * UNITS[found[2] or ""]
