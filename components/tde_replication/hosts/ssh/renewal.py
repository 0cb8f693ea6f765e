"""A systemd timer on a machine that renews the Vault token of the server there. (systemd.timer(5); Vault API, *Renew a token
(self)*.)

It runs as the server's account, which reads the token. curl gets that by standard input (curl(1), *-H @-*), and follows no
redirect with it.
"""

from tde_replication.hosts.placement import TokenRenewal
from tde_replication.hosts.ssh.placement import unit_word

# $1 verb, $2 name of the units, $3 text of the service, $4 text of the timer
SCRIPT = """
set -eu
directory=/etc/systemd/system
if [ "$1" = remove ]; then
    systemctl disable --now "$2.timer" 2>/dev/null || true
    rm -f -- "$directory/$2.timer" "$directory/$2.service"
    systemctl daemon-reload
    systemctl reset-failed "$2.service" 2>/dev/null || true
    exit
fi
if ! command -v curl >/dev/null; then
    echo "vault.renewal: timer: this machine has no curl, which renews the token: install it" >&2
    exit 1
fi
put() {
    printf '%s' "$2" >"$directory/$1.new"
    chmod 0644 "$directory/$1.new"
    mv -f "$directory/$1.new" "$directory/$1"
}
put "$2.service" "$3"
put "$2.timer" "$4"
systemctl daemon-reload
systemctl enable --quiet "$2.timer"
systemctl restart "$2.timer"
"""
# $1 the token's file, $2 Vault's URL, $3 the CA's file or "", $4 the namespace or "". As pg_tde reads it: its first word.
RENEW = (
    'read -r token rest <"$1" || [ -n "$token" ]; printf "X-Vault-Token: %s\\n" "$token" | exec curl -fsS --max-time 60 '
    '-o /dev/null -X POST -H @- ${3:+--cacert "$3"} ${4:+-H "X-Vault-Namespace: $4"} "$2/v1/auth/token/renew-self"'
)
SERVICE = """\
# Made by tde-replication, which writes it again on `pulumi up`.
[Unit]
Description=Renewal of the Vault token of {of}
Wants=network-online.target
After=network-online.target

[Service]
Type=oneshot
User={account}
NoNewPrivileges=yes
ExecStart=/bin/sh -euc '{script}' sh {arguments}
"""
TIMER = """\
# Made by tde-replication, which writes it again on `pulumi up`.
[Unit]
Description=Renewal of the Vault token of {of}, four times in its period

[Timer]
OnBootSec=10min
OnActiveSec={seconds}
OnUnitActiveSec={seconds}

[Install]
WantedBy=timers.target
"""


def units(of: str, account: str, renewal: TokenRenewal) -> tuple[str, str]:
    """The texts of the service and of its timer; `of`: the server, for people."""
    words = (renewal.token, renewal.url, renewal.ca, renewal.namespace)
    of = of.replace("%", "%%")
    service = SERVICE.format(
        of=of,
        account=account,
        script=RENEW.replace("%", "%%").replace("$", "$$").replace("\\", "\\\\"),
        arguments=" ".join(unit_word(word) if word else '""' for word in words),
    )
    return service, TIMER.format(of=of, seconds=renewal.seconds)
