#!/usr/bin/env bash
# The tools of agents with client libraries of their protocol, in Python and TypeScript, at both doors, and examples/agent.py.
#
#   tests/mcp/run.sh PROGRAM
set -euo pipefail
program=$(realpath "$1")
cd "$(dirname "$0")/../.."

tests/mcp/fetch.sh
work=$PWD/target/mcp
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
