from pathlib import Path

from tde_replication import archive_settings, host_settings, settings
from tests.unit.settings_page import COSTS, SECTIONS, keys, page


def test_the_page_on_settings_is_made_of_the_models() -> None:
    document = Path(__file__).resolve().parents[2] / "docs" / "settings.md"
    assert document.read_text() == page(), "python -m tests.unit.settings_page > docs/settings.md"


def test_every_setting_has_its_cost_and_no_other_has() -> None:
    assert set(keys()) == set(COSTS)


def test_every_model_is_a_section() -> None:
    models = {
        found
        for module in (settings, host_settings, archive_settings)
        for found in vars(module).values()
        if isinstance(found, type) and issubclass(found, host_settings.Settings) and found is not host_settings.Settings
    }
    assert {model for _, _, model in SECTIONS} == models


def test_every_kind_of_host_has_a_package() -> None:
    package = Path(host_settings.__file__).parent / "hosts"
    assert {path.parent.name for path in package.glob("*/machine.py")} == set(host_settings.KINDS)
