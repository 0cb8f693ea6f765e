"""What a stack file may have this run reach: decided by a list outside of the file, for whoever previews a stranger's.

TDE_REPLICATION_ALLOW holds words such as ``ssh:*.example.net``. Where it is not set, a stack file is its reader's own, and
nothing is kept from it; where it is set, also to nothing, only what it lists is reached. Needs the standard library alone.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tde_replication.placeholders import is_placeholder

if TYPE_CHECKING:
    from tde_replication.settings import Cluster, Server

VARIABLE = "TDE_REPLICATION_ALLOW"
KINDS = ("local", "ssh", "docker", "file", "vault", "config", "secrets", "environment")
KEYS = ("config", "encryptionsalt", "encryptedkey", "secretsprovider", "environment")
"""What Pulumi reads of a stack file, whatever it is written like: it takes ``Environment`` for ``environment``."""
INLINE = "inline"
"""An environment that has no name: the stack file holds all of it."""
OWN = re.compile(r"tde-replication:.*|pulumi:.*|vault:(address|token)")
"""Keys of a stack file's configuration that this project reads, or that lead nowhere: the address and token of the Vault have
rules of their own (`vault.address`)."""


@dataclass(frozen=True)
class Allowed:
    """The words of one list."""

    words: tuple[str, ...]

    def has(self, kind: str, what: str) -> bool:
        """In a pattern, `*` stands for any text."""
        patterns = [pattern for known, _, pattern in (word.partition(":") for word in self.words) if known == kind]
        return any(not pattern or fnmatchcase(what, pattern) for pattern in patterns)

    def mistakes(self) -> list[str]:
        wrong = [word for word in self.words if word.partition(":")[0] not in KINDS]
        return [f"{VARIABLE}: {word!r} must begin with one of {', '.join(KINDS)}" for word in wrong]


def allowed(environ: Mapping[str, str]) -> Allowed | None:
    """None: everything is."""
    return Allowed(tuple(environ[VARIABLE].split())) if VARIABLE in environ else None


def mistakes(cluster: "Cluster", root: Path, environ: Mapping[str, str]) -> list[str]:
    """What of it this run must not reach; `root` is the project, whose files are the stack file's own. Addresses that are not
    known yet are looked at once they are."""
    by = allowed(environ)
    if by is None:
        return []
    wanted = [
        *_files(root, {"cluster.vault.ca": cluster.vault.ca}),
        *(one for server in cluster.servers.values() for one in _of_server(server, root)),
    ]
    if url := cluster.vault.address_from_servers:
        wanted.append(("cluster.vault.addressFromServers", "vault", url))
    refused = (_sentence(place, kind, what) for place, kind, what in wanted if not by.has(kind, what))
    return [*by.mistakes(), *dict.fromkeys(refused)]


def configuration(keys: Collection[str], environ: Mapping[str, str]) -> list[str]:
    """The same of the configuration of providers, some of which would be led elsewhere by it (``docker:host``)."""
    by = allowed(environ)
    others = [key for key in sorted(keys) if not OWN.fullmatch(key)]
    return [_sentence(key, "config", key) for key in others if by is not None and not by.has("config", key)]


def of_pulumi(document: Mapping[str, object], environ: Mapping[str, str]) -> list[str]:
    """The same of what Pulumi itself obeys in a stack file before any program runs: what decrypts it (``secretsprovider``), and
    environments (``environment``), whose variables would lead this run elsewhere. A key that nobody knows is refused."""
    by = allowed(environ)
    if by is None:
        return []
    wanted = []
    if (provider := str(document.get("secretsprovider") or "")) not in {"", "passphrase", "default"}:
        wanted.append(("secrets", "secretsprovider", provider))
    if (opened := document.get("environment")) is not None:
        names = opened if isinstance(opened, list) else [INLINE]
        wanted += [("environment", "environment", one if isinstance(one, str) else INLINE) for one in names]
    refused = [_sentence(place, kind, what) for kind, place, what in wanted if not by.has(kind, what)]
    unknown = [
        f"{key}: not a key of a stack file: {VARIABLE} is set, so it is refused" for key in document if key not in KEYS
    ]
    return [*refused, *unknown]


def _of_server(server: "Server", root: Path) -> Iterator[tuple[str, str, str]]:
    """Place, kind and name of what its host reaches."""
    host, place = server.host, f"{server.place}.host"
    if isinstance(host, str):
        yield place, "local", server.name
    elif server.kind == "docker":
        yield place, "docker", str(getattr(host, "docker", ""))
    else:
        names = [str(getattr(host, "machine", "")), *(urlsplit(f"ssh://{one}").hostname or one for one in _hops(host))]
        yield from ((place, "ssh", name.lower()) for name in names if not is_placeholder(name))
        packages = str(getattr(host, "packages", "none"))
        paths = {f"{place}.{key}": getattr(host, name, None) for key, name in _PATHS.items()}
        paths[f"{place}.packages"] = None if packages in {"percona", "none"} else packages
        yield from _files(root, paths)


_PATHS = {"key": "key", "certificate": "certificate", "knownHosts": "known_hosts"}


def _hops(host: object) -> tuple[str, ...]:
    return tuple(getattr(host, "hops", ()))


def _files(root: Path, paths: Mapping[str, str | None]) -> Iterator[tuple[str, str, str]]:
    """Those of this machine that are not the project's own, by whatever links lead there."""
    for place, path in paths.items():
        if path is None:
            continue
        real = (root / Path(path).expanduser()).resolve()
        if not real.is_relative_to(root.resolve()) or {".git", ".local"} & set(real.relative_to(root.resolve()).parts):
            yield place, "file", str(real)


def _sentence(place: str, kind: str, what: str) -> str:
    word = kind if kind == "local" else f"{kind}:{what}"
    return f"{place}: this run may not reach it: {VARIABLE} does not list {word}"
