#!/usr/bin/env bash
# Makes the development environment; run it through `make setup`. This part finds a Python that the lock file is for:
# PYTHON, or the first with headers of python3 and those that the lock file names. The steps are in tools/setup/.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export LOCK=${LOCK:-requirements.lock} VENV=${VENV:-.venv}

die() { printf '%s\n' "set-up: $*" >&2 && exit 1; }
[[ $(uname -s) == Linux ]] || die "needs Linux; elsewhere install the packages of $LOCK with pip, see docs/install.md"
[[ -z ${PYTHON:-} && -f $VENV/.setup/venv ]] && "$VENV/bin/python" -ISc '' 2>/dev/null && exec "$VENV/bin/python" -IS tools/setup

read -r -a versions <<<"$(sed -n 's/^# Python: *//p' "$LOCK")"
describe='import os, sys, sysconfig
print("%d.%d" % sys.version_info[:2], os.path.exists(sysconfig.get_path("include") + "/Python.h"))'
candidates=(python3 "${versions[@]/#/python}")
[[ -z ${PYTHON:-} ]] || candidates=("$PYTHON")
found='' chosen=''
for candidate in "${candidates[@]}"; do
    seen=$("$candidate" -c "$describe" 2>/dev/null) || continue
    read -r version header <<<"$seen"
    found+="${found:+, }$candidate is $version"
    [[ " ${versions[*]} " == *" $version "* ]] || continue
    chosen=${chosen:-$candidate}
    [[ $header == False ]] || { chosen=$candidate && break; }
done
newest_last=$(printf '%s\n' "${versions[@]}" | tac | paste -sd, | sed 's/,/, /g; s/\(.*\), /\1 or /')
[[ -n $chosen ]] || die "needs Python $newest_last (found: ${found:-none in ${candidates[*]}}); name one: PYTHON=/path/to/python3.11"
exec "$chosen" -IS tools/setup
