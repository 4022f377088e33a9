//! The field `sandbox` of a spec.

use super::PATH_BYTES;
use super::fields::{At, Fields, boolean, code, integer};
use super::rules::absolute_path;
use job::Spec;
use job::sandbox::{Mechanism, Network, Sandbox};

/// The most paths of one list.
const PATHS: usize = 256;
/// The most ports of one list.
const PORTS: usize = 1024;

pub(super) fn sandbox(at: &At<'_>) -> Option<Sandbox> {
    let mut f = Fields::of(at)?;
    let sandbox = Sandbox {
        landlock: f.or_default("landlock", mechanism),
        seccomp: f.or_default("seccomp", mechanism),
        writable_paths: f.optional("writable_paths", paths),
        readable_paths: f.optional("readable_paths", paths),
        network: f.or_default("network", network),
        require: f.or(false, "require", boolean),
    };
    if sandbox.landlock == Mechanism::Off {
        for name in ["writable_paths", "readable_paths"]
            .into_iter()
            .filter(|name| f.has(name))
        {
            f.refuse(name, code::CONFLICT, "needs landlock, which is off");
        }
    }
    let needs_both = sandbox.network == Network::Off && sandbox.seccomp == Mechanism::Off;
    let needs_rules = sandbox.network != Network::Default && sandbox.landlock == Mechanism::Off;
    if needs_rules || needs_both {
        let what = if needs_rules { "landlock" } else { "seccomp" };
        let detail = format!("needs {what}, which is off");
        f.refuse("network", code::CONFLICT, detail);
    }
    f.finish();
    Some(sandbox)
}

fn network(at: &At<'_>) -> Option<Network> {
    if at.is_text() {
        return at.choice(&[("default", Network::Default), ("off", Network::Off)]);
    }
    let mut f = Fields::of(at)?;
    let ports = |at: &At<'_>| at.list(PORTS, integer(1..=u16::MAX));
    let network = Network::Ports {
        connect_ports: f.or_default("connect_ports", ports),
        bind_ports: f.or_default("bind_ports", ports),
    };
    f.finish();
    Some(network)
}

fn mechanism(at: &At<'_>) -> Option<Mechanism> {
    at.choice(&[("default", Mechanism::Default), ("off", Mechanism::Off)])
}

fn paths(at: &At<'_>) -> Option<Vec<String>> {
    at.list(PATHS, absolute_path(PATH_BYTES))
}

/// Both mechanisms need a promise that the job gains no privileges: without it they would be a way to
/// confuse set-uid programs, and the kernel refuses them.
pub(super) fn check_together(f: &Fields<'_>, spec: &Spec) {
    let on = spec
        .sandbox
        .as_ref()
        .is_some_and(|sandbox| !sandbox.is_off());
    if on && !spec.no_new_privs {
        f.refuse(
            "no_new_privs",
            code::CONFLICT,
            "must be true with a sandbox; without one give {\"landlock\": \"off\", \"seccomp\": \"off\"}",
        );
    }
}
