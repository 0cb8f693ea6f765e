"""The settings as a Pulumi package has them: see `tde_replication.schema`."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

from tde_replication import host_settings, remote, settings
from tde_replication.schema import with_types
from tests.unit.settings_page import SECTIONS

TOKEN = "tde:index:EncryptedReplication"
COMPONENTS = Path(settings.__file__).parents[1]


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    bare = {"resources": {TOKEN: {"inputProperties": {"cluster": {"type": "object", "description": "The settings."}}}}}
    return with_types(bare, TOKEN)


def test_every_model_is_a_type_with_all_its_settings(schema: dict[str, Any]) -> None:
    models = {f"tde:index:{model.__name__}": model for _, _, model in SECTIONS}
    assert schema["types"].keys() == models.keys()
    for name, model in models.items():
        keys = {field.alias or key for key, field in model.model_fields.items()}
        assert schema["types"][name]["properties"].keys() == keys, name
    assert schema["resources"][TOKEN]["inputProperties"]["cluster"] == {
        "$ref": "#/types/tde:index:Cluster",
        "description": "The settings.",
        "plain": True,
    }


def test_a_setting_as_its_model_has_it(schema: dict[str, Any]) -> None:
    cluster, key = (schema["types"][f"tde:index:{name}"] for name in ("Cluster", "Key"))
    assert cluster["properties"]["cipher"]["type"] == "string"
    assert cluster["properties"]["cipher"]["description"].endswith("One of: aes_128, aes_256.")
    assert cluster["properties"]["servers"]["additionalProperties"] == {"$ref": "#/types/tde:index:Server"}
    assert key["properties"]["name"] == {
        "type": "string",
        "description": "The principal key; default the stack's name and `-principal-key`. Another name is a rotation.",
    }
    assert key["required"] == []
    assert "pydantic" not in str(schema).lower()


def test_every_reference_leads_to_a_type(schema: dict[str, Any]) -> None:
    def references(found: Any) -> set[str]:
        if isinstance(found, dict):
            own = {found["$ref"]} if "$ref" in found else set()
            return own.union(*map(references, found.values()))
        return set().union(*map(references, found)) if isinstance(found, list) else set()

    assert references(schema) == {f"#/types/tde:index:{model.__name__}" for _, _, model in SECTIONS}
    assert host_settings.Ssh.__name__ in str(references(schema))


def test_the_version_is_that_of_the_package() -> None:
    assert tomllib.loads((COMPONENTS / "pyproject.toml").read_text())["project"]["version"] == remote.VERSION
