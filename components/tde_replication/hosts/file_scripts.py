"""File operations as constant POSIX sh scripts, run as the server's account: the same on every kind of host (see `files`).

Paths and numbers reach them as "$1" and so on. No script follows a link in the place of a file, or opens anything but a regular
file: a FIFO would never answer. They need a POSIX sh and coreutils.
"""

ABSENT, EXISTS, NOT_A_FILE, OTHER_DEVICE, NOT_OURS, UNKNOWN = 44, 45, 46, 47, 48, 49
"""Exit statuses. `NOT_OURS`: owner, group or mode could not be kept. `UNKNOWN`: a process cannot be looked at."""
ANSWERS = frozenset({0, ABSENT, EXISTS, NOT_A_FILE, OTHER_DEVICE, NOT_OURS, UNKNOWN})

# "No such file" is an answer. That a directory may not be entered is an error.
PRELUDE = """
export LC_ALL=C
umask 077
there() {
    if [ -e "$1" ] || [ -L "$1" ]; then return; fi
    said=$(stat -- "$1" 2>&1) && return
    case $said in *": No such file or directory" | *": Not a directory") exit 44 ;; esac
    printf '%s\\n' "$said" >&2
    exit 1
}
regular() {
    there "$1"
    if [ -f "$1" ] && [ ! -L "$1" ]; then return; fi
    there "$1"  # it may have gone meanwhile
    exit 46
}
"""
# Runs "$@" and ends its whole group when standard input closes, that is when the process that asked for it is gone, however
# it went: a base backup whose caller was killed must not go on holding its slot. No setting is part of this script.
SUPERVISE = """
exec 3<&0 </dev/null
"$@" 3<&- &
child=$!
{ read -r _ <&3; kill -s KILL -- -$$; } 2>/dev/null &
watcher=$!
wait "$child"
status=$?
kill "$watcher" 2>/dev/null
wait "$watcher" 2>/dev/null
exit "$status"
"""
# In a plain environment; a command with "=" in its path would be a variable to `env`.
OUTPUT = """exec env -i PATH=/usr/bin:/bin LC_ALL=C.UTF-8 TZ=UTC /bin/sh -c 'exec "$@"' sh "$@" """
STATUS = PRELUDE + """there "$1"; exec stat -c '%f %U %u' -- "$1" """
# $2: at most so many bytes
READ = PRELUDE + """regular "$1"; exec head -c "$2" -- "$1" """
READ_BEHIND_LINKS = (
    PRELUDE + """there "$1"; set -- "$(readlink -f -- "$1")" "$2"; regular "$1"; exec head -c "$2" -- "$1" """
)
REAL = PRELUDE + """there "$1"; exec readlink -f -- "$1" """
LISTING = (
    PRELUDE
    + """
there "$1"
[ -d "$1" ] || exit 44
{ cd -- "$1" && [ -r . ]; } 2>/dev/null || { echo "$1: Permission denied" >&2; exit 1; }
for name in * .[!.]* ..?*; do if [ -e "$name" ] || [ -L "$name" ]; then printf '%s\\0' "$name"; fi; done
"""
)
MAKE_DIRECTORY = PRELUDE + """exec mkdir -p -- "$1" """
# What came only in part (a lost connection) is not put in place. One that stops reading would block the sender.
_RECEIVE = """
head -c "$2" >"$draft" || { cat >/dev/null; exit 1; }
[ "$(wc -c <"$draft")" -eq "$2" ] || { echo "only a part of it arrived" >&2; exit 1; }
chmod -- "$mode" "$draft"
sync -- "$draft"
mv -fT -- "$draft" "$1"
sync -- "$directory"
"""
_DRAFT = """
set -e
directory=${1%/*}
draft=$directory/.${1##*/}.new
trap 'rm -f -- "$draft"' EXIT
trap 'exit 1' HUP INT TERM
"""
# $1 path, $2 bytes, $3 mode
WRITE = (
    PRELUDE
    + _DRAFT
    + """
mode=$3
[ -d "$directory" ] || mkdir -p -- "$directory"
rm -f -- "$draft"
set -C
"""
    + _RECEIVE
)
# $1 path, $2 bytes. The copy brings owner, group, mode, access control list and extended attributes along.
REPLACE = (
    PRELUDE
    + _DRAFT
    + """
regular "$1"
mode=$(stat -c %a -- "$1")
rm -f -- "$draft"
cp --preserve=all -- "$1" "$draft"
[ "$(stat -c '%u %g %a' -- "$1")" = "$(stat -c '%u %g %a' -- "$draft")" ] || exit 48
chmod u+w "$draft"
"""
    + _RECEIVE
)
# $1 old, $2 new, $3 directory of the new
RENAME = (
    PRELUDE
    + """
there "$1"
if [ -e "$2" ] || [ -L "$2" ]; then exit 45; fi
[ "$(stat -c %d -- "$1")" = "$(stat -c %d -- "$3")" ] || exit 47
mv -nT -- "$1" "$2" || exit
if [ -e "$1" ] || [ -L "$1" ]; then exit 45; fi
sync -- "$3"
"""
)
# With what a write left that was killed.
REMOVE = (
    PRELUDE
    + """
draft=${1%/*}/.${1##*/}.new
if [ -f "$draft" ] || [ -L "$draft" ]; then rm -f -- "$draft" || exit; else there "$1"; fi
exec rm -rf -- "$1"
"""
)
# $1 file, $2 first byte, $3 at most so many, of its end
TAIL = (
    PRELUDE
    + """
regular "$1"
from=$(($(wc -c <"$1") - $3))
[ "$from" -gt "$2" ] || from=$2
tail -c "+$((from + 1))" -- "$1" | head -c "$3"
"""
)

# A postmaster's working directory is its data directory, so a recycled pid is not taken for it. The kernel calls a directory that
# was removed "… (deleted)". Prints the pid, "here" or "lost", and the first lines of postmaster.pid.
POSTMASTER = (
    PRELUDE
    + """
[ -d /proc/self ] || { echo "there is no /proc" >&2; exit 49; }
state() { read -r stat <"/proc/$1/stat" && stat=${stat##*") "}; } 2>/dev/null
owner() { while read -r key uid _; do [ "$key" != Uid: ] || break; done <"/proc/$1/status"; } 2>/dev/null

file=$1/postmaster.pid
if [ -e "$file" ] || [ -L "$file" ]; then
    regular "$file"
    content=$(head -c 4096 -- "$file") || exit 49
    pid=${content%%
*}
    pid=${pid#-}  # of a server in single-user mode it is negative
    case $pid in *[!0-9]* | ???????????*) pid= ;; esac
    if [ -n "$pid" ] && [ -d "/proc/$pid" ]; then
        if [ "/proc/$pid/cwd" -ef "$1" ]; then
            printf '%s\\nhere\\n%s\\n' "$pid" "$content"
            exit 0
        elif [ ! -e "/proc/$pid/cwd" ] && state "$pid" && owner "$pid"; then
            case $stat in
            [ZX]*) ;;
            *)  if [ "$uid" = "$(stat -c %u -- "$1")" ]; then
                    echo "process $pid, which postmaster.pid names, cannot be looked at" >&2
                    exit 49
                fi ;;
            esac
        fi
    fi
else
    ( there "$1/." )  # in a directory that may not be entered there may be one
    case $? in 0 | 44) ;; *) exit 49 ;; esac
fi

# A server whose lock file or whole directory was taken away: its own processes work in there, too.
real=$(readlink -m -- "$1" 2>/dev/null) || real=$1
ls -l /proc/[0-9]*/cwd 2>/dev/null | {
    found='' parents=' '
    while IFS= read -r line; do
        case $line in *"/cwd -> $real" | *"/cwd -> $real (deleted)") ;; *) continue ;; esac
        pid=${line#*" /proc/"}
        pid=${pid%%/*}
        { read -r name <"/proc/$pid/comm"; } 2>/dev/null || continue
        [ "$name" = postgres ] && state "$pid" || continue
        stat=${stat#* }
        found="$found $pid" parents="$parents${stat%% *} "
    done
    for pid in $found; do
        case $parents in *" $pid "*) printf '%s\\nlost\\n' "$pid"; exit 0 ;; esac
    done
    exit 44
}
"""
)
# "$1" data directory; sets the path of its server's socket.
SOCKET = """
[ -f "$1/postmaster.pid" ] && [ ! -L "$1/postmaster.pid" ] || exit 44
{ read -r pid; read -r _; read -r _; read -r port; read -r directory; } <"$1/postmaster.pid" || exit 44
case $pid in '' | *[!0-9]*) exit 44 ;; esac
case $port in '' | *[!0-9]*) exit 44 ;; esac
[ "/proc/$pid/cwd" -ef "$1" ] || exit 44
case $directory in "" | @*) echo "it has no socket in a directory (unix_socket_directories)" >&2; exit 1 ;; esac
cd "$1" || exit 44  # a relative one counts from there
socket=$directory/.s.PGSQL.$port
"""
_SERVES = """
serves() {
    if [ "/proc/$1/cwd" -ef "$2" ]; then return; fi
    case $(readlink -- "/proc/$1/cwd") in "$real" | "$real (deleted)") ;; *) return 1 ;; esac
}
real=$(readlink -m -- "$2" 2>/dev/null) || real=$2
"""
# $1 pid, $2 data directory, $3 signal
SIGNAL = PRELUDE + _SERVES + """serves "$1" "$2" || exit 0; kill -s "$3" "$1" """
# $1 pid, $2 data directory, $3 seconds: until that process is gone, or is another's. Counted, for a clock may be set meanwhile.
WAIT_FOR_END = (
    PRELUDE
    + _SERVES
    + """
left=$(($3 * 20))
while serves "$1" "$2"; do
    [ "$left" -gt 0 ] || exit 44
    left=$((left - 1))
    sleep 0.05
done
"""
)
