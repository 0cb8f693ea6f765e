"""A server's place on a machine reached by ssh: packages, the directory above its data, and the systemd unit that runs it.

By pulumi-command, as root. The scripts are constant and go over standard input, with what they work on quoted before them;
only "make" and "remove" are in the commands, so they mean the same to every login shell.
"""

import os
import re
import shlex
import socket
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from pathlib import Path, PurePosixPath
from typing import Any

import pulumi
from psycopg.conninfo import make_conninfo
from pulumi import ResourceOptions
from pulumi_command import remote

from components.errors import CommandFailed, Problem
from components.hosts.installation import EXTENSIONS
from components.hosts.openssh import PORT, Login, connection_settings
from components.hosts.site import Site, Surroundings
from components.hosts.ssh import SshHost
from components.settings import Server, Ssh

PROBE_DEADLINE = 20.0
DIAL_ATTEMPTS = 3
LAYOUTS = {
    "debian": ("/usr/lib/postgresql/{version}/bin", "/var/lib/postgresql/{version}", "postgresql@{version}-main"),
    "redhat": ("/usr/pgsql-{version}/bin", "/var/lib/pgsql/{version}", "postgresql-{version}"),
}
"""By system: the directories of programs and of data, and the distribution's own unit."""
HOST_KEYS = ("ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "ssh-rsa", "ssh-ed25519")
"""In the order in which pulumi-command's ssh wants them of a host."""

# $1 verb, $2 system, $3 version. Packages stay when the stack goes: other servers may use them.
PACKAGES = """
[ "$1" = make ] || exit 0
export DEBIAN_FRONTEND=noninteractive LC_ALL=C
set -eu
repository=https://repo.percona.com
case $2 in
debian)
    dpkg-query -W "percona-pg-tde$3" "percona-postgresql-$3" >/dev/null 2>&1 && exit 0
    # Else the package makes a cluster "main", which takes port 5432.
    mkdir -p /etc/postgresql-common/createcluster.d
    echo "create_main_cluster = false" >/etc/postgresql-common/createcluster.d/tde-replication.conf
    apt-get -qq update
    apt-get -qq -y install ca-certificates curl gnupg lsb-release
    if ! command -v percona-release >/dev/null; then
        package=$(mktemp --suffix=.deb)
        trap 'rm -f -- "$package"' EXIT
        curl -fsSL -o "$package" "$repository/apt/percona-release_latest.generic_all.deb"
        apt-get -qq -y install "$package"
    fi
    percona-release setup -y "ppg-$3"
    apt-get -qq update
    apt-get -qq -y install "percona-postgresql-$3" "percona-pg-tde$3"
    ;;
redhat)
    rpm -q "percona-postgresql$3-server" "percona-pg_tde$3" >/dev/null 2>&1 && exit 0
    command -v percona-release >/dev/null ||
        dnf -y install "$repository/yum/percona-release-latest.noarch.rpm"
    # The distribution's own module hides Percona's packages.
    dnf -qy module disable postgresql || true
    percona-release setup -y "ppg-$3"
    dnf -y install "percona-postgresql$3-server" "percona-postgresql$3-contrib" "percona-pg_tde$3"
    ;;
esac
"""
# $1 verb, $2 account, $3 directory above the data, $4 whether that is of the stack's own making
DIRECTORY = """
set -eu
if [ "$1" = remove ]; then
    [ "$4" != yes ] || rmdir --ignore-fail-on-non-empty -- "$3" 2>/dev/null || [ ! -d "$3" ]
    exit
fi
id -u "$2" >/dev/null
[ -d "$3" ] || install -d -o "$2" -g "$(id -gn "$2")" -m 0700 -- "$3"
if ! runuser -u "$2" -- test -w "$3"; then
    echo "$2 cannot write to $3: give it that directory, or name a dataDirectory in one of its own" >&2
    exit 1
fi
"""
# $1 verb, $2 unit, $3 its text
UNIT = """
set -eu
file=/etc/systemd/system/$2.service
if [ "$1" = remove ]; then
    systemctl disable --now "$2" 2>/dev/null || true
    rm -f -- "$file"
    systemctl daemon-reload
    systemctl reset-failed "$2" 2>/dev/null || true
    exit
fi
printf '%s' "$3" >"$file.new"
chmod 0644 "$file.new"
mv -f "$file.new" "$file"
systemctl daemon-reload
systemctl enable --quiet "$2"
"""
UNIT_TEXT = """\
# Made by tde-replication, which writes it again on `pulumi up`.
[Unit]
Description=PostgreSQL server {name} of stack {stack}
Wants=network-online.target
After=network-online.target
ConditionPathExists={data}/PG_VERSION
StartLimitIntervalSec=0

[Service]
Type=simple
User={account}
RuntimeDirectory={unit}
Environment=LC_ALL=C.UTF-8 TZ=UTC
ExecStart={binaries}/postgres -D {data}
ExecReload=/bin/kill -HUP $MAINPID
# A fast shutdown by the postmaster, as long as it takes; and nobody kills its processes one by one.
KillMode=mixed
KillSignal=SIGINT
TimeoutSec=infinity

[Install]
WantedBy=multi-user.target
"""


@dataclass(frozen=True)
class Maker:
    """Registers what one server's place is made of."""

    server: Server
    login: Login
    data: PurePosixPath
    unit: str
    unit_text: str
    """Empty where the unit is the distribution's."""

    def __call__(self, opts: ResourceOptions) -> Sequence[pulumi.Resource]:
        declared = _ssh(self.server)
        last: list[pulumi.Resource] = []
        if declared.packages == "percona":
            last = [self._command("packages", PACKAGES, [declared.system, str(declared.version)], opts)]
        own = "no" if self.server.data_directory else "yes"
        above = [self.login.account, str(self.data.parent), own]
        last = [self._command("directory", DIRECTORY, above, _after(opts, last))]
        if self.unit_text:
            last = [self._command("unit", UNIT, [self.unit, self.unit_text], _after(opts, last))]
        return last

    def _command(self, what: str, script: str, arguments: Sequence[str], opts: ResourceOptions) -> pulumi.Resource:
        # All of it is read before any of it runs, so that no program in it reads the rest of the script.
        text = f'main() {{\n{script.strip()}\n}}\nmain "$1" {shlex.join(arguments)} </dev/null\n'
        become = self.login.become("root")
        return remote.Command(
            f"{self.server.name}-{what}",
            connection=self._connection(),
            create=f"exec {become}/bin/sh -s make",
            delete=f"exec {become}/bin/sh -s remove",
            stdin=text,
            logging=remote.Logging.NONE,
            add_previous_output_in_env=False,
            opts=opts,
        )

    def _connection(self) -> remote.ConnectionArgs:
        """The same way as our own ssh goes, as far as pulumi-command can: one jump host, and no certificate but an agent's."""
        if len(self.login.jump) > 1:
            raise Problem(f"{self.server.name}: pulumi-command goes through one jump host, and host.jump names several")
        proxy = None
        if self.login.jump:
            found = _reached(self.login.hop(self.login.jump[0]))
            proxy = remote.ProxyConnectionArgs(**found)
        return remote.ConnectionArgs(**_reached(self.login), proxy=proxy)


def declare(server: Server, port: int, around: Surroundings) -> Site:
    """The place of a server on a machine reached by ssh. It need not be there yet, and need not answer."""
    declared = _ssh(server)
    binaries, above, distribution = (text.format(version=declared.version) for text in LAYOUTS[declared.system])
    if declared.unit and declared.unit.startswith("postgresql@") and not server.adopt:
        raise Problem(
            f"{server.name}: {declared.unit} runs a server that pg_createcluster made; it can be adopted (adopt: true). Leave "
            "out host.unit, and the stack makes a unit of its own"
        )
    login = Login(
        host=declared.ssh,
        port=declared.port,
        user=declared.user,
        account=declared.account,
        key=declared.key,
        certificate=declared.certificate,
        known_hosts=declared.known_hosts,
        jump=tuple(declared.jump),
    )
    own = f"tde-{around.stack}-{server.name}"
    unit = declared.unit or (distribution if server.adopt else own)
    data = PurePosixPath(server.data_directory or f"{above}/{own}/data")
    place = PurePosixPath(server.binaries or binaries)
    text = ""
    if unit == own:
        values = {"data": _unit_word(str(data)), "binaries": _unit_word(str(place))}
        text = UNIT_TEXT.format(
            name=server.name, stack=around.stack.replace("%", "%%"), account=login.account, unit=unit, **values
        )
    sockets = f"/run/{unit}" if text else "/var/run/postgresql"
    address = login.address(unit=unit)
    return Site(
        address=address,
        data=data,
        binaries=place,
        port=port,
        reach=_reach(server, declared),
        client=server.address or _client(server, declared),
        dsn=make_conninfo(host=sockets, port=port, user="postgres", dbname="postgres"),
        server=f"PostgreSQL {declared.version} on {declared.ssh}",
        has_pg_tde=True if declared.packages == "percona" else _has_pg_tde(SshHost(address), place, declared.version),
        parameters={"unix_socket_directories": sockets} if text else {},
        **({} if server.adopt else {"make": Maker(server, login, data, unit, text)}),
    )


def _ssh(server: Server) -> Ssh:
    if not isinstance(server.host, Ssh):
        raise Problem(f"{server.name} is on no machine reached by ssh")
    return server.host


def _after(opts: ResourceOptions, before: Sequence[pulumi.Resource]) -> ResourceOptions:
    return ResourceOptions.merge(opts, ResourceOptions(depends_on=list(before)))


def _unit_word(path: str) -> str:
    """A path in a systemd unit (systemd.syntax(7)); with quotes where it must have them."""
    escaped = path.replace("\\", "\\\\").replace("%", "%%").replace("$", "$$").replace('"', '\\"')
    if re.search(r"\s|'", path):
        raise Problem(
            f"{path}: a unit of systemd takes no path with a space or a quote in it: name another dataDirectory"
        )
    return escaped


def _reach(server: Server, declared: Ssh) -> str:
    """Where other servers find it: its `address`, where that is one, else the name of its machine."""
    if not server.address:
        return declared.ssh
    try:
        network = ip_network(server.address)
    except ValueError:
        return server.address
    return str(network.network_address) if network.num_addresses == 1 else declared.ssh


def _client(server: Server, declared: Ssh) -> str:
    """Where its connections come from, for pg_hba.conf: names in there would need reverse lookups."""
    try:
        found = ip_address(declared.ssh)
    except ValueError:
        try:
            found = ip_address(socket.getaddrinfo(declared.ssh, None, type=socket.SOCK_STREAM)[0][4][0])
        except OSError:
            raise Problem(
                f"{server.name}: the name {declared.ssh} is not known here, so its address for pg_hba.conf is not either: set "
                "`address` of this server, as 192.0.2.7/32"
            ) from None
    return str(ip_network(found))


def _has_pg_tde(host: SshHost, binaries: PurePosixPath, version: int) -> bool | None:
    """Whether the server that is installed there has the extension; None where there is none yet, or no answer."""
    script = '[ -e "$1" ] || exit 3; shift; for file; do [ ! -e "$file" ] || exit 0; done; exit 4'
    places = [str(binaries.parent / place.format(major=version) / "pg_tde.control") for place in EXTENSIONS]
    try:
        host.run(["/bin/sh", "-c", script, "sh", str(binaries / "postgres"), *places], deadline=PROBE_DEADLINE)
    except CommandFailed as failure:
        return False if failure.status == 4 else None  # noqa: PLR2004 - of the line above
    except Problem:
        return None  # what lies between us is told when something is asked of the host
    return True


def _reached(login: Login) -> dict[str, Any]:
    """pulumi-command's connection to one machine, as the user's own ssh would make it."""
    settings = connection_settings(login)
    found: dict[str, Any] = {
        "host": settings["hostname"][0],
        "port": int(settings["port"][0]),
        "user": settings["user"][0],
        "host_key": _host_key(settings),
        "dial_error_limit": DIAL_ATTEMPTS,
    }
    if key := _private_key(login, settings):
        found["private_key"] = pulumi.Output.secret(key)
    return found


def _host_key(settings: dict[str, list[str]]) -> str:
    """The key that known_hosts has; "", which matches none, for an unknown host: without one, any would be believed."""
    port = settings["port"][0]
    name = settings.get("hostkeyalias", settings["hostname"])[0]
    looked_up = name if int(port) == PORT else f"[{name}]:{port}"
    known: dict[str, str] = {}
    for file in [*settings.get("userknownhostsfile", []), *settings.get("globalknownhostsfile", [])]:
        path = Path(file).expanduser()
        if path.exists():
            command = ["ssh-keygen", "-F", looked_up, "-f", str(path)]
            output = subprocess.run(command, capture_output=True, text=True, check=False).stdout
            for line in output.splitlines():
                words = line.split()
                if not line.startswith(("#", "@")) and len(words) > 2:  # noqa: PLR2004 - names, type, key
                    known.setdefault(words[1], f"{words[1]} {words[2]}")
    return next((known[kind] for kind in HOST_KEYS if kind in known), "")


def _private_key(login: Login, settings: dict[str, list[str]]) -> str | None:
    """The content of the key file that ssh would use; None where the agent has the key (then none gets into the state)."""
    agent = "SSH_AUTH_SOCK" in os.environ
    if agent and not login.key:
        return None
    for file in settings.get("identityfile", []):
        path = Path(file).expanduser()
        if not path.exists():
            continue
        command = ["ssh-keygen", "-y", "-P", "", "-f", str(path)]
        if subprocess.run(command, capture_output=True, check=False).returncode == 0:  # it has no passphrase
            return path.read_text()
    return None
