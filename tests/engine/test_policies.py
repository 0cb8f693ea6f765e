"""The policy pack, run by the engine in a preview: a violation of each level, and a rule of one's own."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from bootstrap import policies
from bootstrap.ports import free_ports
from bootstrap.project import HERE
from tde_replication.review import environment, read, review
from tde_replication.review.findings import Verdict
from tests.engine.cluster import base_directory
from tests.engine.workspace import ROOT, Workspace
from tests.openbao import OpenBao

LEVELS = {
    "not-disposable": "mandatory",
    "standbys": {"enforcementLevel": "advisory", "least": 5},
    "no-superuser-output": "advisory",
    "work-mem": "advisory",
    "encryption-in-force": "disabled",
    "protected": "disabled",
    "tls-verify-full": {"enforcementLevel": "advisory"},
}


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    """This project's, with the rule that docs/policies.md shows."""
    policies.ensure(HERE)
    made = tmp_path / "policies"
    shutil.copytree(ROOT / "policies", made, ignore=shutil.ignore_patterns(".venv", "__pycache__"))
    (made / ".venv").symlink_to(policies.environment(HERE))
    (made / "own").mkdir()
    shown = re.search(r"```python\n(.*?)```", (ROOT / "docs" / "policies.md").read_text(), re.DOTALL)
    assert shown
    (made / "own" / "memory.py").write_text(shown[1])
    (made / "levels.json").write_text(json.dumps(LEVELS))
    return made


@pytest.fixture
def base() -> Iterator[Path]:
    made = base_directory()
    yield made
    shutil.rmtree(made)


def test_a_violation_of_each_level(openbao: OpenBao, pack: Path, base: Path, tmp_path: Path) -> None:
    """On the stack that a newcomer has, before any server is there."""
    (tmp_path / "work").mkdir()
    log = tmp_path / "events"
    workspace = Workspace(tmp_path / "work", "policed", {**openbao.environment, "PULUMI_DEBUG_COMMANDS": "true"})
    settings = {"work_mem": "1GB"}
    servers = {
        name: {"port": port, "dataDirectory": str(base / name / "data"), "settings": settings}
        for name, port in zip(("db1", "db2"), free_ports(2), strict=True)
    }
    workspace.write({"encryption": "off", "disposable": True, "primary": "db1", "servers": servers})
    workspace.init()
    levels = pack / "levels.json"
    done = workspace.run(
        *("preview", "--event-log", str(log)), *("--policy-pack", str(pack), "--policy-pack-config", str(levels))
    )
    assert done.code != 0
    found = review(read(log.read_text()), environment(levels))
    assert (found.verdict, found.sentence) == (Verdict.REFUSED, "is refused by policy not-disposable"), done.text
    assert {(one.policy, one.mandatory) for one in found.policies} == {
        ("not-disposable", True),
        ("standbys", False),
        ("work-mem", False),
        ("tls-verify-full", False),
        ("no-superuser-output", False),
    }
    assert "db1 has work_mem 1GB: at most 256MB are allowed" in {one.text for one in found.policies}
    assert found.passed == ["slot-cap"]
    assert "requirepeer" not in log.read_text(), "a policy shows the value of a secret output"
