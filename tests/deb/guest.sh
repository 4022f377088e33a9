#!/usr/bin/env bash
# Runs within the Debian of tests/deb/run.sh: guest.sh OLD.deb NEW.deb
set -euo pipefail
old=$1
new=$2
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C

say() { echo "ok    $*"; }
fail() {
    echo "FAILED: $*" >&2
    [ ! -e /log ] || tail -20 /log >&2
    exit 1
}
# Waits until a command succeeds.
eventually() {
    local what=$1 tries=0
    shift
    until "$@" >/dev/null 2>&1; do
        tries=$((tries + 1))
        [ "$tries" -lt 300 ] || fail "never: $what"
        sleep 0.1
    done
}

dpkg -i "$old" >/dev/null 2>&1 || { dpkg -i "$old"; fail "the package is not installed"; }
getent passwd procession >/dev/null || fail "there is no user"
[ "$(stat -c '%U %G %a' /var/lib/procession)" = 'procession procession 700' ] || fail "the state directory is not private"
for file in /usr/lib/systemd/system/procession.service /usr/share/man/man1/procession-run.1.gz \
    /usr/share/bash-completion/completions/procession /etc/procession/config.toml; do
    [ -s "$file" ] || fail "no $file"
done
say "user, state directory, unit, manual pages, completions and configuration are there"

# Before the first start, as root and as the service's user.
token=$(procession token create --name ci --scope operate 2>/dev/null)
as_user() { setpriv --reuid procession --regid procession --init-groups env HOME=/var/lib/procession "$@"; }
as_user procession token list | grep -q '^ci ' || fail "the service's user does not see the token that root made"
as_user procession token create --name mine --scope read >/dev/null 2>&1 || fail "the service's user cannot make a token"
[ "$(find /var/lib/procession ! -user procession)" = '' ] || fail "root has left files of its own"
say "tokens are made without knowing the layout"

# Another port than a service of this machine may have; an edited file is kept by the upgrade.
sed -i 's/^#listen = .*/listen = "127.0.0.1:18573"/; s/^#min_free_bytes = .*/min_free_bytes = 0/' /etc/procession/config.toml
setpriv --reuid procession --regid procession --init-groups env HOME=/var/lib/procession procession serve >/out 2>/log &
supervisor=$!
url=http://127.0.0.1:18573
eventually "the service answers" curl -sf "$url/healthz"
ask() { curl -sf -H "Authorization: Bearer $token" "$@"; }
ask "$url/jobs" -d '{"command":["sleep","4242"]}' -H 'Content-Type: application/json' >/job || fail "the token opens nothing"
id=$(grep -o '"id": *"[^"]*"' /job | head -1 | cut -d'"' -f4)
pid=$(pgrep -f 'sleep 4242')
say "the installed service runs a job"

before=$(readlink "/proc/$supervisor/exe")
dpkg -i "$new" >/dev/null 2>&1 || { dpkg -i "$new"; fail "the newer package is not installed"; }
is_new() { [ "$(stat -Lc %i "/proc/$supervisor/exe")" = "$(stat -c %i /usr/bin/procession)" ]; }
eventually "the running service is the new program" is_new
eventually "it answers again" ask "$url/jobs/$id"
ask "$url/jobs/$id" | grep -q '"state": *"running"' || fail "the job does not run"
[ "$(pgrep -f 'sleep 4242')" = "$pid" ] || fail "the job is another process"
grep -q '^listen = "127.0.0.1:18573"' /etc/procession/config.toml || fail "the configuration was replaced"
say "an upgrade replaces the program of the running service ($before), and its job runs on"

ask -X DELETE "$url/jobs/$id?wait=10" >/dev/null || fail "the job cannot be stopped"
! pgrep -f 'sleep 4242' >/dev/null || fail "the job still runs"
kill -TERM "$supervisor"
wait "$supervisor" || fail "the service ended with $?"
tail -1 /log | grep -q 'the service has ended' || fail "the last line is another"

dpkg -r procession >/dev/null 2>&1 || fail "it cannot be removed"
[ ! -e /usr/bin/procession ] && [ ! -e /usr/lib/systemd/system/procession.service ] || fail "files are left"
[ -e /var/lib/procession/procession.db ] && [ -e /etc/procession/config.toml ] || fail "the state went with the program"
say "a removal keeps state and configuration"
dpkg -P procession >/dev/null 2>&1 || fail "it cannot be purged"
[ ! -e /var/lib/procession ] && [ ! -e /etc/procession/config.toml ] || fail "a purge leaves state"
say "a purge takes them away"
