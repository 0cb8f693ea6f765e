from pathlib import Path

from tests.unit.settings_page import COSTS, keys, page


def test_the_page_on_settings_is_made_of_the_models() -> None:
    document = Path(__file__).resolve().parents[2] / "docs" / "settings.md"
    assert document.read_text() == page(), "python -m tests.unit.settings_page > docs/settings.md"


def test_every_setting_has_its_cost_and_no_other_has() -> None:
    assert set(keys()) == set(COSTS)
