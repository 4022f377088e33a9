#!/usr/bin/env bash
# Runs what privilege changes once more, as an ordinary user, when started as root:
#   test-unprivileged.sh USER 'TESTS' cargo nextest run --locked   (or: cargo test --locked)
#
# Much of what Procession does differs by privilege: whose processes it may signal, cgroups, `user`. cargo itself stays
# root and builds nothing anew: each test binary is copied to where the user can read it, and so is the program, so that
# the user needs neither a toolchain nor a way into the checkout. TESTS are beginnings of names.
set -euo pipefail
cd "$(dirname "$0")/.."
user=$1
read -ra tests <<<"$2"
shift 2

if [ "$(id -u)" != 0 ]; then
    echo "already without privileges: the first run was this one"
    exit 0
fi
scripts/need.sh useradd=passwd setpriv=util-linux
id "$user" >/dev/null 2>&1 || useradd --system --create-home --shell /bin/sh "$user"
home=$(getent passwd "$user" | cut -d: -f6)

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkdir "$scratch/bin" "$scratch/tmp"
chown "$user:" "$scratch/tmp"
chmod 0755 "$scratch" "$scratch/bin"

# Each test binary is started through this, by cargo and by nextest alike, which both name the program in the variable.
runner=$scratch/as-user
cat >"$runner" <<RUNNER
#!/bin/sh
set -e
copy() { # copy FILE: its copy is whole before it has its name, whoever else makes it at the same time
    copied=$scratch/bin/\${1##*/}
    [ -e "\$copied" ] || { cp "\$1" "\$copied.\$\$" && mv "\$copied.\$\$" "\$copied"; }
}
if [ -n "\$CARGO_BIN_EXE_procession" ]; then
    copy "\$CARGO_BIN_EXE_procession"
    export CARGO_BIN_EXE_procession="\$copied"
fi
copy "\$1"
shift
cd "$scratch/tmp"
exec setpriv --reuid "$user" --regid "$user" --init-groups --inh-caps=-all \\
    env HOME="$home" USER="$user" LOGNAME="$user" TMPDIR="$scratch/tmp" "\$copied" "\$@"
RUNNER
chmod 0755 "$runner"
host=$(rustc -vV | sed -n 's/^host: //p' | tr 'a-z-' 'A-Z_')
echo "running as $user: ${tests[*]}"
env "CARGO_TARGET_${host}_RUNNER=$runner" "$@" --test it --test security -- "${tests[@]}"
