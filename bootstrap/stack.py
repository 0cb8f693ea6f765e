"""What `make up`, `preview`, `drift` and `destroy` do with a stack, in the environment of env.sh.

Stacks `local` and `docker` are this project's own: they are made, updated and removed without a question. Any other asks as
Pulumi does.
"""

import json
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from bootstrap import embedded, policies, private
from bootstrap.asking import Asking
from bootstrap.locks import is_dead
from bootstrap.project import BootstrapError, Project, say
from tde_replication import review, unasked
from tde_replication.errors import UserError, escaped

LOCAL = "local"
VAULTS = {LOCAL: "bootstrap.vault", "docker": "bootstrap.vault_container"}
"""The stacks of this project's own, each with the module that runs its Vault."""
OURS = "dynamic/postgres:"
"""Part of the types of resources for which a Claim looks."""
_CHANGES = 7  # how Pulumi ends when it was told to expect none
UNASKED = 8
"""How a drift check ends that could not ask everything, whether or not there is drift in the rest."""


@dataclass(frozen=True)
class Stack:
    project: Project
    name: str
    environ: dict[str, str]
    embedded_vault: bool
    """Whether this project's own Vault serves it."""

    def up(self) -> int:
        with Asking(self.project, self.environ) as asking:
            if self.name == LOCAL and not self._was_encrypted():
                asking.begin()
            code = self._ready() or self._agreed()
            return code or self._update() or self._tell(asking)

    def _update(self) -> int:
        """Where nobody has seen a preview, say afterwards what it was; of a first one, the summary says it."""
        options = ["--suppress-outputs", "--yes", "--skip-preview", *self._policy_options()]
        if not self._is_unasked:
            return self._pulumi("up", *options)
        code, read = self._with_events("up", *options)
        if not code and read and any(step.recorded for step in read.steps.values()):
            found = review.review(read)
            if found.diff:
                say("what this `up` did, as `make preview` says it:\n" + review.as_text([found], done=True))
        return code

    @property
    def _is_unasked(self) -> bool:
        """Whether it is updated without a word."""
        return self.name in VAULTS and self.environ.get("REVIEWED") is None

    def _was_encrypted(self) -> bool:
        """By the last update, as far as that is known without asking an engine."""
        file = self._state_file()
        known = self._own_state() and file.exists()
        return known and bool(re.search(r'"inForce":\s*true', file.read_text()))

    def _tell(self, asking: Asking) -> int:
        """What was made, and what next."""
        done = self._capture("stack", "output", "--json", "--stack", self.name)
        try:
            outputs = json.loads(done.stdout)
            summary, encryption = str(outputs["summary"]), outputs["encryption"]
        except (ValueError, KeyError, TypeError):
            say(f"stack {self.name}: its outputs cannot be read: {done.stderr.strip()[-300:]}")
            return done.returncode or 1
        print(escaped(summary), flush=True)
        if self.name == LOCAL and not encryption["inForce"] and encryption["mode"] != "off":
            print(escaped(asking.answer()), end="", flush=True)
        self._tell_what_next()
        return 0

    def _tell_what_next(self) -> None:
        if self.name == LOCAL:
            say('try:   . ./env.sh; psql "$(pulumi stack output primaryDsn --show-secrets)"   # as the superuser')
            say(
                "apps:  pulumi stack output readWriteDsn   # leads to the primary, whichever that is; as a role that you make"
            )
        stack = "" if self.name == LOCAL else f" STACK={self.name}"
        say(
            f"then:  make status{stack} · make drift{stack} · edit stacks/Pulumi.{self.name}.yaml and make preview{stack} · "
            f"make destroy{stack}"
        )

    def preview(self) -> int:
        return self._ready() or self._reviewed()[0]

    def _policy_options(self) -> list[str]:
        file = policies.file_of(self.project, self.name, self.environ)
        if file is None:
            return []
        policies.ensure(self.project)
        return policies.options(file)

    def _reviewed(self) -> tuple[int, review.Review | None]:
        """A preview, and what it means in a few lines. That is read from Pulumi's own events, which hold no secret in clear."""
        file = policies.file_of(self.project, self.name, self.environ)
        environment = review.environment(file) if file else None
        options = self._policy_options()
        if file:
            self.environ.update(policies.ASKED)
        code, read = self._with_events("preview", *options)
        if read is None:
            return code, None  # Pulumi said itself what is wrong
        found = review.review(read, environment, labels=policies.labels(self.environ))
        say(review.as_text([found]))
        return code or int(any(one.mandatory for one in found.policies)), found

    def _with_events(self, command: str, *options: str) -> tuple[int, review.Preview | None]:
        """Run a command of Pulumi's, and read its events."""
        with tempfile.TemporaryDirectory() as directory:
            log = Path(directory) / "events"
            self.environ["PULUMI_DEBUG_COMMANDS"] = "true"  # without it, Pulumi has no --event-log
            code = self._pulumi(command, "--event-log", str(log), *options)
            del self.environ["PULUMI_DEBUG_COMMANDS"]
            try:
                return code, review.read(log.read_text(), f"the event log of `pulumi {command}`")
            except (OSError, UserError):
                return code, None

    def _agreed(self) -> int:
        """Show what an update means, and ask whether to make it; this project's own stacks are updated without a word. With
        REVIEWED, the digest of a plan, the yes was given to that plan, and to no other."""
        if self._is_unasked:
            return 0
        reviewed = self.environ.get("REVIEWED")
        code, found = self._reviewed()
        if code:
            return code
        if reviewed is not None:
            if why := review.objection(reviewed, found):
                raise BootstrapError(f"the plan of stack {self.name} has not been reviewed: {why}")
            return 0
        if self.environ.get("PULUMI_SKIP_CONFIRMATIONS", "").lower() in {"true", "1"}:
            return 0
        if not sys.stdin.isatty():
            raise BootstrapError(
                f"stack {self.name} needs confirmation: run this in a terminal, or set PULUMI_SKIP_CONFIRMATIONS=true"
            )
        if input(f"Update stack {self.name}? Only yes continues: ").strip().lower() == "yes":
            return 0
        say("nothing was changed")
        return 1

    def drift(self) -> int:
        self.environ.pop("PULUMI_SKIP_CONFIRMATIONS", None)  # Pulumi refuses it beside --expect-no-changes
        with tempfile.TemporaryDirectory() as directory:
            told = self.environ[unasked.FILE] = f"{directory}/unasked"
            code = self._ready() or self._pulumi("refresh", "--preview-only", "--expect-no-changes")
            missed = unasked.read(Path(told))
        if missed and code in {0, _CHANGES}:
            found = "and there is drift, see above" if code else "and what could be asked has not drifted"
            say(f"not everything of stack {self.name} could be asked, {found}:\n{unasked.summary(missed)}")
            return UNASKED
        if code == 0:
            say(f"no drift: everything of stack {self.name} is as it was left")
        elif code == _CHANGES:
            say(f"drift: what is marked above differs from stack {self.name}; make preview shows the repair")
        return code

    def destroy(self) -> int:
        if self.name not in VAULTS:
            return self.release() or self._pulumi("destroy") or self.forget_pending()
        if self._exists():
            code = self.vault("start") or self.release() or self._pulumi("destroy", *self._confirmed())
            # Its configuration is committed: `stack rm` would delete it.
            code = code or self._pulumi("stack", "rm", "--yes", "--preserve-config")
            if code:
                return code
        else:
            say(f"stack {self.name}: it does not exist")
        return self.vault("remove") or self._tidy()

    def forget_pending(self) -> int:
        """What a killed `up` was just making: Pulumi keeps it in the state of a stack that is gone, and warns of it ever after.

        The stack's Claims have looked for it on the servers. For what others were making (in Vault, in Docker), a person must.
        """
        done = self._capture("stack", "export", "--stack", self.name)
        try:
            state = json.loads(done.stdout)["deployment"]
            pending = [operation["resource"]["urn"] for operation in state.get("pending_operations") or []]
        except (ValueError, KeyError, TypeError):
            return done.returncode
        if not pending or state.get("resources"):
            return 0
        for urn in pending:
            _, _, kinds, name = urn.split("::")
            if OURS not in kinds:
                what = f"{kinds.rpartition('$')[2]} {name}"
                say(f"stack {self.name}: a killed `up` was making {what}: check whether it exists")
        return self._pulumi("refresh", "--clear-pending-creates", "--yes", "--skip-preview", "--suppress-outputs")

    def vault(self, command: str, *, quietly: bool = False) -> int:
        """Start or remove the embedded Vault, if it is this stack's. It needs the virtual environment."""
        if not self.embedded_vault or not self.project.python.exists():
            return 0
        return self._run([str(self.project.python), "-m", VAULTS[self.name], command], quietly=quietly)

    def select(self) -> int:
        """Have the stack, and have `pulumi` mean it where no other is named."""
        done = self._capture("stack", "select", "--create", self.name)
        if done.returncode:
            say(done.stderr.strip())
        return done.returncode

    def _ready(self) -> int:
        return self.select() or self.release()

    def _confirmed(self) -> list[str]:
        """What a stack that is made and removed many times a day needs no word for."""
        return ["--yes", "--skip-preview"] if self.name in VAULTS else []

    def _exists(self) -> bool:
        """Whether Pulumi knows it; not asked, for that takes an engine, where our own backend has no file of it."""
        if self._own_state():
            return self._state_file().exists()
        return self._capture("stack", "--stack", self.name).returncode == 0

    def _own_state(self) -> bool:
        return self.environ.get("PULUMI_BACKEND_URL") == self.project.backend

    def _state_file(self) -> Path:
        return self.project.state / ".pulumi" / "stacks" / self._project_name() / f"{self.name}.json"

    def _project_name(self) -> str:
        named = re.search(r"^name:\s*(\S+)", (self.project.root / "Pulumi.yaml").read_text(), re.MULTILINE)
        return named[1] if named else ""

    def release(self) -> int:
        """Take away the lock of a Pulumi that was killed on this machine: nobody else will."""
        locks = list((self.project.state / ".pulumi" / "locks").glob(f"**/{self._project_name()}/{self.name}/*.json"))
        if not self._own_state() or not locks or not all(map(is_dead, locks)):
            return 0
        say(f"stack {self.name}: the Pulumi that had locked it was killed; unlocking")
        return self._pulumi("cancel", "--yes")

    def _tidy(self) -> int:
        """Remove what Pulumi leaves of a stack that is gone: backups, logs, and the salt it wrote into the settings."""
        if self._own_state():
            if not set(self._state_file().parent.glob("*.json")) - {self._state_file()}:  # another stack's
                shutil.rmtree(self.project.state, ignore_errors=True)
            settings = self.project.root / "stacks" / f"Pulumi.{self.name}.yaml"
            text = settings.read_text() if settings.exists() else ""
            if "secure:" not in text and "encryptionsalt:" in text:  # a secret of the user's needs its salt
                settings.write_text(re.sub(r"^encryptionsalt:.*\n?", "", text, flags=re.MULTILINE))
            private.forget_passphrase(self.project)
        if self.name == LOCAL:  # whose servers it is for
            embedded.remove(self.project)
        for name in ("logs", "workspaces"):
            shutil.rmtree(self.project.home / name, ignore_errors=True)
        return 0

    def _pulumi(self, *arguments: str) -> int:
        return self._run(["pulumi", *arguments, "--stack", self.name])

    def _run(self, command: list[str], *, quietly: bool = False) -> int:
        """Run it on this terminal; on Ctrl-C it is the command that ends, in its own time, and then this."""
        before = signal.signal(signal.SIGINT, lambda *_: None)
        try:
            out = subprocess.DEVNULL if quietly else None
            return subprocess.run(command, cwd=self.project.root, env=self.environ, stdout=out, check=False).returncode
        finally:
            signal.signal(signal.SIGINT, before)

    def _capture(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = ["pulumi", *arguments]
        return subprocess.run(
            command, cwd=self.project.root, env=self.environ, capture_output=True, text=True, check=False
        )
