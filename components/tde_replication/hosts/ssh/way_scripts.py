"""Whether nobody but some accounts may change where a path leads: functions for POSIX sh scripts (see `account.is_only_for`)."""

# $accounts are their numbers, a space before and behind each. What a directory lets nobody else change stays as it was looked at:
# neither is a link put in its place meanwhile.
WAY = r"""
# Whether $1 is the own group of $2 alone, and no access control list of $3 lets in others.
of_one() {
    case $(ls -ld -- "$3") in ??????????+*) return 1 ;; esac
    owner=$(getent passwd "$2") && members=$(getent group "$1") || return
    own=${owner#*:*:*:}
    [ "${own%%:*}" = "$1" ] || return
    case ${members##*:} in '' | "${owner%%:*}") ;; *) return 1 ;; esac
}
only_for() {
    set -- "$1" $(stat -c '%u %g %f' -- "$1" 2>/dev/null)
    [ $# = 4 ] || return
    case $accounts in *" $2 "*) ;; *) return 1 ;; esac
    case $((0x$4 & 0170000)) in
    "$((0120000))") return 0 ;;  # of a link, the directory decides
    "$((0040000))") [ $((0x$4 & 01000)) = 0 ] || return 0 ;;  # in a sticky one, everybody changes what is their own
    esac
    [ $((0x$4 & 02)) = 0 ] || return
    [ $((0x$4 & 020)) = 0 ] || of_one "$3" "$2" "$1"
}
# Goes along $1, an absolute path, and along all links in it, as far as nobody else may change where it leads. Where it ends
# before, $place is what is not there or others may change; it lies in $at, which has no link in it, and $rest begins with it.
way() {
    at='' rest=${1#/}/ links=0 place=/
    only_for / || return
    while [ -n "$rest" ]; do
        name=${rest%%/*} next=${rest#*/}
        case $name in
        '' | .) rest=$next; continue ;;
        ..) at=${at%/*} rest=$next; continue ;;
        esac
        place=$at/$name
        only_for "$place" || return
        if [ -L "$place" ]; then
            links=$((links + 1))
            [ "$links" -le 40 ] || return
            target=$(readlink -- "$place") || return
            case $target in /*) at='' ;; esac
            rest=$target/$next
        else
            at=$place rest=$next
        fi
    done
}
"""
