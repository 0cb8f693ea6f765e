"""The component as programs in other languages use it: in a plugin that the engine runs, by a program that has it not."""

import json
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from bootstrap.project import HERE
from tests.engine.cluster import Cluster, base_directory, discard
from tests.engine.workspace import Workspace
from tests.openbao import OpenBao

PROGRAM = """
import pulumi

inputs = {"cluster": pulumi.Config("tde-replication").require_object("cluster"), "summary": None, "primaryDsn": None}
made = pulumi.ComponentResource("tde:index:EncryptedReplication", pulumi.get_stack(), inputs, None, True)
pulumi.export("summary", made.summary)
pulumi.export("primaryDsn", made.primaryDsn)
"""


@pytest.fixture
def cluster(openbao: OpenBao, encrypted_binaries: Path, tmp_path: Path) -> Iterator[Cluster]:
    """Of a program in Python."""
    workspace = Workspace(tmp_path, "trial", openbao.environment)
    plugin = shutil.copytree(HERE.root / "components", tmp_path / "plugin")
    (plugin / ".venv").symlink_to(HERE.root / ".venv")
    for name in ("__main__.py", "Pulumi.yaml"):
        (tmp_path / name).unlink()
    (tmp_path / "__main__.py").write_text(PROGRAM)
    write_project(workspace, {"runtime": "python", "options": {"refresh": "always"}})
    # The engine starts dynamic providers as if they were the program's, and has to be told of the plugin's Python.
    workspace.environment["PULUMI_RUNTIME_VIRTUALENV"] = str(plugin / ".venv")
    made = Cluster(workspace, base_directory(), 1, openbao, binaries=encrypted_binaries)
    workspace.init()
    yield made
    discard(made)


def write_project(workspace: Workspace, project: dict[str, Any]) -> None:
    found = {**project, "name": "other", "stackConfigDir": "stacks", "packages": {"tde": "./plugin"}}
    (workspace.directory / "Pulumi.yaml").write_text(yaml.safe_dump(found))


def made_repaired_and_removed(cluster: Cluster, name: str, role: str) -> None:
    workspace = cluster.workspace
    workspace.up_well()
    assert workspace.output("summary").startswith(f"{name}: 1 primary, 1 standby, streaming")
    assert "NOT ENCRYPTED" not in workspace.output("summary")
    workspace.unchanged()
    cluster.sql("db1", "ALTER ROLE replicator NOLOGIN")
    assert set(workspace.preview().plan) == {f"ReplicationRole {role}"}
    workspace.up_well()
    workspace.unchanged()
    assert workspace.destroy().code == 0


def test_a_cluster_is_made_repaired_and_removed(cluster: Cluster) -> None:
    workspace = cluster.workspace
    workspace.cluster["servers"]["db1"]["settings"] = {"max_connections": 50}
    workspace.write(workspace.cluster)
    made_repaired_and_removed(cluster, "trial", "replicator")


def test_the_same_in_yaml(cluster: Cluster) -> None:
    """`examples/in_yaml`, on the servers of this test."""
    path = cluster.workspace.environment["PATH"]
    if not shutil.which("pulumi-language-yaml", path=path):
        pytest.skip("there is no pulumi-language-yaml on PATH: a program of YAML was NOT tested")
    project = yaml.safe_load((HERE.root / "examples" / "in_yaml" / "Pulumi.yaml").read_text())
    project["resources"]["orders"]["properties"]["cluster"] |= cluster.workspace.cluster
    write_project(cluster.workspace, project)
    made_repaired_and_removed(cluster, "orders", "orders-replicator")


def test_the_schema_has_the_settings_as_types(cluster: Cluster) -> None:
    """The engine has bound it: every reference leads to a type."""
    workspace = cluster.workspace
    # Not by its directory: Pulumi's own language host would install it first, into the environment that its .venv leads to.
    plugin = workspace.directory / "pulumi-resource-tde"
    plugin.write_text(
        f'#!/bin/sh\nexec {shlex.quote(str(HERE.python))} {shlex.quote(str(workspace.directory / "plugin"))} "$@"\n'
    )
    plugin.chmod(0o755)
    command = ["pulumi", "package", "get-schema", str(plugin)]
    done = subprocess.run(
        command, cwd=workspace.directory, env=workspace.environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    schema = json.loads(done.stdout)
    resource = schema["resources"]["tde:index:EncryptedReplication"]
    assert resource["inputProperties"]["cluster"]["$ref"] == "#/types/tde:index:Cluster"
    assert resource["requiredInputs"] == ["cluster"]
    cluster_type, server, ssh = (schema["types"][f"tde:index:{name}"] for name in ("Cluster", "Server", "Ssh"))
    assert cluster_type["properties"]["servers"]["additionalProperties"]["$ref"] == "#/types/tde:index:Server"
    assert ssh["required"] == ["ssh"]
    assert {"$ref": "#/types/tde:index:Ssh"} in server["properties"]["host"]["oneOf"]


def test_all_mistakes_of_a_cluster_are_told(cluster: Cluster) -> None:
    workspace = cluster.workspace
    workspace.write({"primary": "db1", "servers": {"db1": {"port": 99998}, "db2": {"port": 99999}}})
    done = workspace.preview()
    assert done.code != 0
    assert 'EncryptedReplication "trial" has 2 mistakes; nothing was touched:' in done.text, done.text
    assert "cluster.servers.db1.port: " in done.text
    assert "cluster.servers.db2.port: " in done.text
