from collections.abc import Iterator

import pytest

from tests.hosts.machines import KINDS, Machine


@pytest.fixture(scope="module", params=KINDS)
def machine(request: pytest.FixtureRequest) -> Iterator[Machine]:
    with KINDS[request.param](request) as made:
        yield made
