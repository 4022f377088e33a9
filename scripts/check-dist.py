#!/usr/bin/env python3
"""Checks what `make dist` has made: check-dist.py DIRECTORY

The binary holds the list of its dependencies (section .dep-v0, as cargo-auditable writes it), the SBOM names the same
ones, and both are of this version.
"""

import json
import pathlib
import re
import struct
import sys
import zlib


def section(binary, name):
    """The bytes of a section of a 64-bit little-endian ELF file."""
    assert binary[:6] == b"\x7fELF\x02\x01", "no 64-bit ELF file"
    (table,) = struct.unpack_from("<Q", binary, 0x28)
    size, count, names = struct.unpack_from("<HHH", binary, 0x3A)
    headers = [struct.unpack_from("<IIQQQQ", binary, table + size * index) for index in range(count)]
    strings = headers[names][4]
    for header in headers:
        start = strings + header[0]
        if binary[start : binary.index(b"\0", start)].decode() == name:
            return binary[header[4] : header[4] + header[5]]
    raise AssertionError(f"the binary has no section {name}")


def main(directory):
    root = pathlib.Path(__file__).resolve().parents[1]
    version = re.search(r'^version = "(.*)"', (root / "Cargo.toml").read_text(), re.M).group(1)
    listed = json.loads(zlib.decompress(section((directory / "procession").read_bytes(), ".dep-v0")))
    # What only build scripts use is no part of the program.
    built_in = {
        (package["name"], package["version"])
        for package in listed["packages"]
        if package.get("kind", "runtime") == "runtime"
    }
    assert ("procession", version) in built_in, "the binary is of another version"
    sbom = json.loads((directory / "procession.cdx.json").read_text())
    assert sbom["bomFormat"] == "CycloneDX", "no SBOM"
    subject = sbom["metadata"]["component"]
    assert (subject["name"], subject["version"]) == ("procession", version), "the SBOM is of something else"
    components = {(component["name"], component["version"]) for component in sbom["components"]}
    missing = built_in - components - {("procession", version)}
    assert not missing, f"not in the SBOM: {sorted(missing)}"
    for name in ("rusqlite", "tokio", "landlock"):
        assert any(found == name for found, _ in built_in), f"{name} is missing in the binary's list"
    print(f"{len(built_in)} crates in the binary, {len(components)} in the SBOM")


main(pathlib.Path(sys.argv[1]))
