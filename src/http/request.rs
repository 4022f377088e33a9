//! From the JSON of a request to a validated [`Spec`].
//!
//! PURE. It owns every rule about what a client may ask for; it does not know what this machine can
//! give (users, cgroups, privileges), nor HTTP.

mod batches;
mod dependencies;
mod fields;
mod files;
mod json;
mod many;
mod patch;
mod placement;
mod queues;
mod ready;
mod retry;
mod rules;
mod sandbox;
mod schedules;
mod session;
mod template;
#[cfg(test)]
mod tests;
mod times;
mod tokens;
mod warning;
mod webhooks;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

pub use batches::{NewBatch, Only, parse_batch, parse_batch_rerun};
pub(crate) use fields::nearest;
use fields::{At, Errors, Fields, boolean, integer, seconds};
pub use fields::{FieldError, code};
use job::dependency::Dependency;
use job::pty::{Pty, SIZE_MAX, Size};
use job::spec::{
    EnvInherit, IoClass, IoPriority, Limits, NameOrId, OutputPolicy, Scope, Secrets, Stdin,
    StdinData, StopPolicy,
};
use job::time::Timestamp;
use job::{Signal, Spec};
use json::{JsonError, Value};
pub use many::{
    ACTED_MAX, Chosen, SignalMany, StopMany, WaitMany, Which, parse_chosen, parse_signal_many,
    parse_stop_many, parse_wait_many,
};
pub use patch::{Changes, parse_amendment, parse_queue_patch, parse_rerun};
pub use queues::parse_queue;
use rules::StdinMode;
pub use schedules::{parse_schedule, parse_schedule_patch, parse_times, schedule_members};
pub(crate) use session::{parse_code, parse_entry, parse_ticket};
pub use template::{Argument, TemplateRequest, Turn, parse_template_request};
pub(crate) use tokens::parse_token;

/// A request body that is JSON, with an object at its top and no key twice.
pub struct Body(Value);

impl fmt::Debug for Body {
    /// Shows nothing of the content, which may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body").finish_non_exhaustive()
    }
}

/// Why a request body was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// No JSON.
    #[error("not valid JSON: {detail}")]
    Syntax {
        /// What is wrong, and in which line and column.
        detail: String,
    },
    /// Arrays and objects lie within one another too deep.
    #[error("nested more than {} levels deep", json::DEPTH_MAX)]
    TooDeep,
    /// JSON, but no object, or with a repeated key.
    #[error("{} fields are not valid", .0.len())]
    Invalid(Vec<FieldError>),
}

/// Reads a request body.
pub fn parse_body(bytes: &[u8]) -> Result<Body, BodyError> {
    let value = json::parse(bytes).map_err(|error| match error {
        JsonError::Syntax(detail) => BodyError::Syntax { detail },
        JsonError::TooDeep => BodyError::TooDeep,
    })?;
    let errors = Errors::default();
    let at = At::root(&value, &errors);
    at.refuse_duplicates();
    let object = Fields::of(&at).map(|_| ());
    errors.result(object).map_err(BodyError::Invalid)?;
    Ok(Body(value))
}

/// How large the parts of a spec may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpecLimits {
    /// Items of `command`, and of `shell`.
    pub argv_items: usize,
    /// Bytes of one argument, or of one variable with its name. The kernel's own limit is 128 KiB with
    /// the NUL at the end (`MAX_ARG_STRLEN`, execve(2)).
    pub argument_bytes: usize,
    /// Bytes of all arguments and variables together, each with the NUL at its end.
    pub exec_bytes: usize,
    /// Pairs of `labels`.
    pub labels: usize,
    /// Webhooks may name private, loopback and link-local addresses.
    pub private_webhooks: bool,
    /// Inputs may be parts of the form that the job comes in.
    pub parts: bool,
}

impl Default for SpecLimits {
    fn default() -> Self {
        Self {
            argv_items: 4096,
            argument_bytes: (128 << 10) - 1,
            exec_bytes: 1 << 20,
            labels: 64,
            private_webhooks: false,
            parts: false,
        }
    }
}

/// What a client wants to run, validated, with every default filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct NewJob {
    /// A name for people.
    pub name: Option<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// What to run; its `secret_env` holds the real values.
    pub spec: Spec,
    /// It does not start before this moment.
    pub run_at: Option<Timestamp>,
    /// It does not start before it is released.
    pub hold: bool,
    /// It brings a priority of its own.
    pub has_priority: bool,
    /// What has to end before it may start.
    pub depends_on: Vec<Dependency>,
}

const TEN_YEARS: Duration = Duration::from_hours(10 * 365 * 24);
/// From the least that is more than zero.
const ANY_TIME: RangeInclusive<Duration> = Duration::from_nanos(1)..=TEN_YEARS;
/// The longest reason of a stop.
pub(crate) const MAX_REASON_CHARACTERS: usize = 1024;

const ONE_DAY: Duration = Duration::from_hours(24);
const ONE_MINUTE: Duration = Duration::from_mins(1);
const PATH_BYTES: usize = 4095;
/// `PID_MAX_LIMIT` of the kernel, the most that `pids.max` takes.
const PIDS_MAX: u64 = 4_194_304;

/// Reads the body of `POST /jobs`. Every error is told, up to a hundred.
pub fn parse_submission(body: &Body, limits: &SpecLimits) -> Result<NewJob, Vec<FieldError>> {
    let errors = Errors::default();
    let at = At::root(&body.0, &errors);
    let job = Fields::of(&at).and_then(|fields| submission(fields, limits));
    errors.result(job)
}

fn submission(mut f: Fields<'_>, limits: &SpecLimits) -> Option<NewJob> {
    let base = Spec::default();
    let name = f.optional("name", rules::job_name);
    let labels = f.optional("labels", rules::labels(limits.labels));
    let run_at = f.optional("run_at", times::moment);
    let hold = f.or_default("hold", boolean);
    let depends_on = f.or_default("depends_on", dependencies::dependencies);
    let inputs = f.or_default("inputs", files::inputs(limits));
    let artifacts = f.optional("artifacts", files::artifacts);
    let ready = f.optional("ready", ready::ready);
    let needs_workspace =
        !inputs.is_empty() || artifacts.is_some() || ready::needs_workspace(ready.as_ref());
    let variables = rules::variables(limits);
    // One line for each field of the API, with its rule.
    let spec = Spec {
        program: rules::program(&mut f, limits).unwrap_or(base.program),
        cwd: f.optional("cwd", files::working_directory),
        env: f.or_default("env", &variables),
        secret_env: Secrets(f.or_default("secret_env", &variables)),
        env_inherit: f.or_default("env_inherit", env_inherit),
        user: f.optional("user", rules::name_or_id),
        group: f.optional("group", rules::name_or_id),
        supplementary_groups: f.optional("supplementary_groups", supplementary_groups),
        umask: f.or(base.umask, "umask", rules::umask),
        nice: f.optional("nice", integer(-20..=19)),
        io_priority: f.optional("io_priority", io_priority),
        oom_score_adj: f.optional("oom_score_adj", integer(-1000..=1000)),
        cpu_affinity: f.optional("cpu_affinity", cpu_affinity),
        rlimits: f.or_default("rlimits", rules::rlimits),
        limits: f.or_default("limits", whole_job_limits),
        no_new_privs: f.or(base.no_new_privs, "no_new_privs", boolean),
        sandbox: f.optional("sandbox", sandbox::sandbox),
        stdin: f.or_default("stdin", stdin),
        pty: f.optional("pty", pty),
        output: f.or_default("output", output),
        timeout: f.optional("timeout_seconds", seconds(ANY_TIME)),
        timeout_warning: f.optional("timeout_warning", warning::warning),
        stop: f.or_default("stop", stop),
        wait_for: f.or_default("wait_for", rules::wait_for),
        success_exit_codes: f.or(base.success_exit_codes, "success_exit_codes", exit_codes),
        queue: f.or(base.queue, "queue", rules::queue),
        priority: f.or(base.priority, "priority", rules::priority),
        weight: f.or(base.weight, "weight", rules::weight),
        concurrency: f.optional("concurrency", rules::concurrency),
        start_deadline: f.optional("start_deadline_seconds", seconds(ANY_TIME)),
        ttl_after_finished: f.or(
            base.ttl_after_finished,
            "ttl_seconds_after_finished",
            seconds(ONE_MINUTE..=TEN_YEARS),
        ),
        webhooks: f.or_default("webhooks", webhooks::webhooks(limits)),
        retry: f.optional("retry", retry::retry),
        ready,
        workspace: files::workspace_of(&mut f, needs_workspace),
        inputs,
        artifacts,
        placement: f.optional("placement", placement::placement),
        on_node_loss: f.or_default("on_node_loss", placement::on_node_loss),
    };
    files::check_together(&f, &spec);
    rules::check_together(&f, &spec, limits);
    sandbox::check_together(&f, &spec);
    retry::check_together(&f, &spec);
    placement::check_together(&f, &spec);
    ready::check_together(&f, &spec);
    warning::check_together(&f, &spec);
    let has_priority = f.has("priority");
    f.finish();
    Some(NewJob {
        name,
        labels: labels.unwrap_or_default(),
        spec,
        run_at,
        hold,
        has_priority,
        depends_on,
    })
}

fn env_inherit(at: &At<'_>) -> Option<EnvInherit> {
    if let Value::Text(_) = at.value {
        return at.choice(&[("default", EnvInherit::Default), ("none", EnvInherit::None)]);
    }
    let Value::List(_) = at.value else {
        return at.refuse(
            code::WRONG_TYPE,
            "must be \"default\", \"none\" or an array of names",
        );
    };
    at.list(1024, |at| rules::variable_name(at.text()?, at))
        .map(EnvInherit::Names)
}

fn io_priority(at: &At<'_>) -> Option<IoPriority> {
    let mut f = Fields::of(at)?;
    let class = f.required("class", |at| {
        at.choice(&[
            ("idle", IoClass::Idle),
            ("best_effort", IoClass::BestEffort),
            ("realtime", IoClass::Realtime),
        ])
    });
    let level = f.or(IoPriority::LEVEL, "level", integer(0..=7));
    f.finish();
    Some(IoPriority {
        class: class?,
        level,
    })
}

fn supplementary_groups(at: &At<'_>) -> Option<Vec<NameOrId>> {
    at.list(64, rules::name_or_id)
}

fn cpu_affinity(at: &At<'_>) -> Option<Vec<usize>> {
    at.set(1024, |at| integer(0..=1023_u16)(at).map(usize::from))
}

fn exit_codes(at: &At<'_>) -> Option<Vec<u8>> {
    at.set(256, integer(0..=255))
}

fn whole_job_limits(at: &At<'_>) -> Option<Limits> {
    let mut f = Fields::of(at)?;
    let limits = Limits {
        memory_bytes: f.optional("memory_bytes", integer(1 << 20..=rules::INT64_MAX)),
        cpu: f.optional("cpu", rules::cpu),
        pids: f.optional("pids", integer(1..=PIDS_MAX)),
    };
    f.finish();
    Some(limits)
}

fn stdin(at: &At<'_>) -> Option<Stdin> {
    const ONE: &str = "give exactly one of text and base64";
    let mut f = Fields::of(at)?;
    let mode = f.required("mode", rules::stdin_mode);
    let text = f.optional("text", |at| at.text().map(str::to_owned));
    let base64 = f.optional("base64", rules::base64);
    let (has_text, has_base64) = (f.has("text"), f.has("base64"));
    let is_data = mode == Some(StdinMode::Data);
    if mode.is_some() && !is_data {
        for name in ["text", "base64"].into_iter().filter(|name| f.has(name)) {
            f.refuse(name, code::CONFLICT, "goes with the mode \"data\" only");
        }
    } else if is_data && has_text && has_base64 {
        f.refuse("base64", code::CONFLICT, ONE);
    } else if is_data && !has_text && !has_base64 {
        f.refuse("text", code::MISSING, ONE);
    }
    f.finish();
    match mode? {
        StdinMode::Null => Some(Stdin::Null),
        StdinMode::Open => Some(Stdin::Open),
        StdinMode::Data => text
            .map(StdinData::Text)
            .or(base64.map(StdinData::Base64))
            .map(Stdin::Data),
    }
}

fn pty(at: &At<'_>) -> Option<Pty> {
    let base = Pty::default();
    let mut f = Fields::of(at)?;
    let pty = Pty {
        rows: f.or(base.rows, "rows", integer(1..=SIZE_MAX)),
        cols: f.or(base.cols, "cols", integer(1..=SIZE_MAX)),
        term: f.or(base.term, "term", rules::terminal_name),
    };
    f.finish();
    Some(pty)
}

fn output(at: &At<'_>) -> Option<OutputPolicy> {
    let base = OutputPolicy::default();
    let mut f = Fields::of(at)?;
    let policy = OutputPolicy {
        merge_stderr: f.or(base.merge_stderr, "merge_stderr", boolean),
        max_bytes: f.or(base.max_bytes, "max_bytes", integer(4096..=1_u64 << 40)),
        on_limit: f.or_default("on_limit", rules::on_limit),
    };
    f.finish();
    Some(policy)
}

fn stop(at: &At<'_>) -> Option<StopPolicy> {
    let base = StopPolicy::default();
    let mut f = Fields::of(at)?;
    let policy = StopPolicy {
        signal: f.or(base.signal, "signal", rules::signal),
        grace: f.or(
            base.grace,
            "grace_seconds",
            seconds(Duration::ZERO..=ONE_DAY),
        ),
        scope: f.or_default("scope", rules::scope),
    };
    f.finish();
    Some(policy)
}

/// Reads the body of `POST /jobs/{id}/signal`.
pub fn parse_signal_body(body: &Body) -> Result<(Signal, Scope), Vec<FieldError>> {
    let errors = Errors::default();
    let at = At::root(&body.0, &errors);
    let request = Fields::of(&at).and_then(|mut f| {
        let signal = f.required("signal", rules::signal);
        let scope = f.or_default("scope", rules::scope);
        f.finish();
        signal.map(|signal| (signal, scope))
    });
    errors.result(request)
}

/// Reads the body of `PUT /jobs/{id}/pty`.
pub fn parse_size(body: &Body) -> Result<Size, Vec<FieldError>> {
    let errors = Errors::default();
    let at = At::root(&body.0, &errors);
    let size = Fields::of(&at).and_then(|mut f| {
        let rows = f.required("rows", integer(1..=SIZE_MAX));
        let cols = f.required("cols", integer(1..=SIZE_MAX));
        f.finish();
        Some(Size {
            rows: rows?,
            cols: cols?,
        })
    });
    errors.result(size)
}
