# The service of the tests here; to be sourced, with `program` set.

# Starts it with more options, sets `state` and `url`, and has it ended with the script.
serve() {
    state=$(mktemp -d)
    "$program" serve --state-dir "$state" --listen 127.0.0.1:0 --on-shutdown stop --min-free-bytes 0 "$@" \
        >"$state/address" 2>"$state/log" &
    service=$!
    trap end EXIT
    for _ in $(seq 200); do
        grep -q 'listening on' "$state/address" && break
        kill -0 "$service" || { cat "$state/log" >&2; exit 1; }
        sleep 0.05
    done
    url=$(grep -o 'http://127\.0\.0\.1:[0-9]*' "$state/address" | head -1)
}

end() {
    kill "$service" 2>/dev/null || true
    wait "$service" 2>/dev/null || true
    rm -rf "$state"
}
