"""How a standby reaches the primary: the same for its base backup and for streaming."""

from collections.abc import Sequence

from psycopg.conninfo import make_conninfo
from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from tde_replication.values import TLS_REQUIRED

KEEPALIVE: dict[str, str | int] = {
    "keepalives_idle": 60,
    "keepalives_interval": 10,
    "keepalives_count": 6,
    "options": "-c tcp_user_timeout=120000",
}
"""A network that is cut without a word ends a clone after two minutes, not after the kernel's two hours; and on the primary after
as many, not a quarter of an hour: until then a backup seems to run, and no key is changed."""


class Upstream(BaseModel):
    """The primary's address as standbys see it. The password is in `passfile`, on the standby, and nowhere else."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True)

    host: str
    port: int
    role: str
    tls: str
    """libpq's sslmode."""
    root_certificate: str | None = None
    """The file of the CA that signed the primary's certificate, on the standby."""
    passfile: str

    def conninfo(self, application_name: str, database: str | None = None) -> str:
        """A libpq connection string for a physical replication connection; `database` is where slots are synchronized from.

        Whoever has taken the primary's port gets no password in clear, and where TLS is required, nobody comes between.
        """
        return make_conninfo(
            host=self.host,
            port=self.port,
            user=self.role,
            passfile=self.passfile,
            sslmode=self.tls,
            sslrootcert=self.root_certificate,
            require_auth="scram-sha-256",
            channel_binding="require" if self.tls in TLS_REQUIRED else None,
            dbname=database,
            application_name=application_name,
        )


def passfile(role: str, password: str, databases: Sequence[str] = ()) -> bytes:
    """A pgpass line for replication connections of `role`, and one for each database that it logs in to (PostgreSQL
    documentation, *The Password File*)."""
    lines = (
        ":".join(["*", "*", *(field.replace("\\", r"\\").replace(":", r"\:") for field in (database, role, password))])
        for database in ("replication", *databases)
    )
    return "".join(f"{line}\n" for line in lines).encode()
