# Source this from bash or zsh, `. ./env.sh`, and plain `pulumi preview|up|refresh|destroy -s local` work in this shell.
#
# It makes what is missing (virtual environment, engine, plugins) and sets PATH, PULUMI_… and VAULT_…, keeping your own. A function
# `pulumi` asks whether the stack's Vault can be used before it calls Pulumi; `command pulumi` goes without.
# `STACK=production . ./env.sh` leaves the address and token of the embedded Vault out.

if [ -n "${BASH_VERSION:-}" ]; then
    _tde_file=${BASH_SOURCE[0]}
elif [ -n "${ZSH_VERSION:-}" ]; then
    eval '_tde_file=${(%):-%x}' # other shells cannot even read this
else
    _tde_file=
fi
if [ -z "$_tde_file" ]; then
    echo "env.sh: this shell is neither bash nor zsh; start one of them and source env.sh there." >&2
elif [ -n "${BASH_VERSION:-}" ] && [ "$_tde_file" = "$0" ]; then
    echo "env.sh: to change this shell's environment it must be sourced: . ./env.sh" >&2
elif _tde_root=$(CDPATH='' cd -- "$(dirname -- "$_tde_file")" && pwd) &&
    _tde_text=$(cd -- "$_tde_root" && "${PYTHON:-python3}" -m bootstrap env); then
    eval "$_tde_text"
    unset _tde_file _tde_root _tde_text
else
    unset _tde_file _tde_root _tde_text
    false
fi
