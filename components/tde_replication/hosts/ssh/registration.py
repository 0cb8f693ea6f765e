"""What pulumi-command makes on a machine reached by ssh, as root: packages, the directory above the data, a systemd unit.

The scripts (`scripts`) go over standard input, with what they work on quoted behind them; only "make" and "remove" are in the
commands, so they mean the same to every login shell.
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pulumi
from pulumi import Resource, ResourceOptions
from pulumi_command import remote

from tde_replication.hosts.placement import Placement, PlacementContext, TokenRenewal
from tde_replication.hosts.registration import Place
from tde_replication.hosts.ssh import renewal as renewing, sudo
from tde_replication.hosts.ssh.login import Login
from tde_replication.hosts.ssh.placement import MachinePlacement
from tde_replication.hosts.ssh.pulumi_command import reached, through
from tde_replication.hosts.ssh.scripts import DIRECTORY, FILES, PACKAGES, UNIT
from tde_replication.unknown import as_input


def register(placements: Mapping[str, Placement], context: PlacementContext, opts: ResourceOptions) -> dict[str, Place]:
    return {
        name: _place(_Machine(context.named(name), one), opts) if isinstance(one, MachinePlacement) else Place()
        for name, one in placements.items()
    }


def _place(machine: "_Machine", opts: ResourceOptions) -> Place:
    return Place((machine.prepared(opts),), renew=machine.renewal)


@dataclass(frozen=True)
class _Machine:
    label: str
    """What the names of its resources begin with."""
    placement: MachinePlacement

    def prepared(self, opts: ResourceOptions) -> Resource:
        """The last of what is made, each after the one before."""
        place = self.placement
        above = [place.login.account, str(place.data.parent), "yes" if place.own_directory else "no"]
        made = self._command("directory", DIRECTORY, above, _after(opts, self._packages(opts)))
        return (
            self._command("unit", UNIT, [place.unit, place.unit_text], _after(opts, [made]))
            if place.unit_text
            else made
        )

    def renewal(self, renewal: TokenRenewal, opts: ResourceOptions) -> Resource:
        units, account = f"{self.placement.own_units}-token", self.placement.login.account
        texts = renewing.units(f"PostgreSQL server {self.label}", account, renewal)
        return self._command("token-renewal", renewing.SCRIPT, [units, *texts], opts)

    def _packages(self, opts: ResourceOptions) -> list[Resource]:
        place = self.placement
        match place.packages:
            case "none":
                return []
            case "percona":
                return [self._command("packages", PACKAGES, [place.system, str(place.distribution_version)], opts)]
            case directory:
                return [self._package_files(directory, opts)]

    def _package_files(self, directory: str, opts: ResourceOptions) -> Resource:
        """Copied to the login's home, where they stay as long as the stack, and installed from there."""
        there = f".cache/tde-replication/{self.placement.unit}"
        copied = remote.CopyToRemote(
            f"{self.label}-package-files",
            connection=connection(self.placement.login),
            source=pulumi.FileArchive(f"{Path(directory).expanduser()}/"),  # with the slash, what is in it
            remote_path=there,
            opts=opts,
        )
        names = [f"./{name}" for name in self.placement.package_files]
        return self._command("packages", FILES, [there, *names], _after(opts, [copied]))

    def _command(self, what: str, script: str, arguments: Sequence[str], opts: ResourceOptions) -> Resource:
        login = self.placement.login
        # All of it is read before any of it runs, so that no program in it reads the rest of the script.
        text = f'main() {{\n{script.strip()}\n}}\nmain "$1" {shlex.join(arguments)} </dev/null\n'
        stdin: pulumi.Input[str] = text
        run = f"exec {login.become('root')}/bin/sh "
        if login.asks("root"):
            stdin = pulumi.Output.secret(f"{login.answer}{sudo.BEGIN}\n{text}")
            run += f"-c '{sudo.SKIP}; exec /bin/sh \"$@\"' sh "
        return remote.Command(
            f"{self.label}-{what}",
            connection=connection(login),
            create=f"{run}-s make",
            delete=f"{run}-s remove",
            stdin=stdin,
            logging=remote.Logging.NONE,
            add_previous_output_in_env=False,
            opts=opts,
        )


def connection(login: Login) -> remote.ConnectionArgs:
    """The same way as our own ssh goes, as far as pulumi-command can: one jump host, and no certificate but an agent's."""
    hop = through(login)
    return remote.ConnectionArgs(**_inputs(login), proxy=remote.ProxyConnectionArgs(**_inputs(hop)) if hop else None)


def _inputs(login: Login) -> dict[str, Any]:
    found = as_input(reached(login))
    secret = {"private_key": pulumi.Output.secret(found["private_key"])} if "private_key" in found else {}
    return {**found, **secret}


def _after(opts: ResourceOptions, before: Sequence[Resource]) -> ResourceOptions:
    return ResourceOptions.merge(opts, ResourceOptions(depends_on=list(before)))
