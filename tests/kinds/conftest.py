"""Fixtures that the clusters of this folder share with those of the other folders."""

from tests.engine.conftest import encrypted_binaries
from tests.openbao import openbao

__all__ = ["encrypted_binaries", "openbao"]
