#!/usr/bin/env bash
# Generates a Python client from openapi.yaml and uses it on a real service: submit, follow, stop.
#
#   tests/client/run.sh PROGRAM
#
# It holds the description to what generators of clients can read. The generator is pinned in
# requirements.txt and installed below target/, once.
set -euo pipefail
program=$(realpath "$1")
cd "$(dirname "$0")/../.."

scripts/need.sh python3
python3 -c 'import ensurepip, venv' 2>/dev/null || scripts/need.sh no-such-command=python3-venv

work=target/client
venv=$work/venv
mkdir -p "$work"
if ! cmp -s tests/client/requirements.txt "$work/installed.txt"; then
    echo "installing $(grep -o 'openapi-python-client==.*' tests/client/requirements.txt) into $venv" >&2
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check -r tests/client/requirements.txt
    cp tests/client/requirements.txt "$work/installed.txt"
fi

rm -rf "$work/generated"
PATH="$PWD/$venv/bin:$PATH" openapi-python-client generate \
    --path openapi.yaml --output-path "$work/generated" --meta none >"$work/generate.log" 2>&1 \
    || { cat "$work/generate.log" >&2; exit 1; }
# Whatever the generator leaves out is a fault of the description, except media types that it does not know.
left_out=$(grep -E '^(WARNING|ERROR|Unable)' "$work/generate.log" \
    | grep -vE '^WARNING parsing GET (/openapi.yaml within service|/jobs/\{id\}/output/search within output)\.$' || true)
if [ -n "$left_out" ]; then
    cat "$work/generate.log" >&2
    exit 1
fi

PYTHONPATH=$work PYTHONDONTWRITEBYTECODE=1 "$venv/bin/python" tests/client/use.py "$program"
