#!/usr/bin/env bash
# Makes sure that a Python environment has what a list of requirements pins: venv.sh DIRECTORY REQUIREMENTS
#
# It is made anew whenever the list has changed.
set -euo pipefail
venv=$1 requirements=$2
cd "$(dirname "$0")/.."

cmp -s "$requirements" "$venv/requirements.txt" && exit 0
scripts/need.sh python3
python3 -c 'import ensurepip, venv' 2>/dev/null || scripts/need.sh no-such-command=python3-venv
echo "installing $requirements into $venv" >&2
rm -rf "$venv"
python3 -m venv "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check -r "$requirements"
cp "$requirements" "$venv/requirements.txt"
