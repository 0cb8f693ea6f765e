"""How a standby reaches the primary: the same for its base backup and for streaming."""

from psycopg.conninfo import make_conninfo
from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel


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

    def conninfo(self, application_name: str) -> str:
        """A libpq connection string for a physical replication connection."""
        return make_conninfo(
            host=self.host,
            port=self.port,
            user=self.role,
            passfile=self.passfile,
            sslmode=self.tls,
            sslrootcert=self.root_certificate,
            application_name=application_name,
        )


def passfile(role: str, password: str) -> bytes:
    """One pgpass line for replication connections of `role` (PostgreSQL documentation, *The Password File*)."""
    fields = (role, password)
    return (
        "*:*:replication:" + ":".join(field.replace("\\", r"\\").replace(":", r"\:") for field in fields) + "\n"
    ).encode()
