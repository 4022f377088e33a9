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

state=$(mktemp -d)
"$program" serve --state-dir "$state" --listen 127.0.0.1:0 --auth none --on-shutdown stop --min-free-bytes 0 \
    >"$state/address" 2>"$state/log" &
service=$!
end() {
    kill "$service" 2>/dev/null || true
    wait "$service" 2>/dev/null || true
    rm -rf "$state"
}
trap end EXIT
for _ in $(seq 200); do
    grep -q 'listening on' "$state/address" && break
    kill -0 "$service" || { cat "$state/log" >&2; exit 1; }
    sleep 0.05
done
url=$(grep -o 'http://127\.0\.0\.1:[0-9]*' "$state/address" | head -1)

scenarios=(server-initialize ping tools-list dns-rebinding-protection)
for scenario in "${scenarios[@]}"; do
    "$node" "$work/node_modules/@modelcontextprotocol/conformance/dist/index.js" server \
        --url "$url/mcp" --scenario "$scenario" --output-dir "$state/results" || { echo "$scenario failed" >&2; exit 1; }
done
echo "${#scenarios[@]} passed, 0 failed"
