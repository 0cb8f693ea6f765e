"""dockerd, through Docker's own SDK."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import cache

import docker
from docker import utils
from docker.constants import MINIMUM_DOCKER_API_VERSION
from docker.errors import APIError, DockerException, NotFound
from requests.exceptions import RequestException

from tde_replication.errors import Unavailable


@contextmanager
def daemon() -> Iterator[docker.APIClient]:
    """Docker API client, configured from DOCKER_HOST, DOCKER_TLS_VERIFY and DOCKER_CERT_PATH. Raises `Unavailable`."""
    try:
        with _client(_version()) as client:
            yield client
    except NotFound as error:
        raise Unavailable(f"docker: {error.explanation}") from None
    except APIError as error:
        raise Unavailable(f"docker refuses: {error.explanation or error}") from None
    except (DockerException, RequestException) as error:
        raise Unavailable(
            f"docker does not answer at {os.environ.get('DOCKER_HOST', 'its default socket')} ({error}): start it, or set "
            "DOCKER_HOST"
        ) from None


def _client(version: str) -> docker.APIClient:
    client = docker.APIClient(version=version, **utils.kwargs_from_env())
    # With the CA of DOCKER_CERT_PATH, and not with that of REQUESTS_CA_BUNDLE, which requests would prefer.
    client.trust_env = not client.base_url.startswith("https://")
    return client


def instant(text: str) -> float:
    """Docker's times as seconds since the epoch."""
    return datetime.fromisoformat(text).timestamp()


@cache
def _version() -> str:
    """What this dockerd speaks; asked once, for it takes longer than the rest of a connection."""
    with _client(MINIMUM_DOCKER_API_VERSION) as client:
        return str(client.version(api_version=False)["ApiVersion"])
