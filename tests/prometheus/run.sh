#!/usr/bin/env bash
# The metrics as Prometheus reads them: run.sh PROGRAM
#
# promtool looks at the series and the alert rules, and a real Prometheus scrapes a real service with the configuration
# of packaging/prometheus, its addresses and paths replaced.
set -euo pipefail
program=$(realpath "$1")
cd "$(dirname "$0")/../.."
work=$(mktemp -d)
pids=()
end() {
    kill "${pids[@]}" 2>/dev/null || true
    wait
    rm -rf "$work"
}
trap end EXIT

# until_ready SECONDS COMMAND…: false if the time is up first.
until_ready() {
    local last=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $last ] || { echo "not within its time: $*" >&2; cat "$work"/*.log >&2; return 1; }
        read -rt 0.1 <> <(:) || true
    done
}

service=127.0.0.1:18996
prometheus=127.0.0.1:18995
"$program" serve --listen $service --state-dir "$work/state" >"$work/service.log" 2>&1 &
pids+=($!)
until_ready 30 curl -fsS http://$service/healthz
export PROCESSION_STATE_DIR="$work/state"
"$program" run -- true
trace=0af7651916cd43dd8448eb211c80319c
"$program" run -- sh -c 'exit 3' || true
"$program" token create --state-dir "$work/state" --name prometheus --scope metrics | tail -1 >"$work/token"

as_default() { curl -fsS -H "Authorization: Bearer $(cat "$work/state/token")" -H 'Content-Type: application/json' "$@"; }
as_default -X PUT http://$service/queues/builds -d '{"max_running": 2}' >/dev/null
as_default -X PUT http://$service/schedules/nightly -d '{"cron": "0 3 * * *", "job": {"script": "true", "queue": "builds"}}' >/dev/null
as_default -X POST "http://$service/schedules/nightly/run?wait=30" -d '{}' >/dev/null
stopped=$(as_default http://$service/jobs -d '{"command": ["sleep", "600"]}' | python3 -c 'import json, sys; print(json.load(sys.stdin)["id"])')
as_default -X DELETE "http://$service/jobs/$stopped?wait=30" >/dev/null
as_default -H "traceparent: 00-$trace-b7ad6b7169203331-01" "http://$service/jobs?wait=30" -d '{"command": ["true"]}' >/dev/null

# A new token is known within a second or two.
read_metrics() { curl -fsS http://$service/metrics -H "Authorization: Bearer $(cat "$work/token")" -o "$work/metrics"; }
until_ready 10 read_metrics
promtool check metrics <"$work/metrics"
curl -fsS http://$service/metrics -H "Authorization: Bearer $(cat "$work/token")" -H 'Accept: application/openmetrics-text' | tail -1 | grep -qx '# EOF'
promtool check rules packaging/prometheus/alerts.yml
cp packaging/prometheus/alerts.yml tests/prometheus/alerts.test.yml "$work/"
promtool test rules "$work/alerts.test.yml"

scraped() {
    curl -fsS "http://$prometheus/api/v1/query" --data-urlencode 'query=sum by (state) (procession_jobs_finished_total)' \
        | grep -F '"state":"failed"'
}
# The trace of a job, beside the bucket that its time is in.
exemplified() {
    curl -fsS "http://$prometheus/api/v1/query_exemplars" --data-urlencode "query=$1" \
        --data-urlencode "start=$(($(date +%s) - 3600))" --data-urlencode "end=$(($(date +%s) + 60))" | grep -F "\"trace_id\":\"$trace\""
}
# Every query of the dashboard, with the answer that its panel shows.
dashboard_is_answered() {
    python3 - "http://$prometheus" <<'PY'
import json, sys, urllib.parse, urllib.request
board = json.load(open("packaging/grafana/procession.json"))
# Nothing of these has happened, so that they have no series; the table of docs/metrics.md has their names.
late = ("procession_jobs_refused_total", "procession_webhook_deliveries_total", "procession_spans_total")
table = open("docs/metrics.md").read()
assert all(f"`{name}`" in table for name in late)
empty = []
for panel in board["panels"]:
    for target in panel["targets"]:
        query = target["expr"].replace("$instance", ".+")
        url = f"{sys.argv[1]}/api/v1/query?" + urllib.parse.urlencode({"query": query})
        # One that Prometheus cannot read is answered with 400, which raises.
        with urllib.request.urlopen(url, timeout=10) as answer:
            found = json.load(answer)["data"]["result"]
        if not found and not any(name in query for name in late):
            empty.append(f'{panel["title"]}: {query}')
sys.exit("no answer: " + "; ".join(empty) if empty else 0)
PY
}

# Each configuration in packaging/prometheus, the one of compose.yaml as well, with its paths and addresses replaced.
for configuration in scrape compose; do
    sed -e "s#/etc/prometheus/procession.token#$work/token#; s#/run/secrets/prometheus-token#$work/token#" \
        -e "s#127.0.0.1:8080#$service#; s#procession:8080#$service#; s#scrape_interval: 15s#scrape_interval: 1s#" \
        packaging/prometheus/$configuration.yml >"$work/$configuration.yml"
    promtool check config "$work/$configuration.yml"
    prometheus --config.file="$work/$configuration.yml" --storage.tsdb.path="$work/data-$configuration" \
        --web.listen-address=$prometheus --enable-feature=exemplar-storage >"$work/$configuration.log" 2>&1 &
    scraper=$!
    pids+=("$scraper")
    until_ready 60 scraped
    until_ready 60 exemplified procession_job_run_seconds_bucket
    until_ready 60 exemplified procession_http_request_seconds_bucket
    curl -fsS "http://$prometheus/api/v1/rules" | grep -qF ProcessionQueueGrows
    # A rate needs a second scrape.
    until_ready 60 dashboard_is_answered || { dashboard_is_answered; exit 1; }
    kill "$scraper"
    wait "$scraper" || true
done

echo 'prometheus: 8 passed, 0 failed'
