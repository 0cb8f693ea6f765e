from collections.abc import Iterator

import pytest

from tests.hosts.machines import KINDS, Machine


@pytest.fixture(scope="module", params=sorted(KINDS))
def machine(request: pytest.FixtureRequest) -> Iterator[Machine]:
    with KINDS[request.param]() as made:
        yield made
