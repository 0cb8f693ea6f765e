"""Gives the rules to Pulumi's policy framework. The only module that knows both."""

import os
import runpy
import select
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pulumi_policy import (
    EnforcementLevel,
    Policy,
    PolicyConfigSchema,
    PolicyPack,
    ResourceValidationArgs,
    ResourceValidationPolicy,
    StackValidationArgs,
    StackValidationPolicy,
)

from tde_rules import RULES, STACK, Resource, Rule

HERE = Path(__file__).parent


def main() -> None:
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    for own in sorted((HERE / "own").glob("*.py")):
        runpy.run_path(str(own))
    PolicyPack("tde-replication", [_policy(rule) for rule in RULES])


def _end_with(parent: int) -> None:
    """The framework waits for ever, also where the engine is killed and the language host with it."""
    with suppress(ProcessLookupError):
        watched = os.pidfd_open(parent)
        if os.getppid() == parent:  # else the number is another one's by now
            select.select([watched], [], [])
    os._exit(1)


def _policy(rule: Rule) -> Policy:
    schema = {name: {"type": kind, "default": value} for name, (kind, value) in rule.settings.items()}
    given: dict[str, Any] = {
        "name": rule.name,
        "description": rule.why,
        "enforcement_level": EnforcementLevel(rule.level),
        "config_schema": PolicyConfigSchema(schema) if schema else None,
    }
    if rule.of == STACK:
        # Outputs of a stack are no resource's inputs: the engine shows them at the end of a preview or an update.
        def of_stack(args: StackValidationArgs, report: Any) -> None:
            for one in args.resources:
                if one.resource_type == STACK:
                    _report(rule, Resource(one.name, one.props), args.get_config(), report)

        return StackValidationPolicy(validate=of_stack, **given)

    def of_resource(args: ResourceValidationArgs, report: Any) -> None:
        if args.resource_type.rpartition(":")[2] in rule.of.split():
            resource = Resource(args.name, args.props, protected=args.opts.protect)
            _report(rule, resource, args.get_config(), report)

    return ResourceValidationPolicy(validate=of_resource, **given)


def _report(rule: Rule, resource: Resource, config: Mapping[str, Any] | None, report: Any) -> None:
    for violation in rule.violations(resource, config or {}):
        report(violation, None)
