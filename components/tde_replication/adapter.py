"""Adapts a reconciler to a Pulumi dynamic provider. The only module that knows both.

A provider is pickled by reference to its class (module path and class name are kept for ever), so stacks never change with
code. See Pulumi's *Dynamic resource providers*.
"""

import os
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any, ClassVar

import pulumi
from pulumi import Alias, ResourceOptions
from pulumi.dynamic import (
    CheckFailure,
    CheckResult,
    ConfigureRequest,
    CreateResult,
    DiffResult,
    ReadResult,
    Resource as DynamicResource,
    ResourceProvider,
    UpdateResult,
)
from pulumi.output import contains_unknowns
from pydantic import ValidationError

from tde_replication import console, credentials, records
from tde_replication.errors import AccessDenied, AnotherCluster, Unavailable, UserError, escaped
from tde_replication.hosts.facts import Facts, InDoubt
from tde_replication.hosts.idle import IdleSessions
from tde_replication.progress import reported_to
from tde_replication.reconciler import Resource
from tde_replication.unasked import could_not_ask, passed_to
from tde_replication.unknown import as_input

LEAVE_UNREACHABLE = "TDE_REPLICATION_LEAVE_UNREACHABLE"

TYPE_PREFIX = "pulumi-python:dynamic/"
"""What Pulumi's SDK puts before the type of a dynamic resource."""

Properties = dict[str, Any]

FACTS = Facts()
"""What the reads of this process share."""
SESSIONS = IdleSessions()
"""What its changes use one after the other."""


class Provider(ResourceProvider):
    """Create, read, update, delete and diff of one kind of reconciler."""

    serialize_as_secret_always = False
    kind: ClassVar[type[Resource]]
    leave_unreachable = False
    """Whether a delete leaves behind what does not answer."""

    @staticmethod
    def take_away(last: Resource) -> None:
        """Delete it; a provider may first bring back what that needs."""
        last.delete()

    def configure(self, req: ConfigureRequest) -> None:
        """Called once in the provider's process, before anything else."""
        console.end_with_engine()
        # From the environment, for `destroy` is given the stack file's settings as they were at the last `up`.
        wanted = os.environ.get(LEAVE_UNREACHABLE) or req.config.get("leaveUnreachable")
        self.leave_unreachable = str(wanted).lower() == "true"
        credentials.configure(req.config.get)

    def check(self, olds: Properties, news: Properties) -> CheckResult:
        """Validate, and complete the inputs with defaults, so that a diff says what a drifted value goes back to."""
        for name, field in self.kind.model_fields.items():
            if name not in self.kind.computed and not field.is_required() and field.default is not None:
                news.setdefault(_alias(self.kind, name), field.default)
        unknown = {name for name, value in news.items() if contains_unknowns(value)}
        try:
            if olds:
                # Not in diff, which the engine calls to refresh too: it would keep `destroy` from ending.
                live = self._known(olds)
                declared = self._declared(olds, news, unknown)
                with _told(live), SESSIONS.used():
                    late = {name for name in self.kind.model_fields if _alias(self.kind, name) in unknown}
                    refusal = declared.refusal(live) or (declared.refusal_while_unknown(live, late) if late else None)
                return CheckResult(news, [CheckFailure("", escaped(refusal))] if refusal else [])
            if not unknown:
                _tell_costs(self.kind.model_validate(_plain(news)), None)
        except ValidationError as error:
            failures = [CheckFailure(str(e["loc"][0] if e["loc"] else ""), escaped(e["msg"])) for e in error.errors()]
            return CheckResult(news, failures)
        return CheckResult(news, [])

    def diff(self, _id: str, olds: Properties, news: Properties) -> DiffResult:
        """Compare field by field; a value not known yet (of a resource that is to be made) counts as changed."""
        unknown = {name for name, value in news.items() if contains_unknowns(value)}
        fields = self.kind.model_fields
        old = self._known(olds)
        with _readable(self.kind):
            new = self._declared(olds, news, unknown)
        passed = self.kind.computed | self.kind.not_compared | self.kind.create_only
        late = {name for name in fields if _alias(self.kind, name) in unknown and name not in passed}
        changed = new.changed(old) | late
        if changed:
            _tell_costs(new, old)
        replaces = sorted(new.replacing(old) | (late & self.kind.replaced_by))
        return DiffResult(
            changes=bool(changed) or new.stores(old),
            replaces=[_alias(self.kind, name) for name in replaces],
            delete_before_replace=self.kind.delete_before_replace,
        )

    def _known(self, props: Properties) -> Resource:
        """As Pulumi's state holds it."""
        with _readable(self.kind):
            return self.kind.model_validate(_plain(props))

    def _declared(self, olds: Properties, news: Properties, unknown: set[str]) -> Resource:
        """What is declared; what `create` found out, and what is not known yet, as it was."""
        kept = unknown | set(_aliases(self.kind, self.kind.computed))
        return self.kind.model_validate({k: v for k, v in _plain(olds).items() if k in kept} | _plain(news))

    def create(self, props: Properties) -> CreateResult:
        declared = self._known(props)
        with _told(declared), FACTS.change(), SESSIONS.used():
            made = declared.create()
        return CreateResult(made.identity, _dump(made))

    def read(self, id_: str, props: Properties) -> ReadResult:
        last = self._known(props)
        with _told(last):
            try:
                live = _read(last)
            except (Unavailable, AccessDenied) as error:
                if isinstance(error, AccessDenied) and not self.leave_unreachable:
                    raise
                could_not_ask(self._thing(last), error)
                console.say(f"shown as last known: {error}")
                live = last
        if live is None:
            return ReadResult("", {}, {})
        if os.environ.get(records.FACTS):
            _tell_facts(live)
        outputs = _showable(_dump(live), _dump(last))
        inputs = {name: value for name, value in outputs.items() if name not in _aliases(self.kind, self.kind.computed)}
        return ReadResult(id_, outputs, inputs)

    def _thing(self, one: Resource) -> str:
        return f"{_called(type(one))} {one.identity}"

    def update(self, _id: str, olds: Properties, news: Properties) -> UpdateResult:
        old = self._known(olds)
        with _readable(self.kind):
            new = self._declared(olds, news, set())
        with _told(new), FACTS.change(), SESSIONS.used():
            made = new.update(old) if new.changed(old) else new
        return UpdateResult(_dump(made))

    def delete(self, _id: str, props: Properties) -> None:
        last = self._known(props)
        with _told(last), FACTS.change(), SESSIONS.used():
            thing = self._thing(last)
            try:
                self.take_away(last)
            except (Unavailable, AccessDenied) as error:
                # Another cluster is there now: the one that this resource was in is gone, or on another machine.
                if not self.leave_unreachable and not isinstance(error, AnotherCluster):
                    raise type(error)(
                        f"{thing} was not removed: {str(error).rstrip('.')}. Make it reachable and run this again; or leave "
                        f"behind what does not answer: `{LEAVE_UNREACHABLE}=true pulumi destroy`"
                    ) from None
                console.say(f"left behind: {thing} ({str(error).rstrip('.')})")


class Managed(DynamicResource):
    """A dynamic resource made of a reconciler's fields; subclasses name the provider and the Pulumi type."""

    provider: ClassVar[type[Provider]]
    former_type: ClassVar[str] = ""
    """What it was called in the states of an earlier version."""

    def __init__(self, name: str, opts: ResourceOptions, /, **fields: Any) -> None:
        kind = self.provider.kind
        inputs = {_alias(kind, field): as_input(value) for field, value in fields.items()}
        for secret in _aliases(kind, kind.secrets):
            if secret in inputs:
                inputs[secret] = pulumi.Output.secret(inputs[secret])
        outputs = {name: None for name in _aliases(kind, kind.computed) if name not in inputs}
        aliases = [Alias(type_=f"{TYPE_PREFIX}{self.former_type}")] if self.former_type else []
        hidden = ResourceOptions(additional_secret_outputs=sorted(_aliases(kind, kind.secrets)), aliases=aliases)
        super().__init__(self.provider(), name, {**inputs, **outputs}, ResourceOptions.merge(opts, hidden))

    @classmethod
    def token(cls) -> str:
        """Its Pulumi type, as a URN holds it."""
        return f"pulumi-python:{cls._resource_type_name}"

    def output(self, field: str) -> pulumi.Output[Any]:
        """An output by the reconciler's own name of it."""
        value: pulumi.Output[Any] = getattr(self, _alias(self.provider.kind, field))
        return value


def _read(last: Resource) -> Resource | None:
    """It as it is now; what looks changed is read again, without the answers that reads share: those are of different moments."""
    with suppress(InDoubt), FACTS.read():
        live = last.read()
        if live is not None and not live.changed(last):
            return live
    return last.read()


@contextmanager
def _readable(kind: type[Resource]) -> Iterator[None]:
    try:
        yield
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        raise UserError(
            f"Pulumi's state holds a {_called(kind)} that cannot be read ({wrong}): it was edited by hand, or "
            f"written by another version. Restore an earlier one with `pulumi stack import`"
        ) from None


def _called(kind: type[Resource]) -> str:
    return kind.called or kind.__name__


def _alias(kind: type[Resource], name: str) -> str:
    return kind.model_fields[name].alias or name


def _aliases(kind: type[Resource], names: frozenset[str]) -> list[str]:
    return sorted(_alias(kind, name) for name in names)


def _plain(props: Mapping[str, Any]) -> Properties:
    """Without Pulumi's own keys and absent values, so that a field's default stands for what is not given."""
    return {k: v for k, v in props.items() if not k.startswith("__") and v is not None and not contains_unknowns(v)}


def _tell_costs(declared: Resource, live: Resource | None) -> None:
    try:
        with passed_to(console.record_unasked), SESSIONS.used():
            costs = [declared.placed(cost) for cost in declared.costs(live)]
    except UserError:
        return  # what cannot be asked now is told of where it is read
    for cost in costs:
        console.tell_cost(replace(cost, of=_called(type(declared))))


def _tell_facts(live: Resource) -> None:
    with suppress(UserError):  # a policy that misses a fact says so
        for fact in live.facts():
            console.record(live.placed(fact))


def _dump(resource: Resource) -> Properties:
    return resource.model_dump(by_alias=True, exclude_none=True)


def _showable(live: Any, known: Any) -> Any:
    """A live value as Pulumi may show it in a diff: texts that a machine made another are escaped. What is as it was stays."""
    if live == known:
        return live
    if isinstance(live, str):
        return escaped(live)
    if isinstance(live, dict):
        former = known if isinstance(known, dict) else {}
        return {key if key in former else escaped(key): _showable(one, former.get(key)) for key, one in live.items()}
    if isinstance(live, list):
        former_list = known if isinstance(known, list) else []
        return [_showable(one, one if one in former_list else None) for one in live]
    return live


@contextmanager
def _told(resource: Resource) -> Iterator[None]:
    """Show progress live; show a problem as its one sentence, any other error with its place in our code."""
    try:
        said = reported_to(lambda text, kept: console.say(text, urn=resource.row, ephemeral=not kept))
        with said, passed_to(console.record_unasked):
            yield
    except UserError:
        sys.tracebacklimit = 0
        raise
    except Exception as error:
        sys.tracebacklimit = 1000
        if escaped(str(error)) != str(error):  # it quotes what a server or a machine said
            raise RuntimeError(escaped(traceback.format_exc())) from None
        raise
