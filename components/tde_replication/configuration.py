"""What a program declares of a cluster, with what the configuration of its stack says besides."""

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pulumi
from pulumi.runtime import is_config_secret
from pulumi.runtime.config import CONFIG, get_config_env

from tde_replication import allowed, credentials, stack_file
from tde_replication.hosts.ssh import sudo
from tde_replication.settings import Cluster
from tde_replication.vault import configuration as vault
from tde_replication.vault.address import VaultAddress


def read(
    source: str, document: Cluster | Mapping[str, Any] | str, vault_address: VaultAddress | None = None
) -> tuple[Cluster, VaultAddress]:
    """The cluster that is declared, and where its Vault is: default as the stack's configuration and the environment say.

    Raises `StackFileError` with all that is wrong in either, and `UserError` where that Vault cannot be used now.
    """
    config = pulumi.Config()
    credentials.configure(config.get)
    besides = sudo.mistakes(secret=is_config_secret(config.full_key(sudo.SETTING)))
    besides = [*besides, *allowed.configuration({*get_config_env(), *CONFIG.get()}, os.environ)]
    if not vault_address:
        besides = vault.missing() + besides
    cluster = stack_file.parse(source, document, besides)
    if vault_address:
        return cluster, replace(vault_address, own_token=vault_address.own_token or vault.own_token())
    return cluster, vault.configured(cluster.vault.ca)
