#!/usr/bin/env bash
# Runs schemathesis against a service of its own, which runs as nobody when started by root:
#   run.sh PROGRAM SECONDS [SEED] [more arguments of `st run`]
#
# All checks but one (see schemathesis.toml), all phases, again and again until the time is spent. What is found is
# printed as a curl line, and ends the script with 1; a service that panicked or restarted its server with 2.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
program=$(realpath "$1") seconds=$2 seed=${3:-$((RANDOM * 32768 + RANDOM))}
shift 2
[ $# = 0 ] || shift

"$here/../../scripts/need.sh" python3 setpriv=util-linux curl
tools=${SCHEMATHESIS_VENV:-$here/../../target/tools/schemathesis}
if ! [ -d "$tools" ]; then
    python3 -m venv "$tools.part" \
        || { "$here/../../scripts/need.sh" ensurepip=python3-venv && python3 -m venv "$tools.part"; }
    "$tools.part/bin/pip" install --quiet --requirement "$here/requirements.txt"
    mv "$tools.part" "$tools"
fi

scratch=$(mktemp -d)
children=()
tidy_up() {
    for child in "${children[@]}"; do kill "$child" 2>/dev/null || true; done
    wait
    rm -rf "$scratch"
}
trap tidy_up EXIT
as_nobody=()
if [ "$(id -u)" = 0 ]; then
    chown nobody: "$scratch"
    cp "$program" "$scratch/procession"
    program=$scratch/procession
    as_nobody=(setpriv --reuid nobody --regid nogroup --clear-groups)
fi

# Random commands run for a second at most, few at a time, and hardly any of them can be executed at all.
cd "$scratch"
"${as_nobody[@]}" env -i PATH="$PATH" HOME="$scratch" "$program" serve --listen 127.0.0.1:0 --state-dir "$scratch/state" \
    --max-running 8 --max-queued 200 --max-finished 300 --min-free-bytes 0 --on-shutdown stop \
    --webhook-allow-private >out 2>log &
children+=($!)
for _ in $(seq 200); do
    grep -q listening out && break
    sleep 0.1
done
URL=$(sed -n 's/.*"listening on \([^"]*\)".*/\1/p' out)
PROCESSION_TOKEN=$(cat state/token)
export URL PROCESSION_TOKEN
python3 "$here/tidy.py" "$scratch/receiver" &
children+=($!)
for _ in $(seq 200); do
    [ -f receiver ] && break
    sleep 0.1
done
RECEIVER=$(cat receiver)
export RECEIVER

echo "schemathesis for $seconds s with seed $seed"
status=0
SCHEMATHESIS_HOOKS=hooks PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=$here "$tools/bin/python3" -m schemathesis.cli --config-file "$here/schemathesis.toml" run \
    "$URL/openapi.yaml" --url "$URL" --seed "$seed" --max-time "$seconds" --continue-on-failure \
    "$@" || status=1

info=$(curl -fsS -H "Authorization: Bearer $PROCESSION_TOKEN" "$URL/info")
if grep panic log || ! grep -q '"server_restarts":0' <<<"$info"; then
    echo "the service was harmed: $info" >&2
    tail -20 log >&2
    exit 2
fi
exit "$status"
