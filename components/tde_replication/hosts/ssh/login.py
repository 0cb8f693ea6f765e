"""How a machine is reached by OpenSSH: what the stack file says of it, as a URL, and as the arguments of `ssh`."""

import hashlib
import os
import shlex
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit

from tde_replication.errors import NotMadeYet, UserError
from tde_replication.host_keys import is_bare
from tde_replication.hosts.account import PROJECT
from tde_replication.hosts.ssh import sudo
from tde_replication.hosts.ssh.private_directory import control
from tde_replication.placeholders import is_placeholder, server_of

if TYPE_CHECKING:
    from tde_replication.host_settings import Ssh

PORT = 22
CONNECT_SECONDS = 15
NO_SSH = "there is no ssh on this machine: install OpenSSH's client"
OPTIONS = {
    "BatchMode": "yes",
    "StrictHostKeyChecking": "yes",
    "UpdateHostKeys": "no",
    "ConnectTimeout": str(CONNECT_SECONDS),
    "ServerAliveInterval": "5",
    "ServerAliveCountMax": "3",
    "ClearAllForwardings": "yes",
    "ForwardAgent": "no",
    "PermitLocalCommand": "no",
    "RemoteCommand": "none",
    "RequestTTY": "no",
    "LogLevel": "ERROR",
}


@dataclass(frozen=True)
class Login:
    """How a machine is reached. What is None is left to the user's own ssh configuration and agent."""

    host: str
    port: int | None = None
    user: str | None = None
    account: str = "postgres"
    """The account that owns the server; the login's own, or one that it becomes by sudo."""
    key: str | None = None
    """The file of a private key; it may start with ~."""
    certificate: str | None = None
    known_hosts: str | None = None
    """A file beside the user's own; one that is not absolute is counted from the project."""
    jump: tuple[str, ...] = ()
    """Hosts to go through, nearest first: [user@]host[:port]."""
    host_keys: tuple[str, ...] = ()
    """As `tde_replication.host_keys` has them: keys of this machine, or lines of known_hosts beside the others."""

    OPTIONAL: ClassVar = ("key", "certificate", "known_hosts")

    def __str__(self) -> str:
        return self.host if self.port in {None, PORT} else f"{_bracketed(self.host)}:{self.port}"

    @property
    def login(self) -> str:
        return f"{self.user}@{self}" if self.user else str(self)

    def address(self, **more: str) -> str:
        """Serialise to a URL that `parse` reads back; `more` holds query parameters of the kind of host."""
        user = f"{quote(self.user, safe='')}@" if self.user else ""
        port = f":{self.port}" if self.port else ""
        parameters = [("account", self.account)]
        parameters += [(name, value) for name in self.OPTIONAL if (value := getattr(self, name))]
        parameters += [("host_key", line) for line in self.host_keys]
        parameters += [("jump", hop) for hop in self.jump] + sorted(more.items())
        return f"ssh://{user}{_bracketed(self.host)}{port}?{urlencode(parameters, safe='/@:~[]')}"

    @classmethod
    def parse(cls, address: str) -> tuple["Login", dict[str, str]]:
        """The login that an `address` names, and the other parameters in it."""
        url = urlsplit(address)
        pairs = parse_qsl(url.query)
        more = {name: value for name, value in pairs if name not in {"host_key", "jump"}}
        login = cls(
            host=_host_of(url),
            port=url.port,
            user=unquote(url.username) if url.username else None,
            account=more.pop("account", "postgres"),
            key=more.pop("key", None),
            certificate=more.pop("certificate", None),
            known_hosts=more.pop("known_hosts", None),
            host_keys=tuple(value for name, value in pairs if name == "host_key"),
            jump=tuple(value for name, value in pairs if name == "jump"),
        )
        return login, more

    def expect_made(self) -> None:
        """Raises `NotMadeYet` where something of it is not known yet."""
        if any(map(is_placeholder, (self.host, *self.jump, *self.host_keys))):
            raise NotMadeYet(server_of(self.host) if is_placeholder(self.host) else str(self))

    def hop(self, machine: str, *before: str) -> "Login":
        """The login to a jump host of this one."""
        url = urlsplit(f"ssh://{machine}")
        files = {name: getattr(self, name) for name in self.OPTIONAL}
        known = tuple(line for line in self.host_keys if not is_bare(line))
        return Login(_host_of(url), url.port, url.username, host_keys=known, jump=before, **files)

    @property
    def password(self) -> sudo.Password | None:
        """What sudo may ask this login for."""
        return sudo.password(self.host, self.port)

    @property
    def answer(self) -> str:
        """What sudo is to read, whether or not it does."""
        return f"{self.password.value}\n" if self.password else ""

    def become(self, account: str) -> str:
        """What makes a command behind it run as `account`; empty where the login is that account."""
        if account == self.user:
            return ""
        return f"runuser -u {account} -- " if self.user == "root" else sudo.command(account, asked=bool(self.password))

    def asks(self, account: str) -> bool:
        """Whether sudo may want a password on the way to `account`."""
        return self.become(account).startswith("sudo -S")

    def options(self) -> list[str]:
        """The arguments of ssh for this destination, without sharing."""
        options = dict(OPTIONS)
        if self.key:
            options |= {"IdentityFile": _file(self.key), "IdentitiesOnly": "yes"}
        if self.certificate:
            options["CertificateFile"] = _file(self.certificate)
        own = [self.password.host_key] if self.password else [line for line in self.host_keys if is_bare(line)]
        if own:  # a password goes to the machine with this key, whatever a stack file has known_hosts say
            options["UserKnownHostsFile"] = _file(str(_kept(*(f"* {key}" for key in own))))
            options["GlobalKnownHostsFile"] = "none"
        elif self.known_hosts or self.host_keys:
            files = [_kept(*self.host_keys)] if self.host_keys else []
            files += [PROJECT / Path(self.known_hosts).expanduser()] if self.known_hosts else []
            options["UserKnownHostsFile"] = " ".join([*(_file(str(file)) for file in files), "~/.ssh/known_hosts"])
        if self.jump:
            # Not ProxyJump: that gives a hop none of these options, its host key's check among them.
            *before, last = self.jump
            via = self.hop(last, *before)
            command = shlex.join(["ssh", *via.options()]).replace("%", "%%")
            options["ProxyCommand"] = f"{command} -W '[%h]:%p' -- {shlex.quote(via.host)}"
        words = [f"-o{name}={value}" for name, value in options.items()]
        words += ["-p", str(self.port)] if self.port else []
        words += ["-l", self.user] if self.user else []
        return words


def login_of(declared: "Ssh") -> Login:
    """As a server's `host` declares it."""
    return Login(
        host=declared.machine,
        port=declared.port,
        user=declared.user,
        account=declared.account,
        key=declared.key,
        certificate=declared.certificate,
        known_hosts=declared.known_hosts,
        jump=declared.hops,
        host_keys=declared.own_keys,
    )


def connection_settings(login: Login) -> dict[str, list[str]]:
    """What ssh makes of a login together with the user's own configuration: values by lower-case keyword (ssh -G)."""
    command = ["ssh", "-G", *login.options(), "--", login.host]
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)
    except FileNotFoundError:
        raise UserError(NO_SSH) from None
    if done.returncode:
        raise UserError(f"{login}: ssh rejects its settings: {done.stderr.strip()}")
    found: dict[str, list[str]] = {}
    for line in done.stdout.splitlines():
        keyword, _, value = line.partition(" ")
        found.setdefault(keyword, []).extend(value.split() if keyword.endswith("knownhostsfile") else [value])
    return found


def known_host_keys(settings: dict[str, list[str]]) -> dict[str, str]:
    """The machine's keys in the user's known_hosts, each with its kind before it, by that; `settings`: `connection_settings`."""
    port = settings["port"][0]
    name = settings.get("hostkeyalias", settings["hostname"])[0]
    looked_up = name if int(port) == PORT else f"[{name}]:{port}"
    known: dict[str, str] = {}
    for file in [*settings.get("userknownhostsfile", []), *settings.get("globalknownhostsfile", [])]:
        path = Path(file).expanduser()
        if path.exists():
            command = ["ssh-keygen", "-F", looked_up, "-f", str(path)]
            output = subprocess.run(command, capture_output=True, text=True, check=False).stdout
            for line in output.splitlines():
                words = line.split()
                if not line.startswith(("#", "@")) and len(words) > 2:  # noqa: PLR2004 - names, type, key
                    known.setdefault(words[1], f"{words[1]} {words[2]}")
    return known


def _host_of(url: SplitResult) -> str:
    """As it was written: `hostname` is in lower case, and ssh_config(5) tells `Host DB1` from `Host db1`."""
    place = url.netloc.rpartition("@")[2]
    return unquote(place[1 : place.index("]")] if place.startswith("[") else place.partition(":")[0])


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _kept(*lines: str) -> Path:
    """A file of known_hosts with these lines alone."""
    text = "".join(f"{line}\n" for line in lines)
    path = control() / f"known-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    draft = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}")
    draft.write_text(text)
    draft.rename(path)
    return path


def _file(path: str) -> str:
    """A path as ssh_config(5) takes it: it may hold spaces, and no % of it is a token."""
    return '"' + path.replace("%", "%%") + '"'


def environment() -> dict[str, str]:
    """The user's own, for their agent and proxies, without this project's secrets, and with messages in English."""
    hidden = ("VAULT_", "PULUMI_", "TDE_REPLICATION_", "LC_", "LANG")
    return {name: value for name, value in os.environ.items() if not name.startswith(hidden)} | {"LC_ALL": "C"}
