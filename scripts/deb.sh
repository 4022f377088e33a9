#!/usr/bin/env bash
# Makes a Debian package of a program that is built: scripts/deb.sh PROGRAM OUTPUT-DIR [VERSION]
#
# Debian's own dpkg-deb does it, so no tool has to be built. DEB_LEVEL=0 compresses in less time. The program writes its manual pages and completions.
set -euo pipefail
cd "$(dirname "$0")/.."

program=$(realpath "$1")
output=$2
version=${3:-$("$program" --version | cut -d' ' -f2)}
scripts/need.sh dpkg-deb=dpkg objdump=binutils

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
chmod 0755 "$root"
put() { install -D -m "$1" "$2" "$root$3"; }

put 0755 "$program" /usr/bin/procession
for unit in service socket; do
    put 0644 "packaging/procession.$unit" "/usr/lib/systemd/system/procession.$unit"
done
put 0644 packaging/config.toml /etc/procession/config.toml
put 0644 packaging/deb/default /etc/default/procession

doc=/usr/share/doc/procession
put 0644 packaging/deb/copyright "$doc/copyright"
put 0644 LICENSE-MIT "$doc/LICENSE-MIT"
put 0644 README.md "$doc/README.md"
put 0644 CHANGELOG.md "$doc/changelog"
for file in hardened.conf before-systemd-254.conf prometheus/scrape.yml prometheus/alerts.yml grafana/procession.json; do
    put 0644 "packaging/$file" "$doc/examples/$(basename "$file")"
done
for file in docs/*.md; do
    put 0644 "$file" "$doc/docs/$(basename "$file")"
done

install -d "$root/usr/share/man/man1"
"$program" man --dir "$root/usr/share/man/man1"
gzip -9n "$root"/usr/share/man/man1/*.1 "$root$doc/changelog"
complete() { install -d "$root$(dirname "$2")" && "$program" completions "$1" >"$root$2"; }
complete bash /usr/share/bash-completion/completions/procession
complete zsh /usr/share/zsh/vendor-completions/_procession
complete fish /usr/share/fish/vendor_completions.d/procession.fish

# The C library that the program was linked with, if any: an older one may lack what it uses. Packed relocations are known from 2.36 on.
libc=$(objdump -p "$program" 2>/dev/null | grep -o 'GLIBC_[0-9A-Z_.]*' | sed 's/GLIBC_ABI_DT_RELR/GLIBC_2.36/' | sort -Vu \
    | tail -1 | cut -d_ -f2) || libc=
install -d "$root/DEBIAN"
cat >"$root/DEBIAN/control" <<CONTROL
Package: procession
Version: $version
Architecture: $(dpkg --print-architecture)
Maintainer: the authors of Procession <procession@localhost>
Installed-Size: $(du -sk --exclude DEBIAN "$root" | cut -f1)
Depends: passwd, init-system-helpers (>= 1.54~)${libc:+, libc6 (>= $libc)}
Section: admin
Priority: optional
Description: HTTP job runner
 POST a command, it starts in a session of its own; DELETE ends every process
 of it, verified. Output is kept and followed, jobs wait in queues, and they
 outlive a restart and an upgrade of the service.
CONTROL
printf '%s\n' /etc/procession/config.toml /etc/default/procession >"$root/DEBIAN/conffiles"
for script in postinst prerm postrm; do
    install -m 0755 "packaging/deb/$script" "$root/DEBIAN/$script"
done

mkdir -p "$output"
file=$output/procession_${version}_$(dpkg --print-architecture).deb
dpkg-deb --root-owner-group -Zxz "-z${DEB_LEVEL:-6}" --build "$root" "$file" >/dev/null
echo "$file"
