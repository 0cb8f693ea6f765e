"""The pytest plugin: fixtures `encrypted_cluster` and `new_encrypted_cluster`. See docs/testing.md."""

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from tde_replication.testing.temporary import EncryptedCluster

SCOPES = ("session", "package", "module", "class", "function")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini("tde_scope", "how long an encrypted_cluster lives: " + ", ".join(SCOPES), default="session")
    parser.addini("tde_standbys", "how many standbys an encrypted_cluster has", default="1")
    parser.addini("tde_docker", "the image of its servers; without one, they are processes of this machine", default="")
    parser.addini("tde_cluster", "more settings of it, as YAML with the keys of a stack file", default="{}")


def _scope(fixture_name: str, config: pytest.Config) -> Any:
    del fixture_name
    scope = config.getini("tde_scope")
    if scope not in SCOPES:
        raise pytest.UsageError(f'tde_scope: "{scope}" is not one of {", ".join(SCOPES)}')
    return scope


def _settings(config: pytest.Config) -> dict[str, Any]:
    import yaml  # noqa: PLC0415 - only where a cluster is made

    standbys, text = config.getini("tde_standbys"), config.getini("tde_cluster")
    try:
        settings = yaml.safe_load(text)
    except yaml.YAMLError:
        settings = None
    if not isinstance(settings, dict) or not all(isinstance(key, str) for key in settings):
        raise pytest.UsageError(f"tde_cluster: {text!r} is not a mapping in YAML (write {{encryption: if-available}})")
    if not standbys.isascii() or not standbys.isdecimal():
        raise pytest.UsageError(f'tde_standbys: "{standbys}" is not a number')
    return {"standbys": int(standbys), "docker": config.getini("tde_docker") or None, **settings}


@pytest.fixture(scope="session")
def new_encrypted_cluster(
    pytestconfig: pytest.Config,
) -> "Callable[..., AbstractContextManager[EncryptedCluster]]":
    """Makes clusters of one's own, in a `with` statement; what it is given goes before the ini file."""
    from tde_replication.testing import stack, temporary  # noqa: PLC0415 - they load Pulumi

    for problem in stack.sweep():
        pytestconfig.issue_config_time_warning(pytest.PytestWarning(problem), stacklevel=2)
    settings = _settings(pytestconfig)

    def new(**own: Any) -> "AbstractContextManager[EncryptedCluster]":
        return temporary.cluster(**{**settings, **own})

    return new


@pytest.fixture(scope=_scope)
def encrypted_cluster(
    new_encrypted_cluster: "Callable[..., AbstractContextManager[EncryptedCluster]]",
) -> "Iterator[EncryptedCluster]":
    """A primary and its standbys, for as long as `tde_scope` says; each worker of pytest-xdist has its own."""
    with new_encrypted_cluster() as cluster:
        yield cluster
