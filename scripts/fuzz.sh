#!/usr/bin/env bash
# Builds fuzz targets, runs them from their corpus and the seeds that are kept, and says what each has done:
#   fuzz.sh CARGO-FUZZ SECONDS JOBS TARGET ...
#
# JOBS of them run at a time, for SECONDS each. A finding ends its target, is kept below fuzz/artifacts, and ends the
# script with 1 after the others have run.
#
# With the compiler that everything else is built with: it takes the flags of the sanitizers when it is told that it is
# a nightly one. The code under test is safe Rust, so that coverage is all that is needed of them; overflow is looked for,
# as in any build with debug assertions.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo_fuzz=$1 seconds=$2 jobs=$3
shift 3

for target in "$@"; do
    RUSTC_BOOTSTRAP=1 "$cargo_fuzz" build --sanitizer none "$target"
done
cd fuzz
built=target/$(rustc -vV | sed -n 's/^host: //p')/release
logs=target/logs
mkdir -p "$logs"

# Ten seconds for one input are a hang.
# shellcheck disable=SC2317 # Called by xargs.
run() {
    mkdir -p "corpus/$1" "artifacts/$1"
    "$built/$1" "corpus/$1" "seeds/$1" -artifact_prefix="artifacts/$1/" -max_total_time="$seconds" -max_len=4096 \
        -timeout=10 -print_final_stats=1 >"$logs/$1.log" 2>&1 && echo passed >"$logs/$1.end" || echo FAILED >"$logs/$1.end"
    echo "$1 $(cat "$logs/$1.end")"
}
export -f run
export built logs seconds
printf '%s\n' "$@" | xargs -P "$jobs" -I{} bash -c 'run {}'

status=0
printf '\n%-10s %12s %9s %9s %7s  %s\n' target executions coverage features inputs result
for target in "$@"; do
    # The last line with numbers: "#4096 DONE cov: 12 ft: 34 corp: 5/67b lim: …".
    last=$(grep -E '^#[0-9]+.* cov: ' "$logs/$target.log" | tail -1)
    number() { sed -nE "s/.*$1 ([0-9]+).*/\1/p" <<<"$last"; }
    executions=$(sed -nE 's/^stat::number_of_executed_units: +([0-9]+)$/\1/p' "$logs/$target.log")
    result=$(cat "$logs/$target.end")
    printf '%-10s %12s %9s %9s %7s  %s\n' "$target" "${executions:--}" "$(number cov:)" "$(number ft:)" "$(number corp:)" "$result"
    if [ "$result" != passed ]; then
        tail -30 "$logs/$target.log"
        status=1
    fi
done
exit "$status"
