"""A stack of its own, driven by the real engine: a project directory that is this project's, with a stack file of the test's."""

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import yaml

ROOT = Path(__file__).resolve().parents[2]
STEP = re.compile(
    r"^\s*([~+-]+) ?(pulumi-python:dynamic/\w+:\S+|(?:vault|docker|command):\S+): "
    r"\((\S+)\)\n(?:\s*\[id=.*\]\n)?\s*\[urn=.*::(.*)\]",
    re.MULTILINE,
)


@dataclass(frozen=True)
class Output:
    """What one pulumi command printed; `code` is its exit status."""

    code: int
    text: str

    @property
    def plan(self) -> dict[str, str]:
        """What a preview plans: "Kind name" to create, update, replace or delete."""
        plan: dict[str, str] = {}
        for _, token, step, name in STEP.findall(self.text):
            kind = token.rpartition(":")[2]
            operation = {
                "create-replacement": "replace",
                "delete-replaced": "replace",
                "delete-replacement": "replace",
            }.get(step, step)
            if operation not in {"refresh", "same", "read"}:
                plan.setdefault(f"{kind} {name}", operation)
                if operation == "replace":
                    plan[f"{kind} {name}"] = operation
        return plan

    @property
    def words(self) -> str:
        """The text with its columns pushed together."""
        return re.sub(r"[ \t]+", " ", self.text)

    @property
    def changes(self) -> list[str]:
        """The lines of a preview that show a change."""
        return [line.strip() for line in self.text.splitlines() if re.match(r"\s+[~+-] ", line)]

    @property
    def errors(self) -> list[str]:
        """The error lines that a person sees, without those that only say that there was one."""
        lines = re.findall(r"^\s*(?:error: |(?=[\w.]*Error: ))(.*)$", self.text, re.MULTILINE)
        return [line for line in lines if line not in {"update failed", "preview failed"}]


class Workspace:
    """One stack. `cluster` is the stack file's ``tde-replication:cluster``; `write` puts it in place."""

    def __init__(self, directory: Path, stack: str, environment: dict[str, str]) -> None:
        self.directory = directory
        self.stack = stack
        self.environment = {
            **os.environ,
            **environment,
            "PULUMI_BACKEND_URL": f"file://{directory / 'state'}?metadata=skip",
            "PULUMI_CONFIG_PASSPHRASE": "",
            "NO_COLOR": "1",
        }
        self.environment.pop("PULUMI_SKIP_CONFIRMATIONS", None)
        for name in ("__main__.py", "Pulumi.yaml", ".venv"):
            (directory / name).symlink_to(ROOT / name)
        (directory / "stacks").mkdir()
        (directory / "state").mkdir()
        self.cluster: dict[str, Any] = {}

    def write(self, cluster: dict[str, Any]) -> None:
        self.cluster = cluster
        path = self.directory / "stacks" / f"Pulumi.{self.stack}.yaml"
        salt = (
            [line for line in path.read_text().splitlines() if line.startswith("encryptionsalt")]
            if path.exists()
            else []
        )
        path.write_text(yaml.safe_dump({"config": {"tde-replication:cluster": cluster}}) + "\n".join(salt) + "\n")

    def start(self, *arguments: str, **options: Any) -> "subprocess.Popen[str]":
        """Run pulumi in the background, in a process group of its own."""
        return subprocess.Popen(
            ["pulumi", *arguments, "--stack", self.stack, "--non-interactive"],
            cwd=self.directory,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
            **options,
        )

    def run(self, *arguments: str) -> Output:
        with self.start(*arguments) as process:
            text, _ = process.communicate(timeout=600)
        return Output(process.returncode, text)

    def init(self) -> None:
        subprocess.run(
            ["pulumi", "stack", "init", self.stack],
            cwd=self.directory,
            env=self.environment,
            check=True,
            capture_output=True,
        )

    def preview(self, *arguments: str) -> Output:
        return self.run("preview", "--diff", *arguments)

    def up(self, *arguments: str) -> Output:
        return self.run("up", "--yes", "--skip-preview", *arguments)

    def up_well(self) -> Output:
        done = self.up()
        assert done.code == 0, done.errors or done.text
        return done

    def unchanged(self) -> None:
        """The next preview has nothing to do, and refresh finds nothing changed."""
        done = self.preview("--expect-no-changes")
        assert done.plan == {}, done.changes
        assert done.code == 0, done.errors or done.text

    def destroy(self, *arguments: str) -> Output:
        return self.run("destroy", "--yes", "--skip-preview", *arguments)

    def configure(self, key: str, value: str) -> None:
        """`pulumi config set`, until the next `write`."""
        done = self.run("config", "set", f"tde-replication:{key}", value)
        assert done.code == 0, done.text

    def unlock(self) -> bool:
        """`pulumi cancel` where a killed command left Pulumi's own lock; whether it did."""
        locked = any((self.directory / "state").rglob("locks/**/*.json"))
        if locked:
            done = self.run("cancel", "--yes")
            assert done.code == 0, done.text
        return locked

    def output(self, name: str) -> str:
        done = subprocess.run(
            ["pulumi", "stack", "output", name, "--show-secrets", "--stack", self.stack],
            cwd=self.directory,
            env=self.environment,
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout.strip()

    def state(self) -> str:
        """The checkpoint file as it lies on disk."""
        return "".join(path.read_text() for path in (self.directory / "state").rglob("*.json*") if path.is_file())

    def close(self) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)


def sql(sockets: Path, port: int, query: str, database: str = "postgres", **options: Any) -> list[tuple[Any, ...]]:
    """Statements as the superuser, through the socket, as a person on this machine would; the rows of the last."""
    with psycopg.connect(
        host=str(sockets), port=port, user="postgres", dbname=database, autocommit=True, **options
    ) as connection:
        for statement in query.split("; "):
            cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def eventually(reached: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.01)
