#!/usr/bin/env bash
# The client libraries that run.sh tests with, pinned in requirements.txt and package-lock.json, into target/mcp, once.
set -euo pipefail
cd "$(dirname "$0")/../.."

scripts/need.sh node=nodejs npm
work=$PWD/target/mcp
scripts/venv.sh "$work/venv" tests/mcp/requirements.txt
if ! cmp -s tests/mcp/package-lock.json "$work/package-lock.json"; then
    cp tests/mcp/package.json tests/mcp/package-lock.json "$work/"
    (cd "$work" && npm ci --no-audit --no-fund --silent) || { rm -f "$work/package-lock.json"; exit 1; }
fi
