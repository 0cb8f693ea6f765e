"""A small file that a server reads: its Vault token, the replication role's pgpass line, a CA certificate."""

import hmac
from pathlib import PurePosixPath
from typing import ClassVar, Self

from tde_replication.errors import Conflict, Unavailable, UserError
from tde_replication.postgres.resource import OnHost
from tde_replication.reconciler import Secret

SUFFIXES = TOKEN, CA, PASSFILE = ".vault-token", ".vault-ca.pem", ".pgpass"
"""How the names of the files beside a data directory end, which begin with the name of the cluster."""
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
        del live
        return self.create()

    def delete(self) -> None:
        found = self.machine.status(self._path)
        if found is None or found.kind != "directory":  # we did not make a directory in its place
            self.machine.remove(self._path)


def beside(path: PurePosixPath) -> list[PurePosixPath]:
    """The files of one server, of which `path` is one."""
    cluster = next((path.name.removesuffix(one) for one in SUFFIXES if path.name.endswith(one)), None)
    return [path] if cluster is None else [path.with_name(f"{cluster}{one}") for one in SUFFIXES]
