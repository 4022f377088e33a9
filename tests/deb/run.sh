#!/usr/bin/env bash
# The Debian package in a Debian of its own: installed, started, upgraded under a running job, removed and purged.
#
#   tests/deb/run.sh [--suite bookworm|trixie] [--program FILE]
#
# The Debian is a directory that debootstrap makes, with processes and mounts of its own and this machine's network. It
# has no systemd: the service is started as the unit does it; tests/vm has the unit.
set -euo pipefail
cd "$(dirname "$0")/../.."

suite=bookworm
program=target/release/procession
while [ $# -gt 0 ]; do
    case "$1" in
        --suite) suite=$2; shift 2 ;;
        --program) program=$2; shift 2 ;;
        *) echo "unknown argument: $1" >&2; exit 2 ;;
    esac
done
[ "$(id -u)" = 0 ] || { echo "tests/deb/run.sh must run as root: it makes a root file system" >&2; exit 2; }
scripts/need.sh debootstrap dpkg-deb=dpkg unshare=util-linux

base=target/deb/$suite
if [ ! -e "$base.tar" ]; then
    echo "making a $suite root file system in $base"
    rm -rf "$base"
    mkdir -p target/deb
    debootstrap --variant=minbase --include=curl,procps "$suite" "$base" "${DEBIAN_MIRROR:-http://deb.debian.org/debian}" \
        >"$base.log" 2>&1 || { tail -20 "$base.log" >&2; exit 1; }
    rm -rf "$base"/var/cache/apt/archives/*.deb "$base"/var/lib/apt/lists/* "$base"/usr/share/{doc,locale,man}/*
    tar -C "$base" -cf "$base.tar.part" . && mv "$base.tar.part" "$base.tar"
    rm -rf "$base"
fi

root=$(mktemp -d /tmp/procession-deb.XXXXXX)
trap 'rm -rf --one-file-system "$root"' EXIT
tar -C "$root" -xf "$base.tar"
mkdir -p "$root/packages"
export DEB_LEVEL=0
old=$(scripts/deb.sh "$program" "$root/packages" 0.0.1)
new=$(scripts/deb.sh "$program" "$root/packages" 0.0.2)
ls -l "$old" | awk '{print "package: " $5 " bytes"}'
cp tests/deb/guest.sh "$root/guest.sh"
# Its own processes end with the first of them, and its mounts with them.
timeout 300 unshare --mount --pid --fork --kill-child --mount-proc="$root/proc" \
    chroot "$root" /bin/bash /guest.sh "/packages/$(basename "$old")" "/packages/$(basename "$new")"
