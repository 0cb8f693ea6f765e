"""What `placement` has run as root on a machine: constant scripts, with "make" or "remove" as "$1"; each may run again."""

from tde_replication.hosts.ssh.way_scripts import WAY

# $1 verb, $2 system, $3 version. Packages stay when the stack goes: other servers may use them.
PACKAGES = r"""
[ "$1" = make ] || exit 0
export DEBIAN_FRONTEND=noninteractive LC_ALL=C
set -eu
repository=https://repo.percona.com
# The key that Percona signs its packages with, known by its fingerprint: neither TLS nor a mirror has to be trusted for them.
fingerprint=4D1BB29D63D98E422B2113B19334A25F8507EFA5
trust() {
    curl -fsSL --proto =https --max-filesize 100000 -o "$1.new" "$repository/yum/PERCONA-PACKAGING-KEY"
    keys=$(gpg --batch --no-options --with-colons --show-keys "$1.new" | awk -F: '/^pub/ {p = 1} /^fpr/ && p {print $10; p = 0}')
    if [ "$keys" != "$fingerprint" ]; then
        rm -f -- "$1.new"
        echo "$repository/yum/PERCONA-PACKAGING-KEY is not Percona's key $fingerprint: nothing was installed" >&2
        exit 1
    fi
    mv -f -- "$1.new" "$1"
}
case $2 in
debian)
    # One that was removed and not purged is known too, and is not there.
    found=$(dpkg-query -Wf '${db:Status-Status} ' "percona-pg-tde$3" "percona-postgresql-$3" 2>/dev/null) || true
    [ "$found" != "installed installed " ] || exit 0
    # Else the package makes a cluster "main", which takes port 5432.
    mkdir -p /etc/postgresql-common/createcluster.d
    echo "create_main_cluster = false" >/etc/postgresql-common/createcluster.d/tde-replication.conf
    if command -v percona-release >/dev/null; then
        percona-release setup -y "ppg-$3"
    else
        apt-get -qq -o DPkg::Lock::Timeout=300 update
        apt-get -qq -y -o DPkg::Lock::Timeout=300 install ca-certificates curl gnupg
        key=/usr/share/keyrings/tde-replication-percona.asc
        trust "$key"
        release=$(. /etc/os-release && echo "$VERSION_CODENAME")
        echo "deb [signed-by=$key] $repository/ppg-$3/apt $release main" >"/etc/apt/sources.list.d/tde-replication-ppg-$3.list"
    fi
    apt-get -qq -o DPkg::Lock::Timeout=300 update
    apt-get -qq -y -o DPkg::Lock::Timeout=300 install "percona-postgresql-$3" "percona-pg-tde$3"
    ;;
redhat)
    rpm -q "percona-postgresql$3-server" "percona-pg_tde$3" >/dev/null 2>&1 && exit 0
    # The distribution's own module hides Percona's packages.
    dnf -qy module disable postgresql || true
    if command -v percona-release >/dev/null; then
        percona-release setup -y "ppg-$3"
    else
        key=/etc/pki/rpm-gpg/tde-replication-percona
        trust "$key"
        cat >"/etc/yum.repos.d/tde-replication-ppg-$3.repo" <<END
[tde-replication-ppg-$3]
name=Percona Distribution for PostgreSQL $3
baseurl=$repository/ppg-$3/yum/release/\$releasever/RPMS/\$basearch
gpgcheck=1
gpgkey=file://$key
END
    fi
    dnf -y install "percona-postgresql$3-server" "percona-postgresql$3-contrib" "percona-pg_tde$3"
    ;;
esac
"""
# $1 verb, $2 directory of package files, counted from the login's home; the rest: their names. The login takes away what it has
# brought: as root, that would go where a link in its home leads.
FILES = """
set -eu
export DEBIAN_FRONTEND=noninteractive LC_ALL=C
verb=$1 directory=$2
shift 2
if [ "$verb" = remove ]; then
    as_login() { if [ "${SUDO_USER:-root}" = root ]; then "$@"; else runuser -u "$SUDO_USER" -- "$@"; fi; }
    as_login rm -rf -- "$directory"
    as_login rmdir -p -- "${directory%/*}" 2>/dev/null || true
    exit
fi
cd -- "$directory"
case $1 in
*.deb)
    mkdir -p /etc/postgresql-common/createcluster.d
    echo "create_main_cluster = false" >/etc/postgresql-common/createcluster.d/tde-replication.conf
    apt-get -qq -y -o DPkg::Lock::Timeout=300 install "$@"
    ;;
*)  dnf -y install "$@" ;;
esac
"""
# $1 verb, $2 account, $3 directory above the data, $4 whether that is of the stack's own making. Root makes and gives away only
# what lies in directories that nobody but root may change: in the account's own, a link of its making would lead root anywhere.
DIRECTORY = (
    WAY
    + """
set -eu
umask 022
account=$2 accounts=" 0 "
# Into the directory above $1, which stays the one that was entered. From where others may change the way, there is no link in it.
enter() {
    way "${1%/*}" || :
    real=$at${rest:+/${rest%/}}
    cd -P -- "${real:-/}" && [ "$(pwd -P)" = "${real:-/}" ]
}
take_away() {
    ( enter "$1" && rmdir ${2-} -- "${1##*/}" ) 2>/dev/null || runuser -u "$account" -- rmdir ${2-} -- "$1" 2>/dev/null
}
give() { mkdir -m 0700 -- "$1" && chown -h "$account:$(id -gn "$account")" -- "$1"; }
make() {
    until way "$1"; do
        if [ -e "$place" ] || [ -L "$place" ]; then
            if [ ! -L "$place" ] && only_for "$place"; then continue; fi  # root has made it meanwhile, for another server
            # The directory above may be root's, in one of the account's: earlier versions made it so.
            ( enter "$1" && only_for . && give "${1##*/}" ) 2>/dev/null || runuser -u "$account" -- mkdir -p -m 0700 -- "$1"
            return
        fi
        case ${rest%/} in
        */*) mkdir -- "$place" || [ -d "$place" ] || return ;;
        *)  give "$place"; return ;;
        esac
    done
}
if [ "$1" = remove ]; then
    [ "$4" = yes ] || exit 0
    if ! take_away "$3" --ignore-fail-on-non-empty && [ -d "$3" ]; then
        echo "$3 cannot be removed, or a link of $account leads there: see what is there, and remove it yourself" >&2
        exit 1
    fi
    take_away "${3%/*}" || true  # of this version's servers, where no other is left
    exit
fi
id -u "$account" >/dev/null
if ! { [ -d "$3" ] || make "$3"; } || ! runuser -u "$account" -- test -w "$3"; then
    echo "$account cannot write to $3: give it that directory, or name a dataDirectory in one of its own" >&2
    exit 1
fi
"""
)
# $1 verb, $2 unit, $3 its text
UNIT = """
set -eu
file=/etc/systemd/system/$2.service
if [ "$1" = remove ]; then
    systemctl disable --now "$2" 2>/dev/null || true
    rm -f -- "$file"
    systemctl daemon-reload
    systemctl reset-failed "$2" 2>/dev/null || true
    exit
fi
printf '%s' "$3" >"$file.new"
chmod 0644 "$file.new"
mv -f "$file.new" "$file"
systemctl daemon-reload
systemctl enable --quiet "$2"
"""
UNIT_TEXT = """\
# Made by tde-replication, which writes it again on `pulumi up`.
[Unit]
Description=PostgreSQL server {name} of stack {stack}
Wants=network-online.target
After=network-online.target
RequiresMountsFor={data}/PG_VERSION
ConditionPathExists={data}/PG_VERSION
StartLimitIntervalSec=0

[Service]
Type=simple
User={account}
RuntimeDirectory={unit}
Environment=LC_ALL=C.UTF-8 TZ=UTC
ExecStart={binaries}/postgres -D {data}
ExecReload=/bin/kill -HUP $MAINPID
# A fast shutdown by the postmaster, as long as it takes; and nobody kills its processes one by one.
KillMode=mixed
KillSignal=SIGINT
TimeoutSec=infinity

[Install]
WantedBy=multi-user.target
"""
