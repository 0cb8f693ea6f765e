"""A server's token: periodic, without a parent, with the policy of its kind and no other."""

from typing import ClassVar, Self

from tde_replication.errors import UserError
from tde_replication.progress import note
from tde_replication.reconciler import Secret
from tde_replication.vault.client import Rejected
from tde_replication.vault.resource import InVault

HOUR = 3600


class Token(InVault):
    """Named after its server. pg_tde never renews its token: whatever reads this one does, in the second half of its period."""

    server: str
    policies: list[str]
    period_hours: int
    accessor: str = ""
    """Its name in Vault, which opens nothing."""
    client_token: Secret | None = None

    replaced_by: ClassVar[frozenset[str]] = InVault.replaced_by | {"server", "policies", "period_hours"}
    delete_before_replace: ClassVar[bool] = False  # the server's file has the new one before the old one is revoked
    computed: ClassVar[frozenset[str]] = frozenset({"accessor", "client_token"})
    secrets: ClassVar[frozenset[str]] = frozenset({"client_token"})

    @property
    def identity(self) -> str:
        return self.accessor

    def live(self) -> Self | None:
        try:
            data = self.client.post("auth/token/lookup-accessor", {"accessor": self.accessor}).get("data")
        except Rejected:  # "invalid accessor": revoked or expired
            return None
        if not isinstance(data, dict):
            return None
        self._renew_in_time(data.get("ttl"))
        period, policies = data.get("period"), data.get("policies")
        return self.replace(
            policies=sorted(map(str, policies)) if isinstance(policies, list) else [],
            period_hours=period // HOUR if isinstance(period, int) else 0,
        )

    def _renew_in_time(self, left: object) -> None:
        if not isinstance(left, int) or left > self.period_hours * HOUR // 2:
            return
        try:
            self.client.post("auth/token/renew-accessor", {"accessor": self.accessor})
        except UserError as why:
            note(f"the Vault token of {self.server} ends in {left // HOUR} hours and was not renewed: {why}")

    def create(self) -> Self:
        made = self.client.post(
            "auth/token/create-orphan",
            {
                "policies": self.policies,
                "period": f"{self.period_hours}h",
                "no_default_policy": True,
                "renewable": True,
                "display_name": self.server,
            },
        ).get("auth")
        if not isinstance(made, dict) or not made.get("client_token") or not made.get("accessor"):
            raise UserError(f"the Vault at {self.address} returned no token for {self.server}: it does not say why")
        return self.model_validate(self.model_dump() | {key: made[key] for key in ("accessor", "client_token")})

    def update(self, live: Self) -> Self:
        """Every field that matters replaces it."""
        return self.replace(accessor=live.accessor, client_token=live.client_token)

    def delete(self) -> None:
        """Revoked; Vault takes an accessor that it does not know as well."""
        self.client.post("auth/token/revoke-accessor", {"accessor": self.accessor})
