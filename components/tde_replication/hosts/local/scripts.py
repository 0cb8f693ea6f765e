"""Scripts for servers that are processes on this machine, run as their account (see `file_scripts`)."""

from tde_replication.hosts.file_scripts import PRELUDE

# $1 log, $2 program, $3 data directory, $4 directory of its socket; says where the log stood. `setsid --fork` hands the server to
# init: it outlives us, and nobody here has to wait for it.
LAUNCH = (
    PRELUDE
    + """
if [ -e "$1" ] || [ -L "$1" ]; then regular "$1"; mark=$(wc -c <"$1"); else mark=0; fi
mkdir -- "$4" 2>/dev/null || [ -d "$4" ] || exit
if [ "$4" != "${3%/*}" ]; then
    [ ! -L "$4" ] && [ "$(stat -c '%u %a' -- "$4")" = "$(id -u) 700" ] ||
        { echo "$4: it is not the account's own, with mode 0700" >&2; exit 1; }
fi
export LC_ALL=C.UTF-8
setsid --fork "$2" -D "$3" </dev/null >>"$1" 2>&1 || exit
echo "$mark"
"""
)
# $1 data directory. PostgreSQL takes a zombie for a running server: of a postmaster that was killed and whose parent has not
# taken notice (an init that is slow, or a container without one) the lock files go, once its last child has gone.
BURY = (
    PRELUDE
    + """
[ -f "$1/postmaster.pid" ] && [ ! -L "$1/postmaster.pid" ] || exit 0
{ read -r pid; read -r _; read -r _; read -r port; read -r sockets; } <"$1/postmaster.pid" || exit 0
case $pid in '' | *[!0-9]*) exit 0 ;; esac
case $port in '' | *[!0-9]*) exit 0 ;; esac
{ read -r stat <"/proc/$pid/stat"; } 2>/dev/null || exit 0
case ${stat##*") "} in Z*) ;; *) exit 0 ;; esac
left=100
while [ "$left" -gt 0 ]; do
    working=
    for process in /proc/[0-9]*; do if [ "$process/cwd" -ef "$1" ]; then working=yes; fi; done
    [ -n "$working" ] || break
    left=$((left - 1))
    sleep 0.1
done
[ "$left" -gt 0 ] || exit 0
for file in "$sockets/.s.PGSQL.$port.lock" "$1/postmaster.pid"; do
    [ -f "$file" ] && [ ! -L "$file" ] && read -r first <"$file" && [ "$first" = "$pid" ] && rm -f -- "$file"
done
exit 0
"""
)
# $1 data directory, $2 directory of its socket: what a killed server left of it goes, here and where postmaster.pid says. A lock
# file names the data directory that it was for.
SWEEP = (
    PRELUDE
    + """
sockets=$2
if [ -f "$1/postmaster.pid" ] && [ ! -L "$1/postmaster.pid" ]; then
    { read -r _; read -r _; read -r _; read -r _; read -r sockets; } <"$1/postmaster.pid" || sockets=$2
fi
for lock in "$sockets"/.s.PGSQL.*.lock "$2"/.s.PGSQL.*.lock; do
    [ -f "$lock" ] && [ ! -L "$lock" ] && [ -r "$lock" ] || continue
    { read -r _; read -r owner; } <"$lock"
    if [ "$owner" = "$1" ]; then rm -f -- "${lock%.lock}" "$lock"; fi
done
"""
)
REMOVE_EMPTY = """rmdir -- "$1" 2>/dev/null"""
