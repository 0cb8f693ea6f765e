"""What the machines themselves have against a stack file, looked up without touching anything."""

import errno
import socket
import ssl
from pathlib import PurePosixPath
from urllib.parse import urlsplit

import psycopg

from components import hosts, settings
from components.errors import Unavailable
from components.hosts.base import Host
from components.hosts.site import Site
from components.postgres.data_directory import marker
from components.vault_address import LOOPBACK, VaultAddress

PATIENCE = 3.0


def objections(place: str, server: settings.Server, site: Site, stack: str) -> list[str]:
    """Mistakes in `place` ("cluster.primary") that only its host can tell; none where it cannot be asked now."""
    host, data, port = hosts.host(site.address), site.data, site.port
    try:
        found = []
        if not server.adopt and host.listing(data) and marker(host, data).get("stack") != stack:
            found.append(
                f"{place}.dataDirectory: {data} is not empty and was not made by this stack: it is never written to. Move it "
                "away, or name another"
            )
        if (of := marker(host, data).get("name", server.name)) != server.name:
            found.append(
                f"{place}.dataDirectory: {data} is that of server {of}, and a server is not renamed with its data: name another"
            )
        moved = (
            place != "cluster.primary" and _listens(host, site, stack) == server.name
        )  # it goes before the new one starts
        if server.host == "local" and not moved and (taken := _taken(host, data, server.listen, port)):
            found.append(f"{place}.port: {port} is in use on {taken} (by something that is not this server)")
    except Unavailable:
        return []
    return found


def objections_of_vault(address: str, ca: str | None) -> list[str]:
    """Whether the CA that every server is to get is that of the Vault: with another, none could start again."""
    parts = urlsplit(address)
    if parts.scheme != "https" or not parts.hostname:
        return []
    signer = (
        f"the CA in {ca} (cluster.vault.ca, VAULT_CACERT)"
        if ca
        else "a CA that this machine trusts: set cluster.vault.ca"
    )
    try:
        trust = ssl.create_default_context(cafile=ca)
        with socket.create_connection((parts.hostname, parts.port or 443), timeout=PATIENCE) as plain:
            trust.wrap_socket(plain, server_hostname=parts.hostname).close()
    except ssl.SSLCertVerificationError as error:
        return [f"vault:address: the certificate of {address} is not signed by {signer}: {error.verify_message}"]
    except ssl.SSLError as error:
        return [f"cluster.vault.ca: {ca} holds no certificate ({error.reason})"]
    except FileNotFoundError:
        return [f"cluster.vault.ca: there is no file {ca} (cluster.vault.ca, VAULT_CACERT)"]
    except OSError:
        return []  # it cannot be reached from here now: whoever needs it says so
    return []


def objections_of_reach(cluster: settings.Cluster, address: str) -> list[str]:
    """Whether servers elsewhere are told to look for Vault on their own loopback, and would not start."""
    elsewhere = [server.name for server in cluster.servers if server.kind != "local"]
    if cluster.vault.address_from_servers or not elsewhere or urlsplit(address).hostname not in LOOPBACK:
        return []
    where = f"vault:address {address} is this machine's own, and {', '.join(elsewhere)} would not find it on theirs"
    return [f"cluster.vault.addressFromServers: missing; {where}: give the URL by which the servers reach it"]


def objections_of_mount(vault: VaultAddress, cluster: settings.Cluster, mount: str, name: str) -> list[str]:
    """A mount that is called somebody else's leaves the state; of a disposable stack, it would be removed with its keys."""
    if not cluster.vault.existing or not cluster.disposable or not vault.made_for(mount, name):
        return []
    why = "was made by this stack, which is disposable and would remove it with its keys"
    return [f'cluster.vault.existing: "{mount}" {why}: say disposable: false and run `up` first']


def objections_of_keys(cluster: settings.Cluster, primary: Site, mount: str, *, in_force: bool) -> list[str]:
    """What the keys of the running primary have against the stack file: without them its data cannot be read. A mount that is
    renamed keeps its keys, but a standby that is down would look for them under the old name, and never start."""
    try:
        with hosts.host(primary.address).connect(primary.data, cluster.database) as server:
            used = server.execute(
                "SELECT DISTINCT options->>'mountPath' FROM pg_tde_list_all_global_key_providers() "
                "WHERE id IN (SELECT provider_id FROM pg_tde_server_key_info()) "
                "OR id IN (SELECT provider_id FROM pg_tde_default_key_info())"
            ).fetchall()
    except (Unavailable, psycopg.Error):
        return []  # it is not there yet, or has no pg_tde
    if used and not in_force:
        why = "the running cluster is encrypted, and without pg_tde its tables can no longer be read"
        return [f"cluster.encryption: {why}: set it back. To have the data in clear, copy it into a new cluster"]
    return [
        f'cluster.vault.mount: the keys of the running cluster are in "{found}" and stay there: set it back'
        for (found,) in used
        if found != mount
    ]


def _listens(host: Host, site: Site, stack: str) -> str | None:
    """Which server of this stack has the port now, as the lock file of its socket says."""
    sockets = PurePosixPath(site.parameters.get("unix_socket_directories", ""))
    lock = (host.read(sockets / f".s.PGSQL.{site.port}.lock") or b"").decode(errors="replace").splitlines()
    found = marker(host, PurePosixPath(lock[1])) if len(lock) > 1 else {}
    return found.get("name") if found.get("stack") == stack else None


def _taken(host: Host, data: PurePosixPath, listen: list[str], port: int) -> str | None:
    """The address on which something else listens on `port`."""
    running = host.postmaster(data)
    if running and running.port == port:
        return None
    for address in listen:
        name = {"*": "0.0.0.0", "localhost": "127.0.0.1"}.get(address, address)  # noqa: S104 - asked, not opened
        family = socket.AF_INET6 if ":" in name else socket.AF_INET
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((name, port))
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    return name
    return None
