#!/usr/bin/env bash
# The tools of agents with client libraries of their protocol, in Python and TypeScript, at both doors, and examples/agent.py.
#
#   tests/mcp/run.sh PROGRAM
#
# The libraries are pinned in requirements.txt and package-lock.json, and installed below target/, once.
set -euo pipefail
program=$(realpath "$1")
cd "$(dirname "$0")/../.."

scripts/need.sh python3 node=nodejs npm
python3 -c 'import ensurepip, venv' 2>/dev/null || scripts/need.sh no-such-command=python3-venv

work=$PWD/target/mcp
mkdir -p "$work"
if ! cmp -s tests/mcp/requirements.txt "$work/requirements.txt"; then
    echo "installing $(grep -o '^mcp==.*' tests/mcp/requirements.txt) into $work/venv" >&2
    rm -rf "$work/venv"
    python3 -m venv "$work/venv"
    "$work/venv/bin/pip" install --quiet --disable-pip-version-check -r tests/mcp/requirements.txt
    cp tests/mcp/requirements.txt "$work/requirements.txt"
fi
if ! cmp -s tests/mcp/package-lock.json "$work/package-lock.json"; then
    cp tests/mcp/package.json tests/mcp/package-lock.json "$work/"
    (cd "$work" && npm ci --no-audit --no-fund --silent) || { rm -f "$work/package-lock.json"; exit 1; }
fi
cp tests/mcp/use.mjs "$work/"

. tests/mcp/service.sh
serve

export PROCESSION_STATE_DIR=$state PROCESSION_TEST_URL=$url PROCESSION_TEST_PROGRAM=$program
PROCESSION_TEST_TOKEN=$(cat "$state/token")
export PROCESSION_TEST_TOKEN PYTHONDONTWRITEBYTECODE=1
"$work/venv/bin/python" tests/mcp/use.py
node "$work/use.mjs"
"$work/venv/bin/python" examples/agent.py --program "$program"
left=$("$program" ps -q -s queued,starting,running,paused,stopping)
[ -z "$left" ] || { echo "left behind: $left" >&2; exit 1; }
echo '3 passed, 0 failed'
