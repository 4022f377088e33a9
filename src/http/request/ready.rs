//! The field `ready` of a spec: exactly one sign, and what belongs to it.

use std::time::Duration;

use super::fields::{At, Fields, boolean, code, integer, seconds};
use super::{ANY_TIME, files};
use job::Spec;
use job::ready::{Address, Channel, OnTimeout, Pattern, Ready, Sign};

/// How long a job may take that says nothing about it.
const TIMEOUT: Duration = Duration::from_mins(1);

/// What a process finds the socket by, to which it reports.
const NOTIFY_SOCKET: &str = "NOTIFY_SOCKET";

pub(super) fn ready(at: &At<'_>) -> Option<Ready> {
    const SIGNS: [&str; 4] = ["log", "port", "file", "notify"];
    const ONE: &str = "give exactly one of log, port, file and notify";
    let mut f = Fields::of(at)?;
    let log = f.optional("log", pattern);
    let stream = f.or_default("stream", |at| {
        at.choice(&[
            ("all", Channel::All),
            ("stdout", Channel::Stdout),
            ("stderr", Channel::Stderr),
        ])
    });
    let port = f.optional("port", integer(1..=u16::MAX));
    let address = f.or_default("address", |at| {
        at.choice(&[
            ("any", Address::Any),
            ("loopback", Address::Loopback),
            ("routable", Address::Routable),
        ])
    });
    let file = f.optional("file", files::inner_path);
    let notify = f.optional("notify", |at| {
        let is = boolean(at)?;
        if is {
            return Some(is);
        }
        at.refuse(code::INVALID_VALUE, "must be true where it is given")
    });
    let timeout = f.or(TIMEOUT, "timeout_seconds", seconds(ANY_TIME));
    let on_timeout = f.or_default("on_timeout", |at| {
        at.choice(&[("nothing", OnTimeout::Nothing), ("stop", OnTimeout::Stop)])
    });
    let mut given = SIGNS.into_iter().filter(|sign| f.has(sign));
    if given.next().is_none() {
        f.refuse("log", code::MISSING, ONE);
    }
    for other in given {
        f.refuse(other, code::CONFLICT, ONE);
    }
    for (name, with) in [("stream", "log"), ("address", "port")] {
        if f.has(name) && !f.has(with) {
            f.refuse(name, code::CONFLICT, format!("goes with {with} only"));
        }
    }
    f.finish();
    let sign = log
        .map(|log| Sign::Log { log, stream })
        .or(port.map(|port| Sign::Port { port, address }))
        .or(file.map(|file| Sign::File { file }))
        .or(notify.map(|notify| Sign::Notify { notify }))?;
    Some(Ready {
        sign,
        timeout,
        on_timeout,
    })
}

fn pattern(at: &At<'_>) -> Option<Pattern> {
    match Pattern::new(at.text()?) {
        Ok(pattern) => Some(pattern),
        Err(why) => at.refuse(code::INVALID_VALUE, why),
    }
}

/// A file is looked for in the workspace alone: what else the service sees is none of the job's business.
pub(super) fn needs_workspace(ready: Option<&Ready>) -> bool {
    ready.is_some_and(|ready| matches!(ready.sign, Sign::File { .. }))
}

pub(super) fn check_together(f: &Fields<'_>, spec: &Spec) {
    let sign = spec.ready.as_ref().map(|ready| &ready.sign);
    if !matches!(sign, Some(Sign::Notify { .. })) {
        return;
    }
    for (field, names) in [("env", &spec.env), ("secret_env", &spec.secret_env.0)] {
        if names.contains_key(NOTIFY_SOCKET) {
            let detail = "the service sets it, with ready.notify";
            f.refuse_below(field, NOTIFY_SOCKET, code::CONFLICT, detail);
        }
    }
}
