"""What pg_hba.conf holds: its rules as the server reads them, and its lines."""

import re
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

from tde_replication.postgres.session import Session

KEYWORDS = {"all", "sameuser", "samerole", "samegroup", "replication"}


@dataclass(frozen=True)
class Line:
    """One row of pg_hba_file_rules."""

    rule: int
    file: str
    number: int
    type: str
    databases: list[str]
    users: list[str]
    address: str
    method: str
    """With options, which may hold a password (ldapbindpasswd, radiussecrets): "ldap with options"."""

    def __str__(self) -> str:
        return f"{self.type} replication {','.join(self.users)} {self.address} {self.method}"


def quoted(name: str) -> str:
    """A role or database as pg_hba.conf holds it."""
    if re.fullmatch(r"[a-z_][a-z0-9_]*", name) and name not in KEYWORDS:
        return name
    return '"' + name.replace('"', '""') + '"'


def replication_rules(server: Session) -> list[Line]:
    """Every rule for replication connections over TCP, in the order in which the server tries them."""
    rows = server.rows(
        "SELECT rule_number, file_name, line_number, type, database, user_name, address, netmask, auth_method, options "
        "FROM pg_hba_file_rules WHERE error IS NULL AND 'replication' = ANY(database) AND type LIKE 'host%' ORDER BY rule_number"
    )
    return [
        Line(
            rule,
            file,
            number,
            type_,
            databases,
            users,
            cidr(address, netmask),
            f"{method} with options" if options else method,
        )
        for rule, file, number, type_, databases, users, address, netmask, method, options in rows
    ]


def same_address(one: str, other: str) -> bool:
    """Whether two spellings (CIDR, host name) mean the same clients."""
    try:
        return ip_network(one, strict=False) == ip_network(other, strict=False)
    except ValueError:
        return one.lower() == other.lower()


def cidr(address: str, netmask: str | None) -> str:
    if netmask is None:
        return address
    return f"{address}/{int(ip_address(netmask)).bit_count()}"


def first_rule(lines: list[bytes]) -> int:
    """The index of the first line that is no comment; a backslash at its end carries a comment on into the next line."""
    in_comment = False
    for index, line in enumerate(lines):
        text = line.strip()
        in_comment = in_comment or text.startswith(b"#")
        if text and not in_comment:
            return index
        in_comment = in_comment and line.rstrip(b"\r\n").endswith(b"\\")
    return len(lines)


def take_out(lines: list[bytes], number: int) -> None:
    """Remove the rule that starts at line `number` (from 1), with its continuation lines."""
    while lines.pop(number - 1).rstrip(b"\r\n").endswith(b"\\") and number <= len(lines):
        pass
