"""A small file that a server reads: its Vault token, the replication role's pgpass line, a CA certificate."""

import hmac
import re
from pathlib import PurePosixPath
from typing import ClassVar, Self

from tde_replication.errors import Conflict, Unavailable, UserError
from tde_replication.hosts.base import Host
from tde_replication.postgres.opening import why_closed
from tde_replication.postgres.providers_on_disk import providers
from tde_replication.postgres.resource import OnHost
from tde_replication.reconciler import Secret
from tde_replication.waiting import until

TOKEN, CA, PASSFILE = "-token", "-ca.pem", ".pgpass"
"""How the names of the files beside a data directory end. They begin with the name of the cluster; what pg_tde opens has that of
the key provider next: `orders.vault-token`."""
OF_VAULT = re.compile(rf"(.+)\.([a-z0-9_-]+?)(?:{re.escape(TOKEN)}|{re.escape(CA)})")
REPLAY_DEADLINE = 60.0
"""Seconds for a standby to replay that a key provider is gone."""
INSTEAD = {"directory": "a directory", "other": "a link or a device"}


class HostFile(OnHost):
    """Its content is never shown: `content_matches` says whether the file holds what is declared."""

    path: str
    content: Secret
    mode: str = "0600"
    owner: str = "the server's account"
    """"the server's account", or the name of whose it has become."""
    content_matches: bool = True

    replaced_by: ClassVar[frozenset[str]] = frozenset({"host", "path"})
    delete_before_replace: ClassVar[bool] = False  # the server may run with the old one until its own replacement
    secrets: ClassVar[frozenset[str]] = frozenset({"content"})

    @property
    def identity(self) -> str:
        return self.path

    @property
    def _path(self) -> PurePosixPath:
        return PurePosixPath(self.path)

    def read(self) -> Self | None:
        together = beside(self._path)
        self.machine.look(statuses=together, contents=together)
        found = self.machine.status(self._path)
        if found is None:
            return None
        if found.kind != "file":
            return self.replace(content_matches=False, owner=INSTEAD[found.kind])
        try:
            content = self.machine.read(self._path) or b""
        except Unavailable:
            raise
        except UserError:
            content = b""  # the server cannot read it either: it is another owner's
        return self.replace(
            mode=f"{found.mode:04o}",
            owner="the server's account" if found.owner == self.machine.account else found.owner,
            content_matches=hmac.compare_digest(content, self.content.get_secret_value().encode()),
        )

    def create(self) -> Self:
        found = self.machine.status(self._path)
        if found and found.kind != "file":
            raise Conflict(f"{self.path} is {INSTEAD[found.kind]}: it is left as it is. Move it away")
        self.machine.write(self._path, self.content.get_secret_value().encode(), mode=int(self.mode, 8))
        return self

    def update(self, live: Self) -> Self:
        """What a server opens its keys with is put back where it no longer can: it could not start again."""
        opened = opened_by(self.machine, self._path) if OF_VAULT.fullmatch(self._path.name) else None
        if opened is None or live.owner != self.owner:
            return self.create()
        data = PurePosixPath(opened[0])
        former, could = self.machine.read(self._path), not why_closed(self.machine, data)
        self.create()
        if former is not None and could and (why := why_closed(self.machine, data)):
            self.machine.write(self._path, former, mode=int(live.mode, 8))
            raise UserError(
                f"{self.path} was put back, because with the new one {why.rstrip('.')}: the server could not start again"
            )
        return self

    def delete(self) -> None:
        if OF_VAULT.fullmatch(self._path.name):
            self._refuse_while_opened()
        found = self.machine.status(self._path)
        if found is None or found.kind != "directory":  # we did not make a directory in its place
            self.machine.remove(self._path)

    def _refuse_while_opened(self) -> None:
        """pg_tde shows nothing any more, and no server starts, where the file of any key provider is missing: also of one that no
        key uses. A standby has a provider until it has replayed that it was deleted."""
        if not until(lambda: not opened_by(self.machine, self._path), seconds=REPLAY_DEADLINE):
            data, provider = opened_by(self.machine, self._path) or ("", "")
            raise UserError(
                f"{self.path} stays: the server in {data} still has the key provider {provider}, which opens it. A standby must "
                "first replay that the provider was deleted (see its applyDelay), and a primary keeps it while a key of it is "
                "set. Run `up` again after that"
            )


def token_file(cluster: str, provider: str) -> str:
    return f"{cluster}.{provider}{TOKEN}"


def ca_file(cluster: str, provider: str) -> str:
    return f"{cluster}.{provider}{CA}"


def is_token_of(cluster: str, name: str) -> bool:
    """Whether this is the name of a token file of the cluster, for any key provider."""
    found = OF_VAULT.fullmatch(name)
    return found is not None and found[1] == cluster and name.endswith(TOKEN)


def beside(path: PurePosixPath) -> list[PurePosixPath]:
    """The files of one server, of which `path` is one."""
    if found := OF_VAULT.fullmatch(path.name):
        cluster, provider = found.groups()
    elif path.name.endswith(PASSFILE):
        cluster, provider = path.name.removesuffix(PASSFILE), "vault"
    else:
        return [path]
    names = token_file(cluster, provider), ca_file(cluster, provider), f"{cluster}{PASSFILE}"
    return [path.with_name(name) for name in names]


def opened_by(host: Host, path: PurePosixPath) -> tuple[str, str] | None:
    """The data directory of a running server beside the file, and its key provider that opens it; None: there is no such."""
    for name in host.listing(path.parent):
        data = path.with_name(name)
        provider = next((one.name for one in providers(host, data) if path.name in one.files), None)
        if provider and host.postmaster(data):
            return str(data), provider
    return None
