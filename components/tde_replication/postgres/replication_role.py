"""The role that standbys log in as: ``CREATE ROLE … WITH REPLICATION LOGIN``, and nothing else."""

import base64
import hashlib
import hmac
import json
import re
from typing import ClassVar, Self

from psycopg import sql
from pydantic import SecretStr

from tde_replication.errors import Conflict
from tde_replication.postgres.on_primary import OnPrimary
from tde_replication.postgres.role_removal import drop_role
from tde_replication.postgres.session import Session, session
from tde_replication.reconciler import Secret

ATTRIBUTES = {
    "rolsuper": "SUPERUSER",
    "rolcreaterole": "CREATEROLE",
    "rolcreatedb": "CREATEDB",
    "rolbypassrls": "BYPASSRLS",
    "rolcanlogin": "LOGIN",
    "rolreplication": "REPLICATION",
}


class ReplicationRole(OnPrimary):
    """The password is compared with the SCRAM verifier that the server holds: one changed by hand is found."""

    role: str
    password: Secret
    password_matches: bool = True
    attributes: list[str] = ["LOGIN", "REPLICATION"]
    connection_limit: int = -1
    valid_until: str = "infinity"
    member_of: list[str] = []
    """Roles whose rights it has: none is wanted."""
    stack: str = ""
    """Whose it is: written into the role's comment, so that no other stack takes it for its own."""
    ours: bool = True
    """False for a role that was here before this stack: destroy gives it back as it was."""
    found: Secret | None = None
    """Its attributes, limit, expiry and verifier then, as JSON."""

    replaced_by: ClassVar[frozenset[str]] = OnPrimary.replaced_by | {"role"}
    computed: ClassVar[frozenset[str]] = frozenset({"ours", "found"})
    secrets: ClassVar[frozenset[str]] = frozenset({"password", "found"})
    create_only: ClassVar[frozenset[str]] = OnPrimary.create_only | frozenset({"stack"})

    @property
    def identity(self) -> str:
        return self.role

    @property
    def _purpose(self) -> str:
        return f"replication role {self.role}"

    def read(self) -> Self | None:
        with session(self, self._purpose) as server:
            return self._live(server)

    def _live(self, server: Session) -> Self | None:
        row = server.row(
            "SELECT rolsuper, rolcreaterole, rolcreatedb, rolbypassrls, rolcanlogin, rolreplication, rolconnlimit, "
            "coalesce(rolvaliduntil::text, 'infinity'), rolpassword, "
            "ARRAY(SELECT DISTINCT pg_get_userbyid(roleid)::text FROM pg_auth_members WHERE member = r.oid ORDER BY 1) "
            "FROM pg_authid r WHERE rolname = %s",
            [self.role],
        )
        if row is None:
            return None
        *flags, limit, valid_until, verifier, member_of = row
        return self.replace(
            attributes=sorted(name for name, set_ in zip(ATTRIBUTES.values(), flags, strict=True) if set_),
            connection_limit=limit,
            valid_until=valid_until,
            member_of=member_of,
            password_matches=verifies(self.password.get_secret_value(), verifier),
        )

    def create(self) -> Self:
        with session(self, self._purpose) as server:
            found = self._live(server)
            if found is None:
                return self._make(server)
            too_much = set(found.attributes) - set(self.attributes) - {"LOGIN", "REPLICATION"}
            if too_much or found.member_of:
                has = ", ".join([*sorted(too_much), *(f"member of {name}" for name in found.member_of)])
                raise Conflict(
                    f"{self._purpose}: a role of this name is there already, and can do more than replicate ({has}): it is "
                    "left as it is. Name another role in replication.role"
                )
            return self._take_over(server, found)

    def _take_over(self, server: Session, found: Self) -> Self:
        """Bring one that is there to what is declared; what it was is kept, where nobody says that this stack made it."""
        maker = self._maker(server)
        if maker not in {self.stack, None}:
            raise Conflict(
                f"{self._purpose}: it belongs to another stack ({maker}): it is left as it is. Name another role in "
                "replication.role"
            )
        verifier = server.value("SELECT rolpassword FROM pg_authid WHERE rolname = %s", [self.role])
        before = [found.attributes, found.connection_limit, found.valid_until, verifier]
        self._alter(server, found)
        return (
            self.replace(ours=True)
            if maker is not None
            else self.replace(ours=False, found=SecretStr(json.dumps(before)))
        )

    def _make(self, server: Session) -> Self:
        with server.connection.transaction():
            _quiet(server)
            server.rows(sql.SQL("CREATE ROLE {} NOLOGIN").format(sql.Identifier(self.role)))
            server.rows(
                sql.SQL("COMMENT ON ROLE {} IS {}").format(
                    sql.Identifier(self.role), sql.Literal(COMMENT.format(f" for {self.stack}"))
                )
            )
            made = self.replace(attributes=[], password_matches=False, connection_limit=-1, valid_until="infinity")
            self._alter(server, made)
        return self.replace(ours=True)

    def update(self, live: Self) -> Self:
        with session(self, self._purpose) as server:
            if self.ours and self._maker(server) != self.stack:  # ours was dropped, and somebody else made this one
                return self._take_over(server, live)
            self._alter(server, live)
        return self

    def _alter(self, server: Session, live: Self) -> None:
        """One ALTER ROLE for all that differs, with the password as a verifier made here: no log gets to see it."""
        wanted = set(self.attributes)
        options: list[sql.Composable] = [
            sql.SQL(name if name in wanted else f"NO{name}")
            for name in ATTRIBUTES.values()
            if (name in wanted) != (name in live.attributes)
        ]
        if live.connection_limit != self.connection_limit:
            options.append(sql.SQL("CONNECTION LIMIT {}").format(sql.Literal(self.connection_limit)))
        if live.valid_until != self.valid_until:
            options.append(sql.SQL("VALID UNTIL {}").format(sql.Literal(self.valid_until)))
        password = self.password.get_secret_value()
        if not live.password_matches or live.password != self.password:
            verifier = server.connection.pgconn.encrypt_password(
                password.encode(), self.role.encode(), b"scram-sha-256"
            ).decode()
            options.append(sql.SQL("PASSWORD {}").format(sql.Literal(verifier)))
        with server.connection.transaction():
            _quiet(server)
            if options:
                role = sql.Identifier(self.role)
                server.rows(sql.SQL("ALTER ROLE {} WITH {}").format(role, sql.SQL(" ").join(options)))
            for granted in _memberships(server, self.role):
                revoke = sql.SQL("REVOKE {} FROM {} GRANTED BY {} CASCADE")
                server.rows(revoke.format(*map(sql.Identifier, granted)))

    @property
    def maker(self) -> str | None:
        """The stack that made it. None: it does not exist, or somebody else made it."""
        with session(self, self._purpose) as server:
            return self._maker(server)

    def _maker(self, server: Session) -> str | None:
        query = "SELECT shobj_description(oid, 'pg_authid') FROM pg_authid WHERE rolname = %s"
        comment = str(server.value(query, [self.role]))
        if comment == COMMENT.format(""):
            return self.stack  # made before comments said whose
        found = re.fullmatch(COMMENT.format(" for (.*)"), comment)
        return found[1] if found else None

    def delete(self) -> None:
        with session(self, self._purpose) as server:
            if not self.ours:
                self._give_back(server)
                return
            drop_role(server, self.role, lambda database: session(self, self._purpose, database))

    def _give_back(self, server: Session) -> None:
        if not self.found or self._live(server) is None:
            return
        attributes, limit, valid_until, verifier = json.loads(self.found.get_secret_value())
        options = [sql.SQL(name if name in attributes else f"NO{name}") for name in ATTRIBUTES.values()]
        with server.connection.transaction():
            _quiet(server)
            server.rows(
                sql.SQL("ALTER ROLE {} WITH {} CONNECTION LIMIT {} VALID UNTIL {} PASSWORD {}").format(
                    sql.Identifier(self.role),
                    sql.SQL(" ").join(options),
                    *(sql.Literal(value) for value in (limit, valid_until, verifier)),
                )
            )


COMMENT = "made by tde-replication{}: standbys log in as this role"


def _memberships(server: Session, role: str) -> list[tuple[str, str, str]]:
    """The roles that `role` is a member of, itself, and who granted each: another's grant is not revoked by a plain REVOKE."""
    query = (
        "SELECT pg_get_userbyid(roleid)::text, pg_get_userbyid(member)::text, pg_get_userbyid(grantor)::text "
        "FROM pg_auth_members WHERE member = (SELECT oid FROM pg_authid WHERE rolname = %s)"
    )
    return [(granted, member, grantor) for granted, member, grantor in server.rows(query, [role])]


def _quiet(server: Session) -> None:
    """Keep the verifier out of the server's log for this transaction, whatever is set (as Patroni does)."""
    server.rows(
        "SELECT set_config('log_statement', 'none', true), set_config('log_min_duration_statement', '-1', true)"
    )
    server.rows(
        "SELECT set_config('log_min_error_statement', 'panic', true), set_config('log_min_duration_sample', '-1', true)"
    )


def verifies(password: str, verifier: str | None) -> bool:
    """Whether a stored SCRAM-SHA-256 verifier is that of `password` (RFC 5803; pg_authid.rolpassword)."""
    match = re.fullmatch(r"SCRAM-SHA-256\$(\d+):([^$]+)\$([^:]+):(.+)", verifier or "")
    if not match:
        return False
    iterations, salt, stored, _ = match.groups()
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), base64.b64decode(salt), int(iterations))
    client = hmac.digest(salted, b"Client Key", "sha256")
    return hmac.compare_digest(hashlib.sha256(client).digest(), base64.b64decode(stored))
