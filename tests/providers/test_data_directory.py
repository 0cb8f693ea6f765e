"""Data directories by initdb: whole or not there, ours or left alone, removed or set aside."""

import json
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from tde_replication.errors import Conflict, Unavailable, UserError
from tde_replication.hosts.local.machine import LocalHost
from tde_replication.postgres import data_directory
from tde_replication.postgres.adopted_directory import AdoptedDirectory
from tde_replication.postgres.data_directory import DataDirectory, InitializedDirectory
from tde_replication.postgres.marker import MARKER, marker
from tests.providers.servers import Node, Servers


def names_beside(directory: InitializedDirectory) -> list[str]:
    beside = Path(directory.data_directory).parent
    return sorted(entry.name for entry in beside.iterdir()) if beside.exists() else []


def owned(path: PurePosixPath) -> None:
    """Make a directory and the one above it, the account's own, as packages leave them."""
    LocalHost().make_directory(path.parent)
    LocalHost().make_directory(path)


@pytest.fixture(scope="module")
def made(servers: Servers) -> InitializedDirectory:
    return servers.directory().create()


def test_what_initdb_makes(made: InitializedDirectory) -> None:
    path = Path(made.data_directory)
    assert names_beside(made) == ["data"]
    assert path.owner() == LocalHost().account
    assert path.stat().st_mode & 0o777 == 0o700
    assert made.system_identifier == made.control().system_identifier
    assert made.identity == f"{made.system_identifier} {made.made_at}"
    assert marker(LocalHost(), made.path).items() >= {"stack": made.stack, "madeAt": made.made_at}.items()
    hba = [line.split() for line in (path / "pg_hba.conf").read_text().splitlines() if line and line[0] != "#"]
    assert hba[0] == ["local", "all", "postgres", "peer", "map=owner"]
    assert {line[-1] for line in hba[1:] if line[0] == "host"} == {"scram-sha-256"}
    assert "trust" not in {word for line in hba for word in line}


def test_checksums_are_on(primary: Node) -> None:
    assert primary.value("SHOW data_checksums") == "on"
    assert primary.value("SHOW password_encryption") == "scram-sha-256"


def test_an_untouched_directory_is_as_it_was_made(made: InitializedDirectory) -> None:
    assert made.read() == made
    assert made.create() == made  # taken over: an interrupted run's work


def test_a_directory_that_is_gone(servers: Servers) -> None:
    declared = servers.directory()
    assert declared.read() is None
    kept = servers.directory(disposable=False)
    assert kept.read() is not None  # a disk that is not mounted is no reason to make an empty cluster
    assert kept.refusal(kept.read() or kept)


@pytest.mark.parametrize("content", [{}, {MARKER: '{"stack": "another/one", "madeAt": "x"}'}])
def test_somebody_elses_directory_is_refused_and_untouched(servers: Servers, content: dict[str, str]) -> None:
    declared = servers.directory()
    path = Path(declared.data_directory)
    path.mkdir(parents=True)
    for name, text in ({"precious": "1"} | content).items():
        (path / name).write_text(text)
    with pytest.raises(Conflict, match="is not empty and was not made by this stack: it is never written to"):
        declared.create()
    declared.delete()
    assert {entry.name for entry in path.iterdir()} == {"precious", *content}


@pytest.mark.parametrize("kind", [InitializedDirectory, AdoptedDirectory])
def test_a_stack_that_was_renamed_is_told_its_former_name(servers: Servers, kind: type[DataDirectory]) -> None:
    made = kind.model_validate(servers.directory().model_dump(exclude={"origin"}))
    renamed = made.replace(stack="tde-replication/new/new")
    told = renamed.refusal(made)
    assert told is not None
    assert f"the cluster in {made.data_directory} is of stack" in told
    assert f"give it its name back: `pulumi stack rename {made.stack.split('/')[1]}`" in told


def test_a_primary_whose_machine_may_be_replaced_is_not_planned(servers: Servers) -> None:
    made = servers.directory()
    assert "the address of the primary's machine is not known yet" in str(made.refusal_while_unknown(made, {"host"}))
    assert made.refusal_while_unknown(made, {"binaries"}) is None


def test_an_empty_directory_is_filled(servers: Servers) -> None:
    declared = servers.directory()
    owned(declared.path)
    assert declared.create().read()


def test_another_cluster_in_its_place_is_told_and_nothing_is_changed(made: InitializedDirectory) -> None:
    other = made.replace(system_identifier="1")
    live = other.read()
    assert live is not None
    assert other.changed(live) == {"holds"}
    assert f"another cluster (system identifier {made.system_identifier}, and not 1)" in (other.refusal(live) or "")


@pytest.mark.parametrize("place", [{"data_directory": "/elsewhere/data"}, {"host": "docker://container/db1"}])
def test_a_primary_with_data_does_not_move(made: InitializedDirectory, place: dict[str, str]) -> None:
    told = made.replace(**place).refusal(made) or ""
    assert told.startswith(
        f"the primary's data is in {made.data_directory} of local, and its new place would be an empty "
    )


def test_an_initdb_that_fails_leaves_nothing(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    declared = servers.directory()

    def fails(_: InitializedDirectory, target: Any) -> None:
        LocalHost().write(target / "base" / "half", b"", mode=0o600)
        raise UserError("initdb failed")

    monkeypatch.setattr(InitializedDirectory, "_initdb", fails)
    with pytest.raises(UserError, match="initdb failed"):
        declared.create()
    assert names_beside(declared) == []


def test_what_a_killed_run_left_is_not_taken_for_whole(servers: Servers) -> None:
    declared = servers.directory()
    draft = Path(declared.data_directory).with_name(".data.unfinished")
    owned(PurePosixPath(draft))
    (draft / "PG_VERSION").write_text("18\n")
    assert declared.read() is None
    declared.create()
    assert names_beside(declared) == ["data"]


def test_a_disposable_one_is_removed_and_its_server_stopped(servers: Servers) -> None:
    node = servers.primary("brief")
    node.directory.delete()
    assert not node.running
    assert not Path(node.data).exists()
    node.directory.delete()


def test_any_other_is_set_aside(servers: Servers) -> None:
    declared = servers.directory(disposable=False)
    kept = declared.create()
    kept.delete()
    [aside] = names_beside(declared)
    assert aside.startswith("data.set-aside-")
    assert (Path(declared.data_directory).with_name(aside) / "PG_VERSION").exists()
    kept.delete()
    assert names_beside(declared) == [aside]


def test_a_directory_that_became_somebody_elses_is_not_taken_away(servers: Servers) -> None:
    kept = servers.directory().create()
    (Path(kept.data_directory) / MARKER).write_text(json.dumps({"stack": "another/one"}))
    kept.delete()
    assert names_beside(kept) == ["data"]


def test_a_removal_that_was_interrupted_goes_on(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = servers.directory().create()
    with monkeypatch.context() as patch:
        patch.setattr(LocalHost, "remove", lambda *_: (_ for _ in ()).throw(UserError("interrupted")))
        with pytest.raises(UserError, match="interrupted"):
            kept.delete()
    kept.delete()
    assert kept.read() is None
    assert "data" not in names_beside(kept)
    assert ".data.unfinished" not in names_beside(kept)


def test_a_marker_that_is_no_json_is_nobodys(servers: Servers) -> None:
    declared = servers.directory()
    path = Path(declared.data_directory)
    path.mkdir(parents=True)
    (path / MARKER).write_text("")
    with pytest.raises(Conflict):
        declared.create()
    (path / MARKER).write_text("{half")
    with pytest.raises(Conflict):
        declared.create()


def test_a_directory_that_holds_no_cluster_is_told_in_one_sentence(servers: Servers) -> None:
    declared = servers.directory(system_identifier="1")
    path = Path(declared.data_directory)
    path.mkdir(parents=True)
    (path / "lost+found").touch()
    live = declared.read()
    assert live is not None
    told = declared.refusal(live) or ""
    assert f"{path} holds something that is not a data directory" in told
    assert "\n" not in told


def test_a_directory_whose_control_file_cannot_be_read_now_is_not_condemned(made: InitializedDirectory) -> None:
    with pytest.raises(Unavailable, match=f"^{made.path}: pg_controldata failed "):
        made.replace(binaries="/nowhere").read()


def test_an_adopted_directory_is_never_touched(servers: Servers, made: InitializedDirectory) -> None:
    before = AdoptedDirectory.model_validate(made.model_dump() | {"system_identifier": "", "made_at": ""})
    with pytest.raises(Conflict, match="was made by this stack: there is nothing to adopt"):
        before.create()
    adopted = before.replace(stack="another").create()
    assert adopted.system_identifier == made.system_identifier
    assert adopted.read() == adopted
    adopted.delete()
    assert made.read() == made
    former = adopted.replace(role="standby", origin="adopted", primary_identifier=adopted.system_identifier)
    diverged = former.replace(follows="it was the primary")
    assert former.changed(diverged) == {"follows"}
    assert not former.changed(diverged) & AdoptedDirectory.replaced_by
    told = str(former.refusal(diverged))
    assert "cannot follow the primary (it was the primary), and it was here before the stack" in told
    with pytest.raises(Conflict, match="there is no server to adopt"):
        adopted.replace(data_directory=str(servers.place())).create()


@pytest.mark.parametrize(
    ("rules", "made_of_them"),
    [
        (b"", b"NEW\n"),
        (b"# c\n\nlocal\n", b"# c\n\nNEW\nlocal\n"),
        (b"host\n", b"NEW\nhost\n"),
    ],
)
def test_a_line_goes_before_the_first_rule(rules: bytes, made_of_them: bytes) -> None:
    assert data_directory._before_first_rule(rules, b"NEW\n") == made_of_them


@pytest.mark.parametrize("disposable", [True, False])
def test_nothing_is_taken_away_while_it_cannot_be_told_whether_a_server_runs(
    servers: Servers, *, disposable: bool
) -> None:
    """Of a lock file that cannot be read, nobody knows whose it is."""
    made = servers.directory(disposable=disposable).create()
    lock = Path(made.path) / "postmaster.pid"
    lock.symlink_to("/proc/self/status")
    server = servers.server(made, "unknown", {})
    before = sorted(path.name for path in Path(made.path).parent.iterdir())
    for deed in (made.delete, made.take_away, server.delete, server.create):
        with pytest.raises(Unavailable, match="cannot tell whether a server runs on"):
            deed()
    assert sorted(path.name for path in Path(made.path).parent.iterdir()) == before
    lock.unlink()
    made.delete()


def test_nothing_is_taken_away_from_a_server_that_is_started_again(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = servers.directory().create()
    node = Node(made, servers.server(made, "again", {}))
    servers.made.append(node)
    node.server.create()
    monkeypatch.setattr(LocalHost, "stop", lambda *_, **__: None)
    with pytest.raises(Conflict, match=r"a server runs on .* again"):
        made.delete()
    assert node.running
    assert node.value("SELECT 1") == 1
