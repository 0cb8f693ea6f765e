"""A server's place on a machine reached by ssh: packages, the directory above its data, and the systemd unit that runs it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path, PurePosixPath

from psycopg.conninfo import make_conninfo

from tde_replication.errors import CommandFailed, Unavailable, UserError
from tde_replication.host_settings import Ssh
from tde_replication.hosts import installation
from tde_replication.hosts.account import PROJECT
from tde_replication.hosts.addresses import networks
from tde_replication.hosts.placement import Placement, PlacementContext
from tde_replication.hosts.ssh.known_hosts import expect_known_hosts
from tde_replication.hosts.ssh.login import Login, login_of
from tde_replication.hosts.ssh.machine import OWN_UNITS, SshHost
from tde_replication.hosts.ssh.openssh import Shell
from tde_replication.hosts.ssh.pulumi_command import agent_holds, through
from tde_replication.hosts.ssh.scripts import UNIT_TEXT
from tde_replication.hosts.ssh.way_scripts import WAY
from tde_replication.settings import Server
from tde_replication.unasked import could_not_ask

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


@dataclass(frozen=True, kw_only=True)
class MachinePlacement(Placement):
    """One that the stack makes: packages, the directory above the data, a unit."""

    login: Login
    system: str
    distribution_version: int
    """The major version of PostgreSQL that packages are installed of."""
    packages: str
    package_files: tuple[str, ...]
    """Of those that are brought, their names."""
    own_directory: bool
    """Whether the directory above the data is the stack's own."""
    unit: str
    unit_text: str
    """Empty where the unit is the distribution's."""
    own_units: str
    """What the names of units begin with that the stack makes for this server."""


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
        values = {"data": unit_word(str(data)), "binaries": unit_word(str(place))}
        text = UNIT_TEXT.format(
            name=server.name, stack=context.prefix.replace("%", "%%"), account=login.account, unit=unit, **values
        )
    sockets = f"/run/{unit}" if text else "/var/run/postgresql"
    address = login.address(unit=unit)
    brought = not server.adopt and declared.packages not in {"percona", "none"}
    files = _package_names(server) if brought else ()
    has_pg_tde, version = _programs(server, SshHost(address), place, files)
    placement = Placement(
        address=address,
        data=data,
        binaries=place,
        port=port,
        replication_host=_reach(server, declared),
        replication_sources=(server.network,) if server.network else _sources(server, declared),
        dsn=make_conninfo(host=sockets, port=port, user="postgres", dbname="postgres", requirepeer=login.account),
        server=f"PostgreSQL {declared.version} on {declared.machine}",
        has_pg_tde=has_pg_tde,
        version=version,
        version_setting="host.version",
        parameters={"unix_socket_directories": sockets} if text else {},
    )
    if server.adopt:
        return placement
    return MachinePlacement(
        **vars(placement),
        login=login,
        system=declared.system,
        distribution_version=declared.version,
        packages=declared.packages,
        package_files=files,
        own_directory=not server.data_directory,
        unit=unit,
        unit_text=text,
        own_units=own,
    )


def _ssh(server: Server) -> Ssh:
    if not isinstance(server.host, Ssh):
        raise UserError(f"{server.name} is on no machine reached by ssh")
    return server.host


def unit_word(path: str) -> str:
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


def _sources(server: Server, declared: Ssh) -> tuple[str, ...]:
    """Where its connections come from, for pg_hba.conf: names in there would need reverse lookups. A name may have several
    addresses, and connections come from any of them."""
    try:
        return networks(declared.machine)
    except OSError:
        raise UserError(
            f"{server.name}: the name {declared.machine} is not known here, so its address for pg_hba.conf is unknown too: set "
            "`address` of this server, as 192.0.2.7/32"
        ) from None


def _package_names(server: Server) -> tuple[str, ...]:
    """The files of packages that are brought, of one kind. Raises `UserError` where there are none."""
    directory = PROJECT / Path(_ssh(server).packages).expanduser()
    suffix = SUFFIXES[_ssh(server).system]
    found = sorted(path.name for path in directory.glob(f"*{suffix}"))
    if not found:
        raise UserError(f"host.packages: {directory} holds no {suffix} files")
    return tuple(found)


def _programs(
    server: Server, host: SshHost, binaries: PurePosixPath, files: Sequence[str]
) -> tuple[bool | None, int | None]:
    """Whether the server there has the extension, or will have it, and its major version; None if none is installed yet,
    or the machine does not answer. Raises `UserError` where one should be installed already and is not, or others may change
    it. `files`: of the packages that are brought."""
    declared = _ssh(server)
    installed = server.adopt or declared.packages == "none"
    comes = declared.packages == "percona" or any("pg_tde" in name.replace("-", "_") for name in files)
    will_have = True if comes and not installed else None
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
