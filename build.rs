//! Has the linker make a smaller program, if it is one that can and the profile is none of development.

use std::env;
use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let value = |name: &str| env::var(name).unwrap_or_default();
    if value("PROFILE") != "release" {
        return;
    }
    let (host, target) = (value("HOST"), value("TARGET"));
    // Relocations in a tenth of the room: musl and the linker of this machine know them, old C libraries do not.
    if target.ends_with("-musl") || (host == target && libc_knows_packed_relocations()) {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
    // One copy of functions that are alike. The compiler's own linker does it; others need not.
    if host == target
        && value("RUSTC_LINKER").is_empty()
        && links_with_own_lld(&value("RUSTC"), &host)
    {
        println!("cargo::rustc-link-arg-bins=-Wl,--icf=all");
    }
}

/// glibc from 2.36 on.
fn libc_knows_packed_relocations() -> bool {
    said(Command::new("getconf").arg("GNU_LIBC_VERSION")).is_some_and(|text| {
        let mut numbers = text.trim_start_matches("glibc ").trim().split('.');
        let mut number = || numbers.next()?.parse::<u32>().ok();
        matches!((number(), number()), (Some(major), Some(minor)) if (major, minor) >= (2, 36))
    })
}

/// The usual linker of this target is the one beside the compiler, from Rust 1.90 on, and nobody chose another.
fn links_with_own_lld(rustc: &str, host: &str) -> bool {
    let chosen = env::var("CARGO_ENCODED_RUSTFLAGS").is_ok_and(|flags| !flags.is_empty());
    let sysroot = said(Command::new(rustc).args(["--print", "sysroot"]));
    host == "x86_64-unknown-linux-gnu"
        && !chosen
        && sysroot.is_some_and(|root| {
            let lld = format!("lib/rustlib/{host}/bin/gcc-ld/ld.lld");
            Path::new(root.trim()).join(lld).exists()
        })
}

fn said(command: &mut Command) -> Option<String> {
    let output = command.output().ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}
