#!/usr/bin/env bash
# The conformance tests of the protocol of agents' tools, at POST /mcp.
#
#   tests/mcp/conformance/run.sh PROGRAM
#
# Most of their scenarios call tools that only a server made for them has, such as test_simple_text. Those that any server can pass
# are run here. The tests are pinned in package-lock.json, with the Node that they need, and installed below target/, once.
set -euo pipefail
program=$(realpath "$1")
here=$(realpath "$(dirname "$0")")
cd "$here/../../.."

scripts/need.sh node=nodejs npm
work=$PWD/target/mcp-conformance
mkdir -p "$work"
if ! cmp -s "$here/package-lock.json" "$work/package-lock.json"; then
    cp "$here/package.json" "$here/package-lock.json" "$work/"
    (cd "$work" && npm ci --ignore-scripts --no-audit --no-fund --silent) || { rm -f "$work/package-lock.json"; exit 1; }
fi
node=$(echo "$work"/node_modules/node-linux-*/bin/node)
[ -x "$node" ] || node=node

. tests/mcp/service.sh
serve --auth none

scenarios=(server-initialize ping tools-list dns-rebinding-protection)
for scenario in "${scenarios[@]}"; do
    "$node" "$work/node_modules/@modelcontextprotocol/conformance/dist/index.js" server \
        --url "$url/mcp" --scenario "$scenario" --output-dir "$state/results" || { echo "$scenario failed" >&2; exit 1; }
done
echo "${#scenarios[@]} passed, 0 failed"
