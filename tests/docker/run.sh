#!/usr/bin/env bash
# Builds the image and checks what it promises: PID 1 that reaps and ends in order, no privilege, stops
# that leave nothing. Needs docker, curl and jq; engine.sh says where the engine comes from.
#
#   tests/docker/run.sh            the image as the Dockerfile builds it
#   tests/docker/run.sh PROGRAM    with a program that is there already, where it runs on the base image; else as above
#
# PROCESSION_TEST_IMAGE names an image to check instead of building one.
set -euo pipefail
cd "$(dirname "$0")/../.."

passed=0
failed=0
containers=()
work=$(mktemp -d)
# shellcheck source=tests/docker/engine.sh
source tests/docker/engine.sh

compose=()

cleanup() {
    [ ${#compose[@]} = 0 ] || "${compose[@]}" down --volumes >/dev/null 2>&1 || true
    for container in "${containers[@]}"; do
        "${docker[@]}" rm --force --volumes "$container" >/dev/null 2>&1 || true
    done
    engine_stop
    rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

check() { # check NAME COMMAND...: the command's success is the claim's truth
    local name=$1
    shift
    if "$@" >"$work/check" 2>&1; then
        passed=$((passed + 1))
        echo "ok    $name"
    else
        failed=$((failed + 1))
        echo "FAIL  $name"
        sed 's/^/      /' "$work/check" | tail -15
    fi
}

equal() { [ "$1" = "$2" ] || { echo "expected '$2', got '$1'"; return 1; }; }

eventually() { # eventually SECONDS COMMAND...
    local end=$((SECONDS + $1))
    shift
    until "$@"; do
        [ "$SECONDS" -lt "$end" ] || return 1
        sleep 0.2
    done
}

free_port() {
    local port
    while :; do
        port=$((20000 + RANDOM % 20000))
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo "$port"; return; }
    done
}

inside() { "${docker[@]}" exec "$container" "$@"; }

# start OPTION...: runs a container and waits until it is live; sets container, base, token.
start() {
    local port
    port=$(free_port)
    container=procession-test-$$-$port
    containers+=("$container")
    local publish=("${network[@]}" --env "PROCESSION_LISTEN=127.0.0.1:$port")
    [ ${#network[@]} -gt 0 ] || publish=(--publish "127.0.0.1:$port:8080")
    "${docker[@]}" run --detach --name "$container" "${publish[@]}" "$@" "$image" >/dev/null
    base=http://127.0.0.1:$port
    if ! eventually 20 curl --silent --fail --max-time 2 --output /dev/null "$base/healthz"; then
        echo "the container is not live:" >&2
        "${docker[@]}" logs "$container" 2>&1 | tail -20 >&2
        return 1
    fi
    token=$(inside cat /var/lib/procession/state/token)
}

api() { # api METHOD PATH [BODY]
    local body=()
    [ $# -lt 3 ] || body=(--header 'Content-Type: application/json' --data "$3")
    curl --silent --show-error --max-time 90 --request "$1" \
        --header "Authorization: Bearer $token" "${body[@]}" "$base$2"
}

submit() { # submit SCRIPT [MORE-FIELDS]: prints the id
    api POST /jobs "$(jq --null-input --compact-output --arg script "$1" --argjson more "${2:-{\}}" '{script: $script} + $more')" \
        | jq --raw-output '.id // error("no id in the answer: \(.)")'
}

state_of() { api GET "/jobs/$1" | jq --raw-output .state; }

# Processes in the container as lines "state command", read by the container's own shell from /proc, so
# that no tool has to be in the image.
# shellcheck disable=SC2016 # The variables are those of the container's shell.
processes() {
    inside sh -c 'for d in /proc/[0-9]*; do
        while read -r key value _; do case $key in Name:) n=$value;; State:) s=$value;; esac; done 2>/dev/null <$d/status && echo "$s $n"
    done'
}
zombies() { processes | grep -c '^Z' || true; }
sleepers() { processes | grep -c ' sleep$' || true; }
no_zombie() { [ "$(zombies)" = 0 ]; }
no_sleeper() { [ "$(sleepers)" = 0 ]; }

orphans_are_reaped() {
    local ids=() id
    for _ in $(seq 100); do
        ids+=("$(submit 'sleep 0.05 & setsid sleep 0.05 & exit 0' '{"wait_for":"all"}')")
    done
    for id in "${ids[@]}"; do
        equal "$(api GET "/jobs/$id?wait=60" | jq --raw-output .state)" succeeded
    done
    eventually 5 no_zombie || { processes; return 1; }
}

leftovers_are_stopped() {
    local id ended
    id=$(submit 'sleep 4000 & setsid sleep 4000 & exit 0')
    ended=$(api GET "/jobs/$id?wait=60")
    equal "$(jq --raw-output .state <<<"$ended")" succeeded
    eventually 5 no_sleeper || { processes; return 1; }
    eventually 5 no_zombie || { processes; return 1; }
}

delete_leaves_nothing() {
    local id ended
    id=$(submit 'sleep 4001 & setsid sleep 4002 & (setsid sh -c "sleep 4003 & sleep 4004 & exit 0" &) ; trap "" TERM; echo ready; sleep 4005; sleep 4006')
    eventually 10 test "$(state_of "$id")" = running
    eventually 10 sh -c "[ \"\$(curl --silent --header 'Authorization: Bearer $token' '$base/jobs/$id/output/stdout')\" = ready ]"
    ended=$(api DELETE "/jobs/$id?grace_seconds=0.5&wait=30")
    ended=$(api GET "/jobs/$id?wait=30")
    equal "$(jq --raw-output .state <<<"$ended")" canceled
    equal "$(jq --raw-output .termination.escalated <<<"$ended")" true
    no_sleeper || { processes; return 1; }
    no_zombie || { processes; return 1; }
}

stops_in_time() { # stops_in_time SECONDS: docker stop, exit code 0
    local began=$SECONDS
    "${docker[@]}" stop --time "$1" "$container" >/dev/null
    echo "took $((SECONDS - began)) s"
    [ $((SECONDS - began)) -lt "$1" ] || return 1
    equal "$("${docker[@]}" inspect --format '{{.State.ExitCode}}' "$container")" 0
}

healthy() { [ "$("${docker[@]}" inspect --format '{{.State.Health.Status}}' "$container")" = healthy ]; }

job_runs() {
    local ended
    ended=$(api GET "/jobs/$(submit 'echo hello; id -u; pwd')?wait=20")
    echo "$ended"
    equal "$(jq --raw-output .state <<<"$ended")" succeeded
    equal "$(api GET "/jobs/$(jq --raw-output .id <<<"$ended")/output/stdout" | head -1)" hello
}

# compose_command: sets that of Compose of version 2, or of Debian's.
compose_command() {
    command=("${docker[@]}" compose)
    if ! "${command[@]}" version >/dev/null 2>&1; then
        scripts/need.sh docker-compose
        command=(docker-compose "${docker[@]:1}")
    fi
}

# compose_up: compose.yaml as it is but for image and port; sets container, base, token.
compose_up() {
    local port command
    compose_command
    port=$(free_port)
    sed -e "s|127.0.0.1:8080:|127.0.0.1:$port:|" -e "s|image: procession\$|image: $image|" compose.yaml >"$work/compose.yaml"
    compose=("${command[@]}" --project-directory "$PWD" --project-name "procession-test-$$" --file "$work/compose.yaml")
    "${compose[@]}" up --detach --no-build >"$work/compose" 2>&1 || { tail -5 "$work/compose" >&2; return 1; }
    container=$("${compose[@]}" ps --quiet procession 2>/dev/null)
    base=http://127.0.0.1:$port
    eventually 20 curl --silent --fail --max-time 2 --output /dev/null "$base/healthz" || return 1
    token=$(inside cat /var/lib/procession/state/token)
}

compose_down() {
    local began=$SECONDS
    "${compose[@]}" down --volumes
    [ $((SECONDS - began)) -lt 30 ] || { echo "took $((SECONDS - began)) s"; return 1; }
    ! "${docker[@]}" inspect "$container" >/dev/null 2>&1
}

# deploy FILE: a compose file of packaging/ in a directory of its own, by the commands that it begins with; as they stand but for
# image and ports. Sets compose.
deploy() {
    local file=$1 directory=$work/$1.d command sudo=sudo
    [ "$(id -u)" != 0 ] || sudo=
    compose_command
    mkdir "$directory"
    sed -e 's|"127.0.0.1:[0-9]*:|"127.0.0.1::|' -e "s|image: procession\$|image: $image|" "packaging/$file" >"$directory/$file"
    compose=("${command[@]}" --project-name "procession-test-$$" --file "$directory/$file")
    sed -n 's/^#   //p' "packaging/$file" \
        | sed -e "s|sudo|$sudo|g" -e "s|docker compose|${command[*]} --project-name procession-test-$$|" >"$directory/commands"
    (cd "$directory" && bash -euo pipefail commands) >"$work/compose" 2>&1 || { tail -5 "$work/compose"; return 1; }
}

# nodes_are SERVICE NUMBER: so many nodes are connected.
nodes_are() { equal "$("${compose[@]}" exec -T "$1" procession nodes --json | jq '[.nodes[] | select(.state == "connected")] | length')" "$2"; }
# The API nodes run none themselves.
runs_on_a_node() { equal "$("${compose[@]}" exec -T "$1" procession run -- echo hello)" hello; }

label() { "${docker[@]}" image inspect --format "{{index .Config.Labels \"org.opencontainers.image.$1\"}}" "$image"; }
has_labels() {
    equal "$(label title)" Procession &&
        equal "$(label description)" 'HTTP job runner' &&
        equal "$(label licenses)" "$(sed -n 's/^license = "\(.*\)"/\1/p' Cargo.toml)"
}

pid_one_is_procession() { inside cat /proc/1/cmdline | tr '\0' ' ' | grep -q '^/usr/local/bin/procession serve'; }
# shellcheck disable=SC2016 # As above.
runs_as() { equal "$(inside sh -c 'while read -r k v _; do [ "$k" != Uid: ] || echo "$v"; done </proc/1/status')" "$1"; }
without_token_is_401() { equal "$(curl --silent --max-time 5 --output /dev/null --write-out '%{http_code}' "$base/jobs")" 401; }

# build OPTION...: says why where it fails.
build() {
    "${docker[@]}" build "${network[@]}" "${build_args[@]}" "$@" >"$work/build" 2>&1 || { tail -40 "$work/build" >&2; exit 1; }
}

# build_with PROGRAM: false where it does not run on the base image, whose C library may be older than this machine's.
build_with() {
    mkdir "$work/context"
    cp "$1" "$work/context/procession"
    printf 'FROM %s\nCOPY procession /usr/local/bin/procession\n' "$image-runtime" >"$work/context/Dockerfile"
    build --target runtime --tag "$image-runtime" .
    build --tag "$image" "$work/context"
    "${docker[@]}" run --rm "${network[@]}" "$image" --version >"$work/check" 2>&1 || { tail -1 "$work/check" >&2; return 1; }
}

program=${1:-}
scripts/need.sh curl jq
engine_start
image=${PROCESSION_TEST_IMAGE:-}
if [ -z "$image" ]; then
    image=procession-test
    began=$SECONDS
    if [ -n "$program" ] && build_with "$program"; then
        made="built with $program"
    else
        echo "building the image and the program in it"
        build_image
        build --tag "$image" .
        made=built
    fi
    echo "$made in $((SECONDS - began)) s; $("${docker[@]}" image inspect --format '{{.Size}}' "$image") bytes"
fi

start
check "the first process is the supervisor" pid_one_is_procession
check "it runs as an ordinary user" runs_as 65532
check "the image says what it is" has_labels
check "without a token nothing is listed" without_token_is_401
check "a job runs" job_runs
check "100 jobs that leave orphans leave no zombie" orphans_are_reaped
check "what the leader leaves behind is stopped" leftovers_are_stopped
check "DELETE ends children that made sessions of their own" delete_leaves_nothing
check "the container becomes healthy" eventually 40 healthy
submit 'trap "" TERM; sleep 4100; sleep 4100' '{"stop":{"grace_seconds":1}}' >/dev/null
submit 'sleep 4200' >/dev/null
check "docker stop ends the jobs in their grace and exits with 0" stops_in_time 20

start --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges --volume "procession-test-$$:/var/lib/procession"
check "read-only, without capabilities and new privileges: a job runs" job_runs
check "read-only, without capabilities and new privileges: DELETE leaves nothing" delete_leaves_nothing
kept=$(submit 'echo kept')
api GET "/jobs/$kept?wait=20" >/dev/null
check "it stops with 0 there too" stops_in_time 20
start --volume "procession-test-$$:/var/lib/procession"
check "a new container on the same volume knows the jobs of the old one" equal "$(state_of "$kept")" succeeded
check "and has their output" equal "$(api GET "/jobs/$kept/output/stdout")" kept
"${docker[@]}" rm --force "$container" >/dev/null
"${docker[@]}" volume rm "procession-test-$$" >/dev/null 2>&1 || true

# Platforms choose a uid that the image does not know, in the group of root.
start --user 1234567:0 --cap-drop ALL --security-opt no-new-privileges --volume "procession-any-$$:/var/lib/procession"
check "as any uid with group 0: a job runs" job_runs
check "as any uid with group 0: it stops with 0" stops_in_time 20
start --user 1234567:0 --volume "procession-any-$$:/var/lib/procession"
check "as any uid with group 0: and starts again on the same volume" job_runs
"${docker[@]}" rm --force "$container" >/dev/null
"${docker[@]}" volume rm "procession-any-$$" >/dev/null 2>&1 || true

if compose_up; then
    check "compose.yaml: a job runs" job_runs
    check "compose.yaml: the service becomes healthy" eventually 40 healthy
    submit 'sleep 4300' >/dev/null
    check "compose.yaml: down ends job and service in their grace" compose_down
else
    check "compose.yaml: the service is up" false
fi

# deployed FILE SERVICE: with two nodes, and clients at this service.
deployed() {
    check "$1: it is deployed as it says" deploy "$1" || return
    check "$1: both nodes are there" eventually 40 nodes_are "$2" 2
    check "$1: a job runs on one of them" runs_on_a_node "$2"
    check "$1: down ends all in their grace" compose_down
}

deployed compose-cluster.yaml hub
# An engine of its own has no registry to pull from.
if [ -n "$engine_pid" ] && ! "${docker[@]}" image inspect postgres:17 >/dev/null 2>&1; then
    echo "skip  compose-postgres.yaml: there is no image postgres:17"
else
    deployed compose-postgres.yaml api2
fi

echo "docker: $passed passed, $failed failed"
[ "$failed" = 0 ]
