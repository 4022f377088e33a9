#!/usr/bin/env bash
# Makes sure that programs are there: need.sh COMMAND[=DEBIAN-PACKAGE] ...
#
# What is missing is installed from the Debian release in use, as root only, and said with its version;
# otherwise the line to type is printed. The release is the pin: it never changes a package's version
# but for fixes.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin

missing=()
for want in "$@"; do
    command=${want%%=*}
    command -v "$command" >/dev/null || missing+=("${want#*=}")
done
[ ${#missing[@]} -gt 0 ] || exit 0

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "missing: install the packages '${missing[*]}' (on Debian: apt-get install ${missing[*]})" >&2
    exit 1
fi
echo "installing ${missing[*]}" >&2
log=$(mktemp)
trap 'rm -f "$log"' EXIT
export DEBIAN_FRONTEND=noninteractive
{ apt-get update && apt-get install -y --no-install-recommends "${missing[@]}"; } >"$log" 2>&1 \
    || { tail -20 "$log" >&2; exit 1; }
# shellcheck disable=SC2016 # The names are dpkg-query's, not the shell's.
dpkg-query -W -f='installed ${Package} ${Version}\n' "${missing[@]}" >&2
