from pathlib import Path

from tde_replication.adapter import Managed
from tde_replication.postgres import resources
from tests.engine.drift import ROWS
from tests.engine.drift_page import WATCHED, page


def test_the_page_on_drift_is_made_of_the_table() -> None:
    document = Path(__file__).resolve().parents[2] / "docs" / "drift.md"
    assert document.read_text() == page(), "python -m tests.engine.drift_page > docs/drift.md"


def test_what_is_watched_is_told_of_every_resource() -> None:
    ours = {
        one._resource_type_name.rpartition(":")[2]
        for one in vars(resources).values()
        if isinstance(one, type) and issubclass(one, Managed) and hasattr(one, "provider")
    }
    assert ours
    assert ours <= WATCHED.keys()
    assert {row.resource.partition(" (")[0] for row in ROWS} <= WATCHED.keys()
