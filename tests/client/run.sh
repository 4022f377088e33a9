#!/usr/bin/env bash
# Generates a Python client from openapi.yaml and uses it on a real service: submit, follow, stop.
#
#   tests/client/run.sh PROGRAM
#
# It holds the description to what generators of clients can read. `make test-client` installs the generator.
set -euo pipefail
program=$(realpath "$1")
cd "$(dirname "$0")/../.."

work=target/client
venv=$work/venv

rm -rf "$work/generated"
PATH="$PWD/$venv/bin:$PATH" openapi-python-client generate \
    --path openapi.yaml --output-path "$work/generated" --meta none >"$work/generate.log" 2>&1 \
    || { cat "$work/generate.log" >&2; exit 1; }
# Whatever the generator leaves out is a fault of the description, except media types that it does not know.
left_out=$(grep -E '^(WARNING|ERROR|Unable)' "$work/generate.log" \
    | grep -vE '^WARNING parsing GET (/openapi.yaml within service|/jobs/\{id\}/(output/search|recording\.cast) within output|/jobs/\{id\}/files\.(tar|tar\.gz|zip) within files|/cluster/files within cluster)\.$' || true)
if [ -n "$left_out" ]; then
    cat "$work/generate.log" >&2
    exit 1
fi

PYTHONPATH=$work PYTHONDONTWRITEBYTECODE=1 "$venv/bin/python" tests/client/use.py "$program"
