from tests.engine.there_and_back import NEVER, SETTINGS
from tests.unit.settings_page import keys


def test_every_setting_is_changed_there_and_back_or_there_is_a_reason() -> None:
    changed = {one.key.replace("primary.", "server.").replace("standby.", "server.") for one in SETTINGS}
    assert set(keys()) - changed - NEVER.keys() == set()
    assert changed - set(keys()) == set()
