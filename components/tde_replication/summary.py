"""What a person reads first: the cluster in a few lines, and as outputs. Nothing in it changes by itself."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tde_replication.postgres.expiry import minute


@dataclass(frozen=True)
class Line:
    """One server; `slot` is None for the primary."""

    name: str
    host: Any
    replication_host: str
    port: int
    data_directory: str
    slot: str | None
    upstream: str = ""
    """The standby that has the slot; empty: the primary."""

    @property
    def output(self) -> dict[str, Any]:
        common = {"name": self.name, "host": self.host, "port": self.port, "dataDirectory": self.data_directory}
        return common | ({"slot": self.slot, "state": "streaming"} if self.slot else {"state": "running"})


def summary(stack: str, servers: Sequence[Line], wal_cap: str, not_encrypted: str, expires: str | None) -> str:
    """`not_encrypted` is the reason why; empty where pg_tde is in force. `expires`: the time, in ISO 8601; None: never."""
    standbys = len(servers) - 1
    count = "no standby" if not standbys else f"{standbys} standby{'s' if standbys > 1 else ''}, streaming"
    state = f"NOT ENCRYPTED: {not_encrypted}" if not_encrypted else "encrypted by pg_tde"
    width = max(len(server.name) for server in servers)
    roles = ("standby" if server.slot else "primary" for server in servers)
    lines = [f"{stack}: 1 primary, {count}          {state}"]
    for server, role in zip(servers, roles, strict=True):
        where = f" on {server.upstream}" if server.upstream else ""
        slot = f"   slot {server.slot}{where} (holds back at most {wal_cap} of WAL)" if server.slot else ""
        lines.append(f"  {server.name:<{width}}  {role}  {server.replication_host}:{server.port}{slot}")
    if expires:
        lines.append(f"  expires {minute(datetime.fromisoformat(expires))}: after that, make reap destroys it")
    return "\n".join(lines)
