"""The units that renew a server's Vault token on its machine: what systemd and its shell read of them."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from tde_replication.errors import UserError
from tde_replication.hosts.placement import TokenRenewal
from tde_replication.hosts.ssh.renewal import units

RENEWAL = TokenRenewal("/srv/50% $x/db1.token".replace(" ", "-"), "https://vault.example.net:8200", "", "", 691200)
CURL = """#!/bin/sh
printf '%s\\n' "$@" >"$FOUND/arguments"
cat >"$FOUND/input"
"""


def command(renewal: TokenRenewal) -> list[str]:
    """As systemd would start it (systemd.service(5), *Command lines*)."""
    service, _ = units("PostgreSQL server db1", "postgres", renewal)
    line = re.search(r"^ExecStart=(.*)$", service, re.MULTILINE)
    assert line
    words = shlex.split(line[1].replace("\\\\", "\\"))
    return [word.replace("$$", "$").replace("%%", "%") for word in words]


@pytest.mark.parametrize("content", ["s.token\n", "s.token", "s.token\nmore\n", "s.token \r\n"])
@pytest.mark.parametrize("more", [{}, {"ca": "/srv/ca.pem", "namespace": "team/a"}])
def test_the_token_goes_by_standard_input(tmp_path: Path, content: str, more: dict[str, str]) -> None:
    (tmp_path / "token").write_text(content, newline="")
    (tmp_path / "curl").write_text(CURL)
    (tmp_path / "curl").chmod(0o755)
    renewal = TokenRenewal(**{**vars(RENEWAL), "token": str(tmp_path / "token"), **more})
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "FOUND": str(tmp_path)}
    subprocess.run(command(renewal), env=environment, check=True)
    assert (tmp_path / "input").read_text().rstrip("\r\n") == "X-Vault-Token: s.token"
    given = (tmp_path / "arguments").read_text().splitlines()
    expected = ["--cacert", "/srv/ca.pem", "-H", "X-Vault-Namespace: team/a"] if more else []
    assert given == [
        *("-fsS", "--max-time", "60", "-o", "/dev/null", "-X", "POST", "-H", "@-"),
        *expected,
        "https://vault.example.net:8200/v1/auth/token/renew-self",
    ]


def test_what_systemd_would_expand_is_written_twice() -> None:
    assert command(RENEWAL)[-4:] == [RENEWAL.token, RENEWAL.url, "", ""]


def test_a_path_that_a_unit_cannot_hold_is_refused() -> None:
    with pytest.raises(UserError, match="a systemd unit cannot hold a path with a space or a quote"):
        units("db1", "postgres", TokenRenewal(**{**vars(RENEWAL), "token": "/srv/it's/token"}))


def test_the_timer_comes_four_times_in_a_period() -> None:
    _, timer = units("PostgreSQL server db1 of 100%", "postgres", RENEWAL)
    assert "OnUnitActiveSec=691200\n" in timer
    assert "100%%, four" in timer
