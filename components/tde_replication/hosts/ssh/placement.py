"""A server's place on a machine reached by ssh: packages, the directory above its data, and the systemd unit that runs it.

By pulumi-command, as root. The scripts (`ssh_scripts`) go over standard input, with what they work on quoted behind them; only
"make" and "remove" are in the commands, so they mean the same to every login shell.
"""

import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path, PurePosixPath

import pulumi
from psycopg.conninfo import make_conninfo
from pulumi import ResourceOptions
from pulumi_command import remote

from tde_replication.errors import CommandFailed, Unavailable, UserError
from tde_replication.host_settings import Ssh
from tde_replication.hosts import installation
from tde_replication.hosts.account import PROJECT
from tde_replication.hosts.addresses import networks
from tde_replication.hosts.placement import Placement, PlacementContext
from tde_replication.hosts.ssh import sudo
from tde_replication.hosts.ssh.known_hosts import expect_known_hosts
from tde_replication.hosts.ssh.login import Login, login_of
from tde_replication.hosts.ssh.machine import OWN_UNITS, SshHost
from tde_replication.hosts.ssh.openssh import Shell
from tde_replication.hosts.ssh.pulumi_command import agent_holds, reached, through
from tde_replication.hosts.ssh.scripts import DIRECTORY, FILES, PACKAGES, UNIT, UNIT_TEXT
from tde_replication.hosts.ssh.way_scripts import WAY
from tde_replication.settings import Server
from tde_replication.unasked import could_not_ask
from tde_replication.unknown import as_input

PROBE_DEADLINE = 20.0
LAYOUTS = {
    "debian": ("/usr/lib/postgresql/{version}/bin", "/var/lib/postgresql/{version}", "postgresql@{version}-main"),
    "redhat": ("/usr/pgsql-{version}/bin", "/var/lib/pgsql/{version}", "postgresql-{version}"),
}
"""By system: the directories of programs and of data, and the distribution's own unit."""
SUFFIXES = {"debian": ".deb", "redhat": ".rpm"}
NO_SERVER, OTHERS = 3, 4
# $1 directory of programs; the rest: where the extension may be. A program is run only where nobody but root and the account may
# change it, or what leads to it.
PROGRAMS = (
    WAY
    + f"""
directory=$1
shift
[ -e "$directory/postgres" ] || exit {NO_SERVER}
accounts=" 0 $(id -u) "
for program in {" ".join(installation.PROGRAMS)}; do
    [ ! -e "$directory/$program" ] || way "$directory/$program" || {{ printf '%s\\n' "$place" >&2; exit {OTHERS}; }}
done
"$directory/postgres" --version || exit 1
for file; do [ ! -e "$file" ] || echo pg_tde; done
"""
)


@dataclass(frozen=True)
class Maker:
    """Registers what one server's place is made of."""

    server: Server
    login: Login
    data: PurePosixPath
    unit: str
    unit_text: str
    """Empty where the unit is the distribution's."""
    named: Callable[[str], str]
    """The names of its resources."""

    def __call__(self, opts: ResourceOptions) -> Sequence[pulumi.Resource]:
        declared = _ssh(self.server)
        last: list[pulumi.Resource] = []
        if declared.packages == "percona":
            last = [self._command("packages", PACKAGES, [declared.system, str(declared.version)], opts)]
        elif declared.packages != "none":
            last = self._package_files(declared.packages, opts)
        own = "no" if self.server.data_directory else "yes"
        above = [self.login.account, str(self.data.parent), own]
        last = [self._command("directory", DIRECTORY, above, _after(opts, last))]
        if self.unit_text:
            last = [self._command("unit", UNIT, [self.unit, self.unit_text], _after(opts, last))]
        return last

    def _package_files(self, directory: str, opts: ResourceOptions) -> list[pulumi.Resource]:
        """Copied to the login's home, where they stay as long as the stack, and installed from there."""
        place = f".cache/tde-replication/{self.unit}"
        copied = remote.CopyToRemote(
            self.named(f"{self.server.name}-package-files"),
            connection=self._connection(),
            source=pulumi.FileArchive(f"{Path(directory).expanduser()}/"),  # with the slash, what is in it
            remote_path=place,
            opts=opts,
        )
        names = [f"./{name}" for name in _package_names(self.server)]
        return [self._command("packages", FILES, [place, *names], _after(opts, [copied]))]

    def _command(self, what: str, script: str, arguments: Sequence[str], opts: ResourceOptions) -> pulumi.Resource:
        # All of it is read before any of it runs, so that no program in it reads the rest of the script.
        text = f'main() {{\n{script.strip()}\n}}\nmain "$1" {shlex.join(arguments)} </dev/null\n'
        stdin: pulumi.Input[str] = text
        run = f"exec {self.login.become('root')}/bin/sh "
        if self.login.asks("root"):
            stdin = pulumi.Output.secret(f"{self.login.answer}{sudo.BEGIN}\n{text}")
            run += f"-c '{sudo.SKIP}; exec /bin/sh \"$@\"' sh "
        return remote.Command(
            self.named(f"{self.server.name}-{what}"),
            connection=self._connection(),
            create=f"{run}-s make",
            delete=f"{run}-s remove",
            stdin=stdin,
            logging=remote.Logging.NONE,
            add_previous_output_in_env=False,
            opts=opts,
        )

    def _connection(self) -> remote.ConnectionArgs:
        """The same way as our own ssh goes, as far as pulumi-command can: one jump host, and no certificate but an agent's."""
        hop = through(self.login)
        proxy = remote.ProxyConnectionArgs(**as_input(reached(hop))) if hop else None
        return remote.ConnectionArgs(**as_input(reached(self.login)), proxy=proxy)


def declare(server: Server, port: int, context: PlacementContext) -> Placement:
    """The place of a server on a machine reached by ssh. It need not be there yet, and need not answer."""
    declared = _ssh(server)
    binaries, above, distribution = (text.format(version=declared.version) for text in LAYOUTS[declared.system])
    if declared.unit and declared.unit.startswith("postgresql@") and not server.adopt:
        raise UserError(
            f"{server.name}: {declared.unit} runs a server that pg_createcluster made; it can be adopted (adopt: true). Leave "
            "out host.unit, and the stack makes a unit of its own"
        )
    if declared.unit and not server.adopt and not server.data_directory:
        raise UserError(
            f"{server.name}: {declared.unit} starts the server of one data directory: name that in dataDirectory. Leave out "
            "host.unit, and the stack makes a unit of its own"
        )
    if declared.known_hosts:
        expect_known_hosts(PROJECT / Path(declared.known_hosts).expanduser())
    login = login_of(declared)
    if declared.certificate and not server.adopt and not agent_holds(declared.certificate):
        raise UserError(
            f"{server.name}: pulumi-command, which prepares the machine, has host.certificate from an agent alone: run one, "
            "and `ssh-add` the key beside its certificate"
        )
    if not server.adopt:
        through(login)
        # A wrong password of sudo's is told at preview, before pulumi-command tries it three times at each of its commands.
        try:
            Shell(login).answer("root")
        except Unavailable as why:
            could_not_ask(f"whether sudo lets in {login.login}", why)
    own = f"{OWN_UNITS}{context.prefix}-{server.name}"
    unit = declared.unit or (distribution if server.adopt else own)
    data = PurePosixPath(server.data_directory or f"{above}/{own}/data")
    place = PurePosixPath(server.binaries or binaries)
    text = ""
    if unit == own:
        values = {"data": _unit_word(str(data)), "binaries": _unit_word(str(place))}
        text = UNIT_TEXT.format(
            name=server.name, stack=context.prefix.replace("%", "%%"), account=login.account, unit=unit, **values
        )
    sockets = f"/run/{unit}" if text else "/var/run/postgresql"
    address = login.address(unit=unit)
    has_pg_tde, version = _programs(server, SshHost(address), place)
    return Placement(
        address=address,
        data=data,
        binaries=place,
        port=port,
        replication_host=_reach(server, declared),
        replication_sources=(server.network,) if server.network else _clients(server, declared),
        dsn=make_conninfo(host=sockets, port=port, user="postgres", dbname="postgres", requirepeer=login.account),
        server=f"PostgreSQL {declared.version} on {declared.machine}",
        has_pg_tde=has_pg_tde,
        version=version,
        version_setting="host.version",
        parameters={"unix_socket_directories": sockets} if text else {},
        make=(lambda _: ()) if server.adopt else Maker(server, login, data, unit, text, context.named),
    )


def _ssh(server: Server) -> Ssh:
    if not isinstance(server.host, Ssh):
        raise UserError(f"{server.name} is on no machine reached by ssh")
    return server.host


def _after(opts: ResourceOptions, before: Sequence[pulumi.Resource]) -> ResourceOptions:
    return ResourceOptions.merge(opts, ResourceOptions(depends_on=list(before)))


def _unit_word(path: str) -> str:
    """A path in a systemd unit (systemd.syntax(7)); with quotes where it must have them."""
    escaped = path.replace("\\", "\\\\").replace("%", "%%").replace("$", "$$").replace('"', '\\"')
    if re.search(r"\s|'", path):
        raise UserError(
            f"{path}: a systemd unit cannot hold a path with a space or a quote: name another dataDirectory"
        )
    return escaped


def _reach(server: Server, declared: Ssh) -> str:
    """Where other servers find it: its `address`, where that is one, else the name of its machine."""
    if not server.network:
        return declared.machine
    try:
        network = ip_network(server.network)
    except ValueError:
        return server.network
    return str(network.network_address) if network.num_addresses == 1 else declared.machine


def _clients(server: Server, declared: Ssh) -> tuple[str, ...]:
    """Where its connections come from, for pg_hba.conf: names in there would need reverse lookups. A name may have several
    addresses, and connections come from any of them."""
    try:
        return networks(declared.machine)
    except OSError:
        raise UserError(
            f"{server.name}: the name {declared.machine} is not known here, so its address for pg_hba.conf is unknown too: set "
            "`address` of this server, as 192.0.2.7/32"
        ) from None


def _package_names(server: Server) -> list[str]:
    """The files of packages that are brought, of one kind. Raises `UserError` where there are none."""
    directory = PROJECT / Path(_ssh(server).packages).expanduser()
    suffix = SUFFIXES[_ssh(server).system]
    found = sorted(path.name for path in directory.glob(f"*{suffix}"))
    if not found:
        raise UserError(f"host.packages: {directory} holds no {suffix} files")
    return found


def _programs(server: Server, host: SshHost, binaries: PurePosixPath) -> tuple[bool | None, int | None]:
    """Whether the server there has the extension, or will have it, and its major version; None if none is installed yet,
    or the machine does not answer. Raises `UserError` where one should be installed already and is not, or others may change
    it."""
    declared = _ssh(server)
    installed = server.adopt or declared.packages == "none"
    brought = []
    if not installed:
        brought = ["pg_tde"] if declared.packages == "percona" else _package_names(server)
    will_have = True if any("pg_tde" in name.replace("-", "_") for name in brought) else None
    expected = None if server.binaries else declared.version
    if will_have and expected:
        return will_have, expected
    places = [
        str(binaries.parent / place.format(major=declared.version) / "pg_tde.control")
        for place in installation.EXTENSIONS
    ]
    try:
        told = host.run(["/bin/sh", "-c", PROGRAMS, "sh", str(binaries), *places], deadline=PROBE_DEADLINE)
    except CommandFailed as failure:
        if failure.status == OTHERS:
            raise UserError(
                f"the programs in {binaries} on {declared.machine} are not run, because accounts other than root and "
                f"{declared.account} may "
                f"change {failure.output.strip()}: correct its owner and mode, or name another directory in binaries"
            ) from None
        if installed and failure.status == NO_SERVER:
            raise UserError(
                f"there is no {binaries / 'postgres'} on {declared.machine}: set host.version, host.system or binaries to what "
                "is there" + ("" if server.adopt else "; or have it installed (host.packages)")
            ) from None
        return will_have, expected
    except UserError as why:
        could_not_ask(f"the version of {server.name}", why)
        return will_have, expected
    version = re.search(r"\d+", told)
    return will_have or "pg_tde" in told.splitlines(), int(version[0]) if version else expected
