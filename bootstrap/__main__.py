"""Make everything that is needed, then do one thing with it.

python -m bootstrap                          virtual environment, engine, plugins
python -m bootstrap env                      the commands that env.sh lets the shell run
python -m bootstrap run COMMAND ...          run a command in that environment
python -m bootstrap policies                 the virtual environment of the policy pack
python -m bootstrap up|preview|drift|destroy|vault|reap|clean
"""

import argparse
import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

from bootstrap import embedded, engine, environment, plugins, policies, private, venv
from bootstrap.project import HERE, BootstrapError, Project, run_quietly, say
from bootstrap.stack import LOCAL, VAULTS, Stack
from bootstrap.vault_check import GONE, why_unusable
from tde_replication import allowed
from tde_replication.errors import UserError
from tde_replication.hosts.account import local_root, service_account

STEPS = ("up", "preview", "drift", "destroy", "vault")
COMMANDS = ("prepare", "env", "run", *STEPS, "policies", "reap", "clean")


def prepare(
    project: Project, environ: Mapping[str, str], *, development: bool, aloud: bool
) -> tuple[engine.Engine, plugins.Plugins]:
    """Have all that is needed; where it is there already this reads a few small files."""
    with _alone(project):
        fresh = not (project.local / "plugins.json").exists()
        venv.ensure(project, development=development)
        embedded.ensure(project)
        chosen = engine.ensure(project, environ)
        installed = plugins.ensure(project, chosen, environ)
    if aloud and not fresh:
        say(f"engine: {chosen.why}")
        if installed.stand_ins:
            say(f"plugins: offline stand-in for {installed.stand_ins}")
    account = service_account()
    if aloud and account.switches:
        say(
            f"servers: on this machine as {account.name}, because PostgreSQL does not run as root; {local_root(project.root)}"
        )
    if aloud and not environment.has_backend(environ):
        say(f"state: {project.state}, because you have no Pulumi login or backend")
    return chosen, installed


@contextmanager
def _alone(project: Project) -> Iterator[None]:
    """Two at once would build two engines into one place."""
    private.close(project)
    with (project.local / "bootstrap.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bootstrap", description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--development", action="store_true", help="with what tests and lint need")
    parser.add_argument("--stack", default=os.environ.get("STACK") or LOCAL)
    parser.add_argument("command", nargs="?", default="prepare", choices=COMMANDS)
    parser.add_argument("rest", nargs=argparse.REMAINDER)
    options = parser.parse_args(arguments)
    project, environ = HERE, environment.own(os.environ)
    embedded = options.command != "reap" and options.stack in VAULTS and "VAULT_ADDR" not in environ
    if options.command == "clean":
        return _clean(project)
    if options.command == "policies":
        policies.ensure(project)
        return 0
    if options.command == "reap" and _nothing_made(project, environ):
        say("there are no stacks")
        return 0
    if options.command == "destroy" and _nothing_made(project, environ):
        bare = {**environ, "PULUMI_BACKEND_URL": project.backend}
        return Stack(project, options.stack, bare, embedded).destroy()
    _expect_stack_file(project, options.stack, options.command)
    aloud = options.command in ("prepare", "env", "up")
    chosen, installed = prepare(project, environ, development=options.development, aloud=aloud)
    _expect_allowed(project, options.stack, environ)
    if options.command in ("up", "preview", "drift", "vault"):
        quietly = options.command in ("preview", "drift")
        code = Stack(project, options.stack, environ, embedded).vault("start", quietly=quietly)
        if code or options.command == "vault":
            return code
    new = environment.variables(
        project, chosen, installed, environ, embedded_vault=embedded, module=VAULTS.get(options.stack, "")
    )
    if new.get("PULUMI_BACKEND_URL") == project.backend:
        private.make_state(project)  # without it, every `pulumi` by hand fails
    stack = Stack(project, options.stack, {**environ, **new, environment.MARK: environment.mark(new)}, embedded)
    private.passphrase(project, stack.environ, stack.name, lambda name: replace(stack, name=name).release())
    return _perform(options.command, options.rest, stack, new, own_backend=environment.has_backend(environ))


def _perform(command: str, rest: list[str], stack: Stack, new: Mapping[str, str], *, own_backend: bool) -> int:
    """Do one thing, in an environment that `new` was added to."""
    unusable = _why_unusable(stack, command)
    if command == "env":
        if not own_backend and stack.name == LOCAL:
            stack.select()
        print(environment.shell(os.environ, new))
        print(environment.asking_first(stack.project))
        if unusable:
            say(f"note: {unusable}")
    elif command in ("run", "reap"):
        rest = rest if command == "run" else [str(stack.project.python), "-m", "bootstrap.reap"]
        os.execvpe(rest[0], rest, stack.environ)  # noqa: S606
    elif unusable:
        raise BootstrapError(unusable)
    elif command in STEPS:
        return int(getattr(stack, command)())
    return 0


def _why_unusable(stack: Stack, command: str) -> str | None:
    """What keeps a command from using the stack's Vault; a shell without any is no mistake."""
    file = stack.project.root / "stacks" / f"Pulumi.{stack.name}.yaml"
    if command == "destroy" and not stack.embedded_vault and file.exists():
        why = why_unusable(file, stack.environ)
        return f"{why} {GONE}" if why else None
    if command not in ("up", "preview", "drift", "env") or (command == "env" and "VAULT_ADDR" not in stack.environ):
        return None
    return why_unusable(file, stack.environ)


def _expect_stack_file(project: Project, stack: str, command: str) -> None:
    """Without its file a stack would be made of defaults alone."""
    if command not in ("up", "preview", "drift"):
        return
    files = sorted((project.root / "stacks").glob("Pulumi.*.yaml"))
    names = [file.name.removeprefix("Pulumi.").removesuffix(".yaml") for file in files]
    if stack not in names:
        raise BootstrapError(
            f"there is no stacks/Pulumi.{stack}.yaml: write it, or set STACK to one of {', '.join(names)}"
        )


def _expect_allowed(project: Project, stack: str, environ: Mapping[str, str]) -> None:
    """Pulumi obeys some of a stack file before any program could say that this run must not."""
    file = project.root / "stacks" / f"Pulumi.{stack}.yaml"
    if allowed.VARIABLE not in environ or not file.exists():
        return
    # By YAML's own rules, for there are many ways to write a key.
    script = (
        "import json, sys, yaml; read = yaml.safe_load(open(sys.argv[1])) or {}; "
        "print(json.dumps({str(key): key != 'config' and value for key, value in read.items()}, default=str))"
    )
    document = json.loads(run_quietly([project.python, "-c", script, file], f"reading {file}"))
    if mistakes := allowed.of_pulumi(document, environ):
        raise BootstrapError("\n".join(f"{file.name}: {mistake}" for mistake in mistakes))


def _nothing_made(project: Project, environ: Mapping[str, str]) -> bool:
    """Whether there is no state of ours and no backend of the user's: no engine need be built to destroy nothing."""
    return not environment.has_backend(environ) and not _has_state(project)


def _has_state(project: Project) -> bool:
    return project.state.exists() and any(project.state.iterdir())


def _clean(project: Project) -> int:
    """Remove what the bootstrap made: only once nothing runs that it would be needed to take away."""
    vault = [str(project.python), "-m", "bootstrap.vault", "env"]
    made = project.python.exists() and subprocess.run(vault, cwd=project.root, capture_output=True, check=False).stdout
    if made or _has_state(project):
        raise BootstrapError("a stack or a Vault still exists: run `make destroy` first")
    private.forget_passphrase(project)
    kept = project.passphrase.read_text() if project.passphrase.exists() else None
    for place in (project.local, project.venv, policies.environment(project)):
        shutil.rmtree(place, ignore_errors=True)
    if kept is not None:
        private.close(project)
        private.write(project.passphrase, kept)
        say(f"kept: {project.passphrase}, because it encrypts settings in stacks/")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (BootstrapError, UserError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
