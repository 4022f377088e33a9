#!/usr/bin/env bash
# Boots a virtual machine with systemd and a full cgroup v2 and runs tests/vm/guest.py in it, against
# the release binary and packaging/procession.service.
#
#   tests/vm/run.sh [--suite trixie|bookworm] [--binary FILE] [--timeout SECONDS] [--guest FILE]
#
# The whole root file system is the initramfs: no disk, no driver, no boot loader, nothing left behind.
# Emulated without KVM, since a nested KVM is not to be trusted. What was downloaded stays under
# target/vm and makes the next run quick.
set -euo pipefail
cd "$(dirname "$0")/../.."

suite=trixie
binary=target/release/procession
limit=900
guest=tests/vm/guest.py
while [ $# -gt 0 ]; do
    case "$1" in
        --suite) suite=$2; shift 2 ;;
        --binary) binary=$2; shift 2 ;;
        --timeout) limit=$2; shift 2 ;;
        --guest) guest=$2; shift 2 ;;
        *) echo "unknown argument: $1" >&2; exit 2 ;;
    esac
done
[ "$(id -u)" = 0 ] || { echo "tests/vm/run.sh must run as root: it makes a root file system" >&2; exit 2; }
[ -x "$binary" ] || { echo "no binary at $binary: run 'cargo build --release' first" >&2; exit 2; }

scripts/need.sh qemu-system-x86_64=qemu-system-x86 debootstrap cpio

cache=target/vm/$suite
mkdir -p "$cache"

# The root file system, made once: systemd, python3 and a kernel.
if [ ! -e "$cache/base.cpio" ] || [ ! -e "$cache/vmlinuz" ]; then
    echo "making a $suite root file system in $cache"
    rm -rf "$cache/root"
    debootstrap --variant=minbase \
        --include=systemd,systemd-sysv,dbus,python3-minimal,libpython3-stdlib,procps,linux-image-cloud-amd64 \
        "$suite" "$cache/root" "${DEBIAN_MIRROR:-http://deb.debian.org/debian}" >"$cache/debootstrap.log" 2>&1 \
        || { tail -20 "$cache/debootstrap.log" >&2; exit 1; }
    cp "$cache"/root/boot/vmlinuz-* "$cache/vmlinuz"
    # The guest needs no driver: console, cgroups and memory are built in.
    rm -rf "$cache"/root/boot/* "$cache"/root/lib/modules/* "$cache"/root/usr/lib/modules/* \
        "$cache"/root/var/cache/apt "$cache"/root/var/lib/apt/lists \
        "$cache"/root/usr/share/{doc,locale,man,i18n}
    ln -sf lib/systemd/systemd "$cache/root/init"
    echo procession-vm >"$cache/root/etc/hostname"
    (cd "$cache/root" && find . -xdev -print0 | cpio --null --create --format=newc --quiet) >"$cache/base.cpio.part"
    mv "$cache/base.cpio.part" "$cache/base.cpio"
    rm -rf "$cache/root"
fi

work=$(mktemp -d)
qemu=
# shellcheck disable=SC2317 # The trap reaches it.
cleanup() {
    [ -z "$qemu" ] || kill "$qemu" 2>/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT

# A second archive, laid over the first by the kernel: what this run tests.
overlay=$work/overlay
mkdir -p "$overlay"/{usr/local/bin,etc/systemd/system/multi-user.target.wants,opt/test}
install -m 0755 "$binary" "$overlay/usr/local/bin/procession"
install -m 0644 packaging/procession.{service,socket} "$overlay/etc/systemd/system/"
install -D -m 0644 packaging/config.toml "$overlay/etc/procession/config.toml"
install -m 0755 "$guest" "$overlay/opt/test/guest.py"
install -m 0644 packaging/before-systemd-254.conf packaging/hardened.conf "$overlay/opt/test/"
cat >"$overlay/etc/systemd/system/vm-test.service" <<'UNIT'
[Unit]
Description=The test of this machine
After=basic.target

[Service]
Type=oneshot
ExecStart=/usr/bin/python3 -u /opt/test/guest.py
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS0
ExecStopPost=/usr/bin/systemctl poweroff --force
UNIT
ln -s ../vm-test.service "$overlay/etc/systemd/system/multi-user.target.wants/vm-test.service"
# The serial console belongs to the test.
ln -s /dev/null "$overlay/etc/systemd/system/serial-getty@ttyS0.service"
(cd "$overlay" && find . -print0 | cpio --null --create --format=newc --quiet --owner=0:0) >"$work/overlay.cpio"
cat "$cache/base.cpio" "$work/overlay.cpio" >"$work/initrd"

log=$cache/console.log
started=$(date +%s)
timeout "$limit" qemu-system-x86_64 \
    -accel tcg,thread=multi -cpu max -smp 2 -m 3072 \
    -display none -no-reboot -nodefaults -nic none \
    -serial "file:$log" -monitor none \
    -kernel "$cache/vmlinuz" -initrd "$work/initrd" \
    -append "console=ttyS0 panic=-1 quiet systemd.unified_cgroup_hierarchy=1 systemd.show_status=0 systemd.log_level=warning rw" &
qemu=$!
status=0
wait "$qemu" || status=$?
qemu=
tr -d '\r' <"$log" | sed -n '/VM-TEST-BEGIN/,$p'
echo "the machine ran for $(($(date +%s) - started)) s; its console is in $log"
if [ "$status" != 0 ]; then
    tail -30 "$log" >&2
    echo "the machine did not end by itself within ${limit} s (status $status)" >&2
    exit 1
fi
result=$(tr -d '\r' <"$log" | sed -n 's/^VM-RESULT: //p' | tail -1)
case "$result" in
    *" passed, 0 failed") exit 0 ;;
    *) echo "result: ${result:-none}" >&2; exit 1 ;;
esac
