"""What lies in the Vault, as Pulumi resources. Names here are in people's stacks: they are kept for ever."""

from pulumi import Output

from tde_replication.adapter import Managed, Provider
from tde_replication.vault import secret, token


class TokenProvider(Provider):
    kind = token.Token


class Token(Managed, module="vault", name="Token"):
    provider = TokenProvider

    @property
    def client_token(self) -> Output[str]:
        return self.output("client_token")


class SecretContentProvider(Provider):
    kind = secret.SecretContent


class SecretContent(Managed, module="vault", name="SecretContent"):
    provider = SecretContentProvider
