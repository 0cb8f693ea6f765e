"""How providers go into a stack's state: by reference, short, and holding no value."""

import base64
import pickle
import pickletools

import pytest
from pulumi.dynamic.dynamic import serialize_provider

from tde_replication.adapter import Managed, Provider
from tde_replication.postgres import resources
from tde_replication.reconciler import Resource
from tde_replication.vault import resources as vault_resources


def providers() -> list[type[Provider]]:
    classes = [found for found in (vars(resources) | vars(vault_resources)).values() if isinstance(found, type)]
    # Each once: one has a former name too.
    return list(dict.fromkeys(one for one in classes if issubclass(one, Provider) and "kind" in vars(one)))


def managed() -> list[type[Managed]]:
    return [
        found
        for found in (vars(resources) | vars(vault_resources)).values()
        if isinstance(found, type) and issubclass(found, Managed) and "provider" in vars(found)
    ]


def test_all_are_found() -> None:
    assert len(providers()) == len(managed()) >= 14
    assert {found.provider for found in managed()} == set(providers())


@pytest.mark.parametrize("provider", providers(), ids=lambda provider: provider.__name__)
def test_a_provider_is_pickled_short_and_by_reference(provider: type[Provider]) -> None:
    pickled = base64.b64decode(serialize_provider(provider()))
    assert len(pickled) < 120
    texts = [argument for _, argument, _ in pickletools.genops(pickled) if isinstance(argument, str)]
    assert texts == [provider.__module__, provider.__name__]
    assert provider.__module__ in {"tde_replication.postgres.resources", "tde_replication.vault.resources"}
    assert type(pickle.loads(pickled)) is provider  # noqa: S301 - made here
    assert vars(provider()) == {}


@pytest.mark.parametrize("provider", providers(), ids=lambda provider: provider.__name__)
def test_a_state_of_before_the_package_is_read(provider: type[Provider]) -> None:
    former = provider.__module__.replace("tde_replication", "components")
    assert pickle.loads(f"c{former}\n{provider.__name__}\n.".encode()) is provider  # noqa: S301 - made here


def test_the_names_in_peoples_state() -> None:
    """These are kept for ever; more may come."""
    names = vars(resources) | vars(vault_resources)
    kept = {
        "PasswordProvider": "Password",
        "ClaimProvider": "CleanupRecord",  # of version 0.1.0
        "CleanupRecordProvider": "CleanupRecord",
        "AdoptedDirectoryProvider": "AdoptedDirectory",
        "HostFileProvider": "HostFile",
        "InitializedDirectoryProvider": "ServerDirectory",  # this and the next one of version 0.1.0
        "ClonedDirectoryProvider": "ServerDirectory",
        "ServerDirectoryProvider": "ServerDirectory",
        "TopologyProvider": "Topology",
        "ServerProvider": "Server",
        "ExtensionProvider": "Extension",
        "DatabaseEncryptionProvider": "DatabaseEncryption",
        "KeyProviderProvider": "KeyProvider",
        "PrincipalKeyProvider": "PrincipalKey",
        "KeyBindingProvider": "KeyBinding",
        "WalEncryptionProvider": "WalEncryption",
        "ReplicationRoleProvider": "ReplicationRole",
        "HbaRuleProvider": "HbaRule",
        "ReplicationSlotProvider": "ReplicationSlot",
        "StanzaProvider": "Stanza",
        "SynchronousStandbysProvider": "SynchronousStandbys",
        "TableEncryptionProvider": "TableEncryption",
        "ReplicationCheckProvider": "ReplicationCheck",
        "MachineProvider": "Machine",
        "CompleteClusterProvider": "CompleteCluster",
        "AdoptionProvider": "Adoption",
        "MinorUpgradeProvider": "MinorUpgrade",
        "ExpiryProvider": "Expiry",
        "TokenProvider": "Token",
        "SecretContentProvider": "SecretContent",
    }
    assert {name: names[name].kind.__name__ for name in kept} == kept
    assert {names[name] for name in kept} == set(providers())


@pytest.mark.parametrize("kind", [provider.kind for provider in providers()], ids=lambda kind: kind.__name__)
def test_what_a_kind_says_of_its_fields_is_of_fields_that_it_has(kind: type[Resource]) -> None:
    fields = set(kind.model_fields)
    assert kind.replaced_by <= fields
    assert kind.computed <= fields
    assert kind.not_compared <= fields
    assert kind.secrets <= fields
    assert not kind.replaced_by & (kind.computed | kind.not_compared)
    secret = {name for name, field in kind.model_fields.items() if "SecretStr" in str(field.annotation)}
    assert secret == kind.secrets
    assert not provider_remembers_secrets(kind)


def provider_remembers_secrets(kind: type[Resource]) -> bool:
    """A default would stand in code, and a whole `__provider` marked as secret would show in every diff."""
    defaults = [kind.model_fields[name].default for name in kind.secrets]
    return any(isinstance(default, str) and default for default in defaults) or Provider.serialize_as_secret_always


@pytest.mark.parametrize("resource", managed(), ids=lambda resource: resource.__name__)
def test_a_kind_is_called_as_its_pulumi_type_is(resource: type[Managed]) -> None:
    kind = resource.provider.kind
    module = resource.__module__.split(".")[1]
    assert resource._resource_type_name == f"dynamic/{module}:{kind.called or kind.__name__}"
