"""What the Vault has against a stack, looked up before anything is declared: all of it at once."""

from tde_replication import settings
from tde_replication.errors import Unavailable, UserError
from tde_replication.unasked import could_not_ask
from tde_replication.vault.address import CREDENTIALS, VaultAddress, description
from tde_replication.vault.client import Client, Denied
from tde_replication.vault.names import VaultNames, owner
from tde_replication.vault_url import on_loopback


def check_vault(vault: VaultAddress, names: VaultNames) -> list[str]:
    """Mistakes that only the Vault can tell; none where it does not answer, which `vault.configuration` says."""
    client = vault.client
    try:
        if lacking := _missing_rights(client, names):
            return [lacking]
        mount = vault.mount(names.mount)
        if mount is None:
            found = [_no_mount(names.mount)] if names.shared else []
            return found + _of_policies(client, names, managed=False)
        found = _of_mount(client, names.mount, mount)
        managed = not names.shared and _is_managed(vault, names, mount)
        if not found and not names.shared and not managed:
            found = [_foreign(names.mount, str(mount.get("description") or "without a description"))]
        return found or _of_policies(client, names, managed=managed)
    except Unavailable as why:
        could_not_ask("whether the Vault accepts the stack", why)
        return []
    except UserError as problem:
        return [f"vault:address: {problem}"]


def _missing_rights(client: Client, names: VaultNames) -> str | None:
    """All that the caller's token is not allowed, in one sentence."""
    wanted = names.rights()
    try:
        answer = client.post("sys/capabilities-self", {"paths": list(wanted)})
    except Denied:
        return f"vault:token: the Vault at {client.address} does not know this token: it expired, or is another Vault's"
    held = answer.get("data") or {}
    lacking = []
    for path, capabilities in wanted.items():
        allowed = held.get(path) if isinstance(held, dict) else None
        if not isinstance(allowed, list) or "root" in allowed:
            continue
        if missing := sorted(capabilities - set(map(str, allowed))):
            lacking.append(f"{path} ({', '.join(missing)})")
    if not lacking:
        return None
    return f"vault:token: its policies do not allow {', '.join(lacking)}: docs/security.md has a policy that does"


def _no_mount(mount: str) -> str:
    return (
        f'cluster.vault.mount: Vault has no mount "{mount}", and vault.existing: true says that it has: make it '
        f"(`vault secrets enable -path={mount} -version=2 kv`), or leave vault.existing out"
    )


def _foreign(mount: str, told: str) -> str:
    return (
        f'cluster.vault.mount: "{mount}" is there already ({told}), and was not made by this stack: name another, or set '
        "vault.existing: true to use it"
    )


def _of_mount(client: Client, path: str, mount: dict[str, object]) -> list[str]:
    """Why keys would not be safe in a mount, or could not be written to it."""
    options = mount.get("options")
    version = options.get("version") if isinstance(options, dict) else None
    if mount.get("type") != "kv" or version != "2":
        kind = f"{mount.get('type')} version {version or 1}" if mount.get("type") == "kv" else str(mount.get("type"))
        return [f'cluster.vault.mount: "{path}" is of type {kind}, and pg_tde needs kv version 2: name another mount']
    config = client.get(f"{path}/config") or {}
    found = []
    if config.get("cas_required"):
        found.append(
            f'cluster.vault.mount: "{path}" has cas_required, and pg_tde, which sends no cas, could not create a key in it: '
            f"`vault write {path}/config cas_required=false`"
        )
    if (after := config.get("delete_version_after")) not in {None, "", "0s"}:
        found.append(
            f'cluster.vault.mount: "{path}" has delete_version_after={after}: keys would vanish then, and the data with them: '
            f"`vault write {path}/config delete_version_after=0s`, or name another mount"
        )
    return found


def _is_managed(vault: VaultAddress, names: VaultNames, mount: dict[str, object]) -> bool:
    """By its description, or, where somebody changed that, by the replication role's secret."""
    told = str(mount.get("description") or "")
    if told.startswith(description("")):
        return told == description(names.name)
    return f"{CREDENTIALS}/" in vault.names(names.mount)


def _of_policies(client: Client, names: VaultNames, *, managed: bool) -> list[str]:
    """pulumi-vault would overwrite a policy of the same name, and remove it in the end; `managed`: the mount that they are named
    after is this stack's."""
    found = []
    for name in map(names.policy, names.servers):
        there = client.get(f"sys/policies/acl/{name}")
        made_for = owner(str(there.get("policy", ""))) if there else None
        if there and made_for != names.stack and not managed:
            whose = f"was made for {made_for}" if made_for else "was not made by this stack"
            found.append(
                f'cluster.vault.mount: Vault has a policy "{name}" that {whose}: it is left as it is. Name another mount, or '
                "remove the policy where nobody needs it"
            )
    return found


def check_vault_from_servers(cluster: settings.Cluster, address: str) -> list[str]:
    """Whether servers elsewhere are told to look for Vault on their own loopback, and would not start."""
    elsewhere = [server.name for server in cluster.members if server.kind != "local"]
    if cluster.vault.address_from_servers or not elsewhere or not on_loopback(address):
        return []
    where = f"vault:address {address} is a loopback address, and {', '.join(elsewhere)} would look for it on their own machines"
    return [f"cluster.vault.addressFromServers: missing; {where}: give the URL by which the servers reach it"]
