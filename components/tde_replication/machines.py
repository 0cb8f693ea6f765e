"""Machines that the same program makes: what of a cluster lies on one is registered once that takes logins."""

from collections.abc import Callable, Sequence

from pulumi import Output, ResourceOptions

from tde_replication import later
from tde_replication.host_settings import Ssh
from tde_replication.postgres import resources
from tde_replication.settings import Cluster


def machines(
    named: Callable[[str], str], declared: Cluster, found: Cluster, opts: ResourceOptions
) -> list[resources.Machine]:
    """One for each server whose way there is an output in `declared`; `found` has the values."""
    made = []
    for server, with_values in zip(declared.members, found.members, strict=True):
        if not isinstance(server.host, Ssh) or not isinstance(with_values.host, Ssh):
            continue
        if outputs := later.outputs_of(server.host):
            host = _address(outputs, with_values.host)
            made.append(resources.Machine(named(server.name), opts, host=host))
    return made


def _address(outputs: Sequence[Output[str]], host: Ssh) -> Output[str]:
    """With the dependency on whatever makes the machine."""
    from tde_replication.hosts.ssh.login import login_of  # noqa: PLC0415 - only what a stack uses is loaded

    address = login_of(host).address()
    return Output.all(*outputs).apply(lambda _: address)
