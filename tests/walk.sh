#!/usr/bin/env bash
# A new user's walk by README alone, with times: clone, service, job, stop, page, package.
#
#     tests/walk.sh PROGRAM
#
# Each command is a line of README; what differs is the address, and where the state is. WALK_BUILD=1 builds in the clone first, as a
# new user has to, and walks with that program.
set -euo pipefail
cd "$(dirname "$0")/.."
program=$(realpath "$1")

walk=$(mktemp -d)
service=
cleanup() {
    [ -z "$service" ] || kill "$service" 2>/dev/null || true
    [ -z "$service" ] || wait "$service" 2>/dev/null || true
    rm -rf "$walk"
}
trap cleanup EXIT
fail() {
    echo "FAILED: $*" >&2
    [ ! -s "$walk/log" ] || tail -20 "$walk/log" >&2
    exit 1
}
last=$(date +%s%N)
begun=$last
# What has been done, and how long it took.
step() {
    local now
    now=$(date +%s%N)
    printf '%7s s  %s\n' "$(awk "BEGIN {printf \"%.2f\", ($now - $last) / 1e9}")" "$*"
    last=$now
}
# Runs a line of README.
readme() {
    grep -qF -- "$1" README.md || fail "README has no line '$1'"
    eval "${1//localhost:8080/$address}"
}

git clone -q --depth 1 "file://$PWD" "$walk/clone"
cd "$walk/clone"
step "git clone"
if [ -n "${WALK_BUILD:-}" ]; then
    make build >"$walk/log" 2>&1 || fail "make build"
    program=$walk/clone/target/release/procession
    step "make build"
fi
mkdir "$walk/bin"
ln -s "$program" "$walk/bin/procession"
export PATH=$walk/bin:$PATH HOME=$walk PROCESSION_STATE_DIR=$walk/state
export PROCESSION_LISTEN=127.0.0.1:0 PROCESSION_MIN_FREE_BYTES=0 PROCESSION_ON_SHUTDOWN=stop
unset PROCESSION_URL PROCESSION_TOKEN

procession serve >"$walk/out" 2>"$walk/log" &
service=$!
for _ in $(seq 600); do
    address=$(grep -o 'http://[0-9.:]*' "$walk/out" | head -1) || true
    [ -z "$address" ] || break
    sleep 0.1
done
[ -n "$address" ] || fail "the service says no address"
step "the service answers"

shopt -s expand_aliases
TOKEN=$(cat "$walk/state/token")
export TOKEN
readme "alias c='curl -sN -H \"Authorization: Bearer \$TOKEN\"'"
answer=$(readme "c 'localhost:8080/jobs?wait=30&output_bytes=4096' --json '{\"script\": \"echo hello; exit 3\"}'")
[ "$(jq -r '"\(.state) \(.exit.code) \(.output.excerpt.text)"' <<<"$answer")" = 'failed 3 hello' ] || fail "the first job: $answer"
step "the first job: its output and its exit code in the answer"

readme "ID=\$(c localhost:8080/jobs --json '{\"script\": \"while date; do sleep 1; done\", \"timeout_seconds\": 600}' | jq -r .id)"
[ "$(readme "c localhost:8080/jobs/\$ID" | jq -r .state)" = running ] || fail "the second job does not run"
# One line of what is followed.
line=$({ readme "c \"localhost:8080/jobs/\$ID/output?follow=true\"" 2>/dev/null || true; } | head -1)
[[ $line == *20* ]] || fail "no output is followed: $line"
answer=$(readme "c -X DELETE \"localhost:8080/jobs/\$ID?wait=30\"")
[ "$(jq -r .state <<<"$answer")" = canceled ] || fail "the stop: $answer"
[ "$(c "$address/jobs/$ID/processes" | jq '.processes | length')" = 0 ] || fail "the stop left a process"
[ "$(readme "c 'localhost:8080/jobs?state=failed,timed_out'" | jq '.jobs | length')" = 1 ] || fail "the list of failed jobs"
step "a job that continues: state, output, stop"

[ "$(procession run -- sh -c 'echo by command; exit 4' || echo $?)" = $'by command\n4' ] || fail "procession run"
procession run -d --name nightly --timeout 2h -- sh -c 'trap "" TERM; setsid sleep 4321 & echo started; sleep 4321' >/dev/null
line=$({ procession logs -f nightly || true; } | head -1)
[ "$line" = started ] || fail "procession logs: $line"
[[ $(procession ps -a) == *nightly* ]] || fail "procession ps"
[[ $(procession stop --grace 0 nightly) == *canceled ]] || fail "procession stop"
for word in kill rm restart exec inspect list ls jobs start submit cancel delete tail status info version drain; do
    procession "$word" --help >"$walk/word" 2>&1 || grep -q "there is no command $word; use " "$walk/word" || fail "procession $word: $(cat "$walk/word")"
done
step "the same by commands, and words of other programs"

page=$(procession open --print)
curl -sf -o "$walk/page" "${page%%#*}" || fail "the page is not served: $page"
grep -q '<script' "$walk/page" || fail "the page has no script"
step "the page"

kill "$service"
wait "$service" || fail "the service ended with $?"
service=
step "the service ends"

make -s deb DEB_PROGRAM="$program" DEB_LEVEL=0 >"$walk/log" 2>&1 || fail "make deb"
[[ $(dpkg-deb -c target/deb/*.deb) == *' ./usr/bin/procession'* ]] || fail "the package has no program"
step "make deb"
last=$begun
step "all of it"
