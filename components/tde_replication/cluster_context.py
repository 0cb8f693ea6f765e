"""What all resources of a cluster have in common for Pulumi: parent, names, dependencies, and values of outputs."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pulumi import Output, Resource, ResourceOptions

from tde_replication import settings
from tde_replication.adapter import Managed
from tde_replication.cluster_plan import ClusterPlan

T = TypeVar("T")


@dataclass(frozen=True)
class ClusterContext:
    """The cluster around a resource."""

    plan: ClusterPlan
    parent: Resource
    first: tuple[Resource, ...] = ()
    """Everything else depends on these, so that they outlive it: machines that the same program makes, and `Expiry`. There is no
    input from a machine: with one, the engine would delete data without a question where it replaces a machine."""

    def child(self, **options: Any) -> ResourceOptions:
        return after(ResourceOptions(parent=self.parent, **options), *self.first)

    def named(self, name: str) -> str:
        """The name of one of the cluster's resources."""
        return self.plan.context.named(name)

    @property
    def cluster(self) -> settings.Cluster:
        return self.plan.cluster


def after(opts: ResourceOptions, *before: Resource) -> ResourceOptions:
    return ResourceOptions.merge(opts, ResourceOptions(depends_on=list(before)))


def as_primary(inside: Mapping[str, Any]) -> dict[str, Any]:
    """The primary, as a resource of another server knows it; `inside` is how its own resources do."""
    return {
        "primary_host": inside["host"],
        "primary_directory": inside["data_directory"],
        "primary_identifier": inside["system_identifier"],
    }


def alone(output: Output[T]) -> Output[T]:
    """The same value, of which the engine does not know where it comes from: it replaces what depends on a replaced resource."""
    return Output(set(), output.future(), output.is_known())  # type: ignore[arg-type]


def urn_of_child(parent: Resource, kind: type[Managed], name: str) -> Output[str]:
    """Its URN, whatever components this one is in. Without the dependency that the component's own URN has as an output:
    who depends on a component depends on all its children."""
    own: Output[str | None] = alone(parent.urn)

    def below(urn: str | None) -> str:
        stack, project, types, _ = (urn or "").split("::", 3)
        return f"{stack}::{project}::{types}${kind.token()}::{name}"

    return own.apply(below)
