from pathlib import Path

from tests.engine.drift_page import page


def test_the_page_on_drift_is_made_of_the_table() -> None:
    document = Path(__file__).resolve().parents[2] / "docs" / "drift.md"
    assert document.read_text() == page(), "python -m tests.engine.drift_page > docs/drift.md"
