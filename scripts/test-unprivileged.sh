#!/usr/bin/env bash
# Runs tests/it as an ordinary user when started as root:
#   test-unprivileged.sh USER cargo nextest run --locked   (or: cargo test --locked)
#
# Much of what Procession does differs by privilege: whose processes it may signal, cgroups, `user`. cargo
# itself stays root and only hands each test binary over, so that the user needs no toolchain.
set -euo pipefail
cd "$(dirname "$0")/.."
user=$1
shift

if [ ! -d tests/it ]; then
    echo "tests/it is not there: nothing to run without privileges" >&2
    exit 0
fi
if [ "$(id -u)" != 0 ]; then
    echo "already without privileges: the first run was this one"
    exit 0
fi
scripts/need.sh useradd=passwd setpriv=util-linux
id "$user" >/dev/null 2>&1 || useradd --system --create-home --shell /bin/sh "$user"
home=$(getent passwd "$user" | cut -d: -f6)

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
chown "$user:" "$scratch"

# A checkout below a private directory cannot be entered by the user, so a copy is tested instead.
here=$PWD
if ! setpriv --reuid "$user" --regid "$user" --init-groups test -r "$here/Cargo.toml" -a -x "$here"; then
    copy=$(mktemp -d)
    trap 'rm -rf "$scratch" "$copy"' EXIT
    chmod 0755 "$copy"
    git ls-files -z | xargs -0 cp --parents -t "$copy"
    cd "$copy"
fi

# Each test binary is started through this, by cargo and by nextest alike.
runner=$scratch/as-user
cat >"$runner" <<RUNNER
#!/bin/sh
exec setpriv --reuid "$user" --regid "$user" --init-groups --inh-caps=-all \\
    env HOME="$home" USER="$user" LOGNAME="$user" TMPDIR="$scratch" "\$@"
RUNNER
chmod 0755 "$runner" "$scratch"
host=$(rustc -vV | sed -n 's/^host: //p' | tr 'a-z-' 'A-Z_')
echo "running tests/it as $user"
env "CARGO_TARGET_${host}_RUNNER=$runner" "$@" --test it
