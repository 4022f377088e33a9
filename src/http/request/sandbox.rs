//! The field `sandbox` of a spec.

use super::PATH_BYTES;
use super::fields::{At, Fields, boolean, code};
use super::rules::absolute_path;
use job::Spec;
use job::sandbox::{Mechanism, Sandbox};

/// The most paths of one list.
const PATHS: usize = 256;

pub(super) fn sandbox(at: &At<'_>) -> Option<Sandbox> {
    let mut f = Fields::of(at)?;
    let sandbox = Sandbox {
        landlock: f.or_default("landlock", mechanism),
        seccomp: f.or_default("seccomp", mechanism),
        writable_paths: f.optional("writable_paths", paths),
        readable_paths: f.optional("readable_paths", paths),
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
    f.finish();
    Some(sandbox)
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
