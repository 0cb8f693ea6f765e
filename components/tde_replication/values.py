"""Kinds of value in a stack file: what is accepted, and one sentence for what is not."""

import ipaddress
import re
from collections import Counter
from collections.abc import Mapping
from datetime import timedelta
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator

from tde_replication.host_keys import host_keys
from tde_replication.placeholders import is_placeholder
from tde_replication.vault_url import address_mistake

Cipher = Literal["aes_128", "aes_256"]
"""As pg_tde calls them."""
NAME_BYTES = 63
"""PostgreSQL cuts longer identifiers (NAMEDATALEN)."""
TEMPLATE = "template1"
"""The database that others are made of. None can be made as long as somebody is connected to it."""
PORTS = 65535
SLOT_PREFIX = "tde_"
"""What the name of a standby's slot begins with."""

ENFORCE, DEFAULT_METHOD = "pg_tde.enforce_encryption", "default_table_access_method"
DATABASE_SETTINGS = {ENFORCE: "on", DEFAULT_METHOD: "tde_heap"}
"""All parameters that a stack sets for a database."""


def parameter_text(value: Any) -> Any:
    """A parameter's value as PostgreSQL takes it; what can be none is left for the mistake that it is."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value) if isinstance(value, int | float) else value


def slot_name(server: str) -> str:
    """The name of a server's slot: PostgreSQL allows lower-case letters, digits and underscores."""
    return f"{SLOT_PREFIX}{server.replace('-', '_')}"


TLS_REQUIRED = {"require", "verify-ca", "verify-full"}
"""The values of libpq's sslmode that do not go on without TLS."""


def _size(text: str) -> str:
    if text == "-1" or re.fullmatch(r"\d+(kB|MB|GB|TB)", text):
        return text
    units = {"kB": "kilobytes", "MB": "megabytes", "GB": "gigabytes", "TB": "terabytes"}
    raise ValueError(f'"{text}" is not a size (write {_meant(text, units, "64GB")})')


def _meant(text: str, units: Mapping[str, str], example: str) -> str:
    """What was perhaps meant: the number with the unit that its word begins like ("90 days"), or without one, that of the
    example; else the example."""
    found = re.fullmatch(r"\s*([1-9]\d{0,3})\s*([a-z]*)\s*", text, re.ASCII | re.IGNORECASE)
    if not found:
        return example
    word = found[2].lower()
    like = [
        unit for unit, name in units.items() if word and (word == unit.lower() or name.startswith(word.rstrip("s")))
    ]
    unit = example.lstrip("0123456789") if not word else next(iter(like), "")
    return f"{found[1]}{unit}" if unit else example


def _duration(text: str) -> str:
    if not re.fullmatch(r"[1-9]\d{0,3}[mhd]", text):
        meant = _meant(text, {"m": "minutes", "h": "hours", "d": "days"}, "8h")
        raise ValueError(f'"{text}" is not a duration (write {meant}; m, h, d: minutes, hours, days)')
    return text


def length(duration: str) -> timedelta:
    """Of a `Duration`: "8h"."""
    return timedelta(**{{"m": "minutes", "h": "hours", "d": "days"}[duration[-1]]: int(duration[:-1])})


def _delay(text: str) -> str:
    """A time as PostgreSQL writes it."""
    if re.fullmatch(r"[1-9]\d*(ms|s|min|h|d)", text):
        return text
    units = {"ms": "milliseconds", "s": "seconds", "min": "minutes", "h": "hours", "d": "days"}
    raise ValueError(f'"{text}" is not a time (write {_meant(text, units, "1h")})')


def _identifier(text: str) -> str:
    if not text:
        raise ValueError("must not be empty")
    if len(text.encode()) > NAME_BYTES:
        raise ValueError(f'"{text}" is {len(text.encode())} bytes long; PostgreSQL keeps {NAME_BYTES}')
    if not text.isprintable():
        raise ValueError("a name cannot hold line breaks or other unprintable characters")
    return text


def _role(text: str) -> str:
    """A role: its secret in Vault has its name, and may not end up elsewhere there."""
    if "/" in text or text in {".", ".."}:
        raise ValueError(f'"{text}" cannot be the name of its secret in Vault (leave out "/")')
    if text in {"all", "public", "none"} or text.startswith(("+", "@", "pg_")):  # pg_hba_file_rules shows no quotes
        raise ValueError(f'"{text}" has a meaning of its own in PostgreSQL or pg_hba.conf: name another role')
    return _identifier(text)


def _listener(text: str) -> str:
    if not re.fullmatch(r"\*|[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?", text):
        try:
            ipaddress.ip_address(text)
        except ValueError:
            raise ValueError(f'"{text}" is not an address to listen on (write 192.0.2.7, a host name, or *)') from None
    return text


def _namespace(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._~-]+(/[A-Za-z0-9._~-]+)*", text.strip("/")):
        raise ValueError(f'"{text}" is not a namespace of Vault')
    return text.strip("/")


def _label(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", text):
        raise ValueError(f'"{text}" is not a name here (write lower-case letters, digits and hyphens)')
    longest = NAME_BYTES - len(SLOT_PREFIX)
    if len(text) > longest:
        raise ValueError(
            f'"{text}" is {len(text)} characters long; its slot "{SLOT_PREFIX}…" leaves room for {longest}'
        )
    return text


SYSTEM_DIRECTORIES = frozenset({"bin", "boot", "dev", "etc", "lib", "lib32", "lib64", "proc", "sbin", "sys", "usr"})
"""Below / (Filesystem Hierarchy Standard): programs, configuration and the kernel's own files; no data."""


def _data_directory(text: str) -> str:
    """`up` makes, renames and removes this directory, and files beside it."""
    path = PurePosixPath(_absolute(text))
    _, *names = path.parts
    if len(names) < 2:  # noqa: PLR2004 - its parent and itself
        raise ValueError(f'"{path}" lies directly below /, where its token and log would lie too (write /srv/pg/data)')
    if names[0] in SYSTEM_DIRECTORIES and names[:2] != ["dev", "shm"]:
        raise ValueError(f'"{path}" lies in /{names[0]}, which belongs to the operating system (write /srv/pg/data)')
    return str(path)


def _absolute(text: str) -> str:
    path = PurePosixPath(text)
    if not path.is_absolute() or ".." in path.parts or not text.isprintable():
        raise ValueError(f'"{text}" is not an absolute path')
    return str(path)


WIDEST_NETWORK = {4: 8, 6: 16}
"""By IP version, the shortest prefix in pg_hba.conf: no private network is larger (10.0.0.0/8), and 0.0.0.0/0 is the world."""


def _network(text: str) -> str:
    try:
        network = ipaddress.ip_network(text, strict=True)
    except ValueError:
        pass
    else:
        if network.prefixlen < (least := WIDEST_NETWORK[network.version]):
            raise ValueError(
                f'"{text}" would let in far more than one server (write 192.0.2.7/32, or a network of at most /{least})'
            )
        return str(network)
    try:
        loose = ipaddress.ip_network(text, strict=False)
    except ValueError:
        if text.lower() in {"all", "samehost", "samenet"}:  # words of pg_hba.conf, and wider than one server
            raise ValueError(f'"{text}" is more than one server (write 192.0.2.7/32)') from None
        if re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?", text) and not re.fullmatch(r"[\d.]+", text):
            return text
    else:
        raise ValueError(f'"{text}" has bits set right of its mask (write {loose})')
    raise ValueError(f'"{text}" is neither a network (write 192.0.2.7/32) nor a host name')


def _vault_url(text: str) -> str:
    """A Vault's, as servers are given it: they send their tokens there."""
    if mistake := address_mistake(text.rstrip("/")):
        raise ValueError(mistake)
    return text.rstrip("/")


def _vault_path(text: str) -> str:
    """A mount or key name: pg_tde does not escape them in URLs."""
    text = text.strip("/")
    if not re.fullmatch(r"[A-Za-z0-9._~-]+(/[A-Za-z0-9._~-]+)*", text) or ".." in text.split("/"):
        raise ValueError(f'"{text}" cannot be used in a Vault path (write letters, digits, ".", "_", "-" and "/")')
    return text


def distinct(values: list[str]) -> list[str]:
    for value, times in Counter(values).items():
        if times > 1:
            raise ValueError(f'"{value}" is used twice')
    return values


def _hop(text: str) -> str:
    """A machine as ssh names it, with a user and a port where they are not the usual ones."""
    try:
        url = urlsplit(f"ssh://{text}")
        good = bool(url.hostname) and url.port != 0 and not re.search(r"[\s/?#'\"\\%]", text) and url.password is None
    except ValueError:
        good = False
    if not good or text.startswith("-"):
        raise ValueError(f'"{text}" is not a host (write ops@bastion.example.net:22)')
    return text


def _machine(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        pass
    if not re.fullmatch(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?", text):
        raise ValueError(
            f'"{text}" is not a host name or address (write db1.example.net; user and port have keys of their own)'
        )
    return text


def _account(text: str) -> str:
    if not re.fullmatch(r"[a-z_][a-z0-9_.-]*", text):
        raise ValueError(f'"{text}" is not the name of an account')
    return text


def _file(text: str) -> str:
    if not text or text.startswith("-") or not text.isprintable() or '"' in text:
        raise ValueError(f'"{text}" is not the path of a file')
    return text


def _packages(text: str) -> str:
    if text not in {"percona", "none"} and "/" not in text:
        raise ValueError(f'"{text}" is neither percona, none, nor a directory (write ./{text})')
    return _file(text)


def _host_keys(text: str) -> str:
    """One or several, a line each."""
    return text if is_placeholder(text) else "\n".join(host_keys(text))


Size = Annotated[str, AfterValidator(_size)]
Delay = Annotated[str, AfterValidator(_delay)]
Duration = Annotated[str, AfterValidator(_duration)]
Packages = Annotated[str, AfterValidator(_packages)]
Hop = Annotated[str, AfterValidator(_hop)]
Machine = Annotated[str, AfterValidator(_machine)]
HostKeys = Annotated[str, AfterValidator(_host_keys)]
AccountName = Annotated[str, AfterValidator(_account)]
FilePath = Annotated[str, AfterValidator(_file)]
Role = Annotated[str, AfterValidator(_role)]


def _port(value: int) -> int:
    if not 1 <= value <= PORTS:
        raise ValueError(f"{value} is not a port (1 to {PORTS})")
    return value


Listener = Annotated[str, AfterValidator(_listener)]
Namespace = Annotated[str, AfterValidator(_namespace)]
Identifier = Annotated[str, AfterValidator(_identifier)]
Label = Annotated[str, AfterValidator(_label)]
DataPath = Annotated[str, AfterValidator(_data_directory)]
AbsolutePath = Annotated[str, AfterValidator(_absolute)]
Network = Annotated[str, AfterValidator(_network)]
VaultURL = Annotated[str, AfterValidator(_vault_url)]
VaultPath = Annotated[str, AfterValidator(_vault_path)]
Port = Annotated[int, AfterValidator(_port)]
