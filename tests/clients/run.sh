#!/usr/bin/env bash
# Holds openapi.yaml to what linters and the most used generators of clients take: lints it, has each generator make a client,
# compiles that, and runs a job with it on a real service.
#
#   tests/clients/run.sh PROGRAM
#
# The generators are pinned in package.json and requirements.txt and installed below target/, once.
set -euo pipefail
program=$(realpath "$1")
cd "$(dirname "$0")/../.."
here=tests/clients work=$PWD/target/clients api=$PWD/openapi.yaml

scripts/need.sh node=nodejs npm python3 java=default-jdk-headless javac=default-jdk-headless go=golang-go
# What clients in Go use to validate; its package is a library.
[ -d /usr/share/gocode/src/gopkg.in/validator.v2 ] || scripts/need.sh no-such-command=golang-gopkg-validator.v2-dev
python3 -c 'import ensurepip, venv' 2>/dev/null || scripts/need.sh no-such-command=python3-venv

mkdir -p "$work"
if ! cat "$here"/{package-lock.json,requirements.txt} | cmp -s - "$work/installed"; then
    echo "installing the generators into $work" >&2
    rm -rf "$work"/{node_modules,venv}
    cp "$here"/package{,-lock}.json "$work"
    (cd "$work" && npm ci --silent --no-audit --no-fund --ignore-scripts)
    python3 -m venv "$work/venv"
    "$work/venv/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements.txt"
    cat "$here"/{package-lock.json,requirements.txt} >"$work/installed"
fi
cp "$here"/*.ts "$here"/{tsconfig,package}.json "$work"
cd "$work"
rm -rf generated built service-state
mkdir generated
export PATH="$work/node_modules/.bin:$PATH" REDOCLY_TELEMETRY=off REDOCLY_SUPPRESS_UPDATE_NOTICE=true
# As a dependency would be: what a client leaves unused is its own affair.
generate() {
    local name=$1
    shift
    "$@" >"generated/$name.log" 2>&1 || { cat "generated/$name.log" >&2; echo "$name: no client" >&2; exit 1; }
}

redocly lint --config "$OLDPWD/redocly.yaml" --format=summary "$api" >generated/lint.log 2>&1 || { cat generated/lint.log >&2; exit 1; }

generate hey-api openapi-ts -i "$api" -o generated/hey-api
generate openapi-typescript openapi-typescript "$api" --default-non-nullable false -o generated/openapi-typescript.ts
generate orval orval --input "$api" --output generated/orval.ts --client fetch
generate oazapfts oazapfts "$api" generated/oazapfts.ts
openapi_generator() {
    generate "$1" venv/bin/openapi-generator-cli generate -i "$api" -g "$1" -o "generated/$1" --additional-properties="$2"
}
openapi_generator typescript-fetch supportsES6=true,importFileExtension=.js
openapi_generator typescript-axios supportsES6=true,importFileExtension=.js
openapi_generator python ''
openapi_generator go packageName=generated,withGoMod=false
openapi_generator java library=native,openApiNullable=false,invokerPackage=generated,apiPackage=generated.api,modelPackage=generated.model
uses=(openapi-fetch hey orval oazapfts fetch axios)
printf '{"extends": "./tsconfig.json", "files": [%s]}' \
    "$(printf '"%s.ts",' "${uses[@]}" | sed 's/,$//')" >tsconfig.uses.json
tsc -p tsconfig.uses.json

# Without modules: they would be fetched. The tests that come with the client are left out, for they need more.
mkdir -p go/src
rm -rf go/src/{generated,use} generated/go/test
cp -r generated/go go/src/generated
cp -r "$OLDPWD/$here/go" go/src/use
GO111MODULE=off GOFLAGS='' GOPATH=$PWD/go:/usr/share/gocode GOCACHE=$PWD/go/cache go build -o built/go use

# What Java clients use of libraries is in the generator's own archive, which is pinned with it.
jar=$(find "$PWD/venv" -name openapi-generator.jar)
find generated/java/src/main "$OLDPWD/$here/java" -name '*.java' >java.sources
mkdir -p built/java
javac -nowarn -d built/java -cp "$jar" @java.sources >generated/javac.log 2>&1 || { cat generated/javac.log >&2; exit 1; }

mkdir -m 700 service-state
env -u PROCESSION_LISTEN -u PROCESSION_STATE_DIR "$program" serve --listen 127.0.0.1:0 --state-dir "$work/service-state" \
    --on-shutdown stop --min-free-bytes 0 >service.out 2>service.log &
service=$!
trap 'kill $service 2>/dev/null; wait $service || true' EXIT
for _ in $(seq 300); do
    base=$(sed -n 's/.*"listening on \([^"]*\)".*/\1/p' service.out)
    [ -n "$base" ] && break
    kill -0 $service || { cat service.log >&2; exit 1; }
    sleep 0.1
done
token=$(cat service-state/token)
for use in "${uses[@]}"; do
    timeout 120 node "built/$use.js" "$base" "$token"
    echo "a client of $use runs a job"
done
timeout 120 built/go "$base" "$token"
echo 'a client of openapi-generator (go) runs a job'
timeout 120 java -cp "built/java:$jar" Use "$base" "$token"
echo 'a client of openapi-generator (java) runs a job'
PYTHONPATH=generated/python timeout 120 venv/bin/python "$OLDPWD/$here/use.py" "$base" "$token"
echo 'a client of openapi-generator (python) runs a job'
