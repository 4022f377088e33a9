//! The rules of single fields of a spec, and of fields that must agree.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::SpecLimits;
use super::fields::{At, Fields, c_text, code, filled_text, integer};
use super::json::{Number, Value};
use job::Signal;
use job::Spec;
use job::label::{self, LabelError};
use job::queue::{Concurrency, OnConflict, WEIGHT_MAX};
use job::spec::{
    NameOrId, OnLimit, Program, Rlimit, RlimitResource, RlimitValue, Scope, Stdin, Umask, WaitFor,
};

/// The largest integer that every JSON library with 64-bit integers can hold.
pub(super) const INT64_MAX: u64 = i64::MAX.unsigned_abs();

const NAME_CHARACTERS: usize = 128;
const USER_NAME_BYTES: usize = 256;
const TERM_BYTES: usize = 64;

/// Exactly one of `command`, and `script` with its `shell`.
pub(super) fn program(f: &mut Fields<'_>, limits: &SpecLimits) -> Option<Program> {
    let command = f.optional("command", |at| match at.value {
        Value::Text(_) => at.refuse(
            code::WRONG_TYPE,
            "must be an array: give program and arguments as its items, or put it into `script`",
        ),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::List(_) | Value::Object(_) => {
            argv(limits)(at)
        }
    });
    let script = f.optional("script", c_text(limits.argument_bytes));
    let shell = f.optional("shell", argv(limits));
    let (has_command, has_script) = (f.has("command"), f.has("script"));
    if has_command && has_script {
        f.refuse(
            "script",
            code::CONFLICT,
            "give exactly one of command and script",
        );
    }
    if !has_command && !has_script {
        f.refuse("command", code::MISSING, "give command or script");
    }
    if f.has("shell") && !has_script {
        f.refuse("shell", code::CONFLICT, "goes with script only");
    }
    if has_command {
        return command.map(|command| Program::Command { command });
    }
    script.map(|script| Program::Script {
        script,
        shell: shell.unwrap_or_else(|| vec!["/bin/sh".to_owned(), "-c".to_owned()]),
    })
}

fn argv(limits: &SpecLimits) -> impl Fn(&At<'_>) -> Option<Vec<String>> {
    let SpecLimits {
        argv_items,
        argument_bytes,
        ..
    } = *limits;
    move |at| {
        if at.is_text() {
            return at.refuse(
                code::WRONG_TYPE,
                "must be an array of texts, the program and its arguments, such as [\"echo\", \"hi\"]; \
                 a line for a shell goes in `script`",
            );
        }
        let argv = at.filled_list(argv_items, c_text(argument_bytes))?;
        if argv.first().is_some_and(String::is_empty) {
            return at.refuse(
                code::INVALID_VALUE,
                "the first item names a program: it must not be empty",
            );
        }
        Some(argv)
    }
}

pub(super) fn absolute_path(most: usize) -> impl Fn(&At<'_>) -> Option<String> {
    move |at| {
        let path = filled_text(most)(at)?;
        if !path.starts_with('/') {
            return at.refuse(code::INVALID_VALUE, "must be an absolute path");
        }
        Some(path)
    }
}

pub(super) fn variable_name(name: &str, at: &At<'_>) -> Option<String> {
    if name.is_empty() || name.contains(['=', '\0']) {
        return at.refuse(
            code::INVALID_VALUE,
            "the name of a variable must not be empty or contain '=' or NUL",
        );
    }
    Some(name.to_owned())
}

/// A map from names of variables to their values.
pub(super) fn variables(
    limits: &SpecLimits,
) -> impl Fn(&At<'_>) -> Option<BTreeMap<String, String>> {
    let SpecLimits {
        argument_bytes,
        exec_bytes,
        ..
    } = *limits;
    move |at| {
        at.map(exec_bytes, |name, at| {
            // The kernel sees `NAME=value` as one text.
            let room = argument_bytes.saturating_sub(name.len() + 1);
            let value = c_text(room)(at);
            Some((variable_name(name, at)?, value?))
        })
    }
}

pub(super) fn name_or_id(at: &At<'_>) -> Option<NameOrId> {
    match at.value {
        Value::Text(_) => filled_text(USER_NAME_BYTES)(at).map(NameOrId::Name),
        // The largest number stands for "no change" in chown(2) and setresuid(2).
        Value::Number(_) => integer(0..=u32::MAX - 1)(at).map(NameOrId::Id),
        Value::Null | Value::Bool(_) | Value::List(_) | Value::Object(_) => {
            at.refuse(code::WRONG_TYPE, "must be a name or a number")
        }
    }
}

pub(super) fn umask(at: &At<'_>) -> Option<Umask> {
    match Umask::try_from(at.text()?.to_owned()) {
        Ok(umask) => Some(umask),
        Err(allowed) => at.refuse(code::INVALID_VALUE, format!("must be {allowed}")),
    }
}

const RESOURCES: [(&str, RlimitResource); 9] = [
    ("nofile", RlimitResource::Nofile),
    ("nproc", RlimitResource::Nproc),
    ("cpu", RlimitResource::Cpu),
    ("fsize", RlimitResource::Fsize),
    ("as", RlimitResource::As),
    ("core", RlimitResource::Core),
    ("stack", RlimitResource::Stack),
    ("memlock", RlimitResource::Memlock),
    ("data", RlimitResource::Data),
];

/// Is there such a resource limit?
pub(super) fn is_resource(name: &str) -> bool {
    RESOURCES.iter().any(|(word, _)| *word == name)
}

pub(super) fn rlimits(at: &At<'_>) -> Option<BTreeMap<RlimitResource, Rlimit>> {
    at.map(usize::MAX, |key, at| {
        match RESOURCES.iter().find(|(word, _)| *word == key) {
            Some((_, resource)) => Some((*resource, rlimit(at)?)),
            None => {
                let words: Vec<&str> = RESOURCES.iter().map(|(word, _)| *word).collect();
                at.refuse(
                    code::UNKNOWN_FIELD,
                    format!("known resources: {}", words.join(", ")),
                )
            }
        }
    })
}

fn rlimit(at: &At<'_>) -> Option<Rlimit> {
    let Value::Object(_) = at.value else {
        let both = rlimit_value(at)?;
        return Some(Rlimit {
            soft: both,
            hard: both,
        });
    };
    let mut f = Fields::of(at)?;
    let soft = f.required("soft", rlimit_value);
    let hard = f.required("hard", rlimit_value);
    if let (Some(soft), Some(hard)) = (soft, hard)
        && rlimit_number(soft) > rlimit_number(hard)
    {
        f.refuse("soft", code::OUT_OF_RANGE, "must not be greater than hard");
    }
    f.finish();
    Some(Rlimit {
        soft: soft?,
        hard: hard?,
    })
}

fn rlimit_value(at: &At<'_>) -> Option<RlimitValue> {
    match at.value {
        Value::Text(_) => at.choice(&[("unlimited", RlimitValue::Unlimited)]),
        Value::Number(_) => integer(0..=INT64_MAX)(at).map(RlimitValue::Value),
        Value::Null | Value::Bool(_) | Value::List(_) | Value::Object(_) => at.refuse(
            code::WRONG_TYPE,
            "must be an integer or \"unlimited\"; {\"soft\": …, \"hard\": …} sets both sides",
        ),
    }
}

fn rlimit_number(value: RlimitValue) -> u64 {
    match value {
        RlimitValue::Unlimited => u64::MAX,
        RlimitValue::Value(value) => value,
    }
}

/// A number of cores; a fraction is allowed.
pub(super) fn cpu(at: &At<'_>) -> Option<f64> {
    const ALLOWED: &str = "must be a number of cores, more than 0 and at most 1024";
    let Value::Number(number) = *at.value else {
        return at.refuse(code::WRONG_TYPE, ALLOWED);
    };
    let cores = match number {
        Number::Unsigned(value) => u32::try_from(value).ok().map(f64::from),
        Number::Negative(_) => None,
        Number::Float(value) => Some(value),
    };
    match cores {
        Some(cores) if cores > 0.0 && cores <= 1024.0 => Some(cores),
        Some(_) | None => at.refuse(code::OUT_OF_RANGE, ALLOWED),
    }
}

/// By what a pause grows.
pub(super) fn factor(at: &At<'_>) -> Option<f64> {
    const ALLOWED: &str = "must be a number from 1 to 10";
    let Value::Number(number) = *at.value else {
        return at.refuse(code::WRONG_TYPE, ALLOWED);
    };
    let factor = match number {
        Number::Unsigned(value) => u32::try_from(value).ok().map(f64::from),
        Number::Negative(_) => None,
        Number::Float(value) => Some(value),
    };
    match factor {
        Some(factor) if (1.0..=10.0).contains(&factor) => Some(factor),
        Some(_) | None => at.refuse(code::OUT_OF_RANGE, ALLOWED),
    }
}

/// Where standard input comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StdinMode {
    Null,
    Open,
    Data,
}

pub(super) fn stdin_mode(at: &At<'_>) -> Option<StdinMode> {
    at.choice(&[
        ("null", StdinMode::Null),
        ("open", StdinMode::Open),
        ("data", StdinMode::Data),
    ])
}

pub(super) fn base64(at: &At<'_>) -> Option<String> {
    let text = at.text()?;
    match STANDARD.decode(text) {
        Ok(_) => Some(text.to_owned()),
        Err(_) => at.refuse(
            code::INVALID_VALUE,
            "must be base64 in the standard alphabet with padding (RFC 4648, section 4)",
        ),
    }
}

pub(super) fn on_limit(at: &At<'_>) -> Option<OnLimit> {
    at.choice(&[
        ("drop_oldest", OnLimit::DropOldest),
        ("drop_newest", OnLimit::DropNewest),
        ("stop_job", OnLimit::StopJob),
        ("wait", OnLimit::Wait),
    ])
}

pub(super) fn wait_for(at: &At<'_>) -> Option<WaitFor> {
    at.choice(&[("leader", WaitFor::Leader), ("all", WaitFor::All)])
}

pub(super) fn scope(at: &At<'_>) -> Option<Scope> {
    at.choice(&[
        ("group", Scope::Group),
        ("leader", Scope::Leader),
        ("all", Scope::All),
    ])
}

/// A signal by name or number.
pub(super) fn signal(at: &At<'_>) -> Option<Signal> {
    let signal = match at.value {
        Value::Text(name) => name.parse().ok(),
        Value::Number(Number::Unsigned(number)) => {
            i32::try_from(*number).ok().and_then(Signal::from_number)
        }
        Value::Number(Number::Negative(_)) => None,
        Value::Number(Number::Float(_))
        | Value::Null
        | Value::Bool(_)
        | Value::List(_)
        | Value::Object(_) => {
            return at.refuse(
                code::WRONG_TYPE,
                "must be the name or the number of a signal",
            );
        }
    };
    match signal {
        Some(signal) => Some(signal),
        None => at.refuse(
            code::INVALID_VALUE,
            "must be a name such as SIGTERM or TERM, or a number from 1 to 31 or 34 to 64",
        ),
    }
}

pub(super) fn priority(at: &At<'_>) -> Option<i32> {
    integer(-1_000_000..=1_000_000)(at)
}

pub(super) fn weight(at: &At<'_>) -> Option<u32> {
    integer(1..=WEIGHT_MAX)(at)
}

/// The key that a job runs under.
pub(super) fn concurrency(at: &At<'_>) -> Option<Concurrency> {
    let mut f = Fields::of(at)?;
    let key = f.required("key", concurrency_key);
    let limit = f.or(1, "limit", integer(1..=10_000));
    let policy = f.or_default("policy", |at| {
        at.choice(&[
            ("queue", OnConflict::Queue),
            ("reject", OnConflict::Reject),
            ("newest", OnConflict::Newest),
            ("replace", OnConflict::Replace),
        ])
    });
    f.finish();
    Some(Concurrency {
        key: key?,
        limit,
        policy,
    })
}

fn concurrency_key(at: &At<'_>) -> Option<String> {
    const ALLOWED: &str = "must have 1 to 128 characters, none of them a control character";
    let text = at.text()?;
    if text.chars().count() > 128 {
        return at.refuse(code::TOO_LONG, ALLOWED);
    }
    if text.is_empty() || text.contains(char::is_control) {
        return at.refuse(code::INVALID_VALUE, ALLOWED);
    }
    Some(text.to_owned())
}

/// The key of a label.
pub(super) fn label_key(at: &At<'_>) -> Option<String> {
    let key = at.text()?;
    label_syntax(at, label::check_key(key))?;
    Some(key.to_owned())
}

pub(super) fn queue(at: &At<'_>) -> Option<String> {
    let name = at.text()?;
    if name.is_empty() {
        return at.refuse(code::INVALID_VALUE, "must not be empty");
    }
    label_syntax(at, label::check_value(name))?;
    Some(name.to_owned())
}

/// A name for people: one line that can be shown everywhere.
pub(super) fn job_name(at: &At<'_>) -> Option<String> {
    let name = at.text()?;
    if name.is_empty() {
        return at.refuse(
            code::INVALID_VALUE,
            "must not be empty; use null for no name",
        );
    }
    if name.chars().count() > NAME_CHARACTERS {
        return at.refuse(
            code::TOO_LONG,
            format!("must have at most {NAME_CHARACTERS} characters"),
        );
    }
    if name.contains(char::is_control) {
        return at.refuse(code::INVALID_VALUE, "must not contain control characters");
    }
    Some(name.to_owned())
}

pub(super) fn labels(most: usize) -> impl Fn(&At<'_>) -> Option<BTreeMap<String, String>> {
    move |at| {
        at.map(most, |key, at| {
            let key_is_fine = label_syntax(at, label::check_key(key));
            let value = at.text()?;
            label_syntax(at, label::check_value(value))?;
            key_is_fine.map(|()| (key.to_owned(), value.to_owned()))
        })
    }
}

fn label_syntax(at: &At<'_>, checked: Result<(), LabelError>) -> Option<()> {
    match checked {
        Ok(()) => Some(()),
        Err(LabelError::TooLong(allowed)) => at.refuse(code::TOO_LONG, allowed),
        Err(LabelError::Malformed(allowed)) => at.refuse(code::INVALID_VALUE, allowed),
    }
}

/// A name as terminfo(5) has them.
pub(super) fn terminal_name(at: &At<'_>) -> Option<String> {
    let name = filled_text(TERM_BYTES)(at)?;
    let is_fine = |byte: u8| byte.is_ascii_alphanumeric() || b"-+._".contains(&byte);
    if !name.bytes().all(is_fine) {
        return at.refuse(
            code::INVALID_VALUE,
            "must have ASCII letters, digits and -+._ only",
        );
    }
    Some(name)
}

/// The rules that span fields.
pub(super) fn check_together(f: &Fields<'_>, spec: &Spec, limits: &SpecLimits) {
    for name in spec
        .env
        .keys()
        .filter(|name| spec.secret_env.0.contains_key(*name))
    {
        f.refuse_below(
            "secret_env",
            name,
            code::CONFLICT,
            "give a name in env or secret_env, not in both",
        );
    }
    if let (Some(_), Stdin::Data(_)) = (&spec.pty, &spec.stdin) {
        f.refuse(
            "stdin",
            code::CONFLICT,
            "the input of a pty is open: leave stdin out, or give no pty",
        );
    }
    let program = match spec.program {
        Program::Command { .. } => "command",
        Program::Script { .. } => "script",
    };
    let parts = [
        (
            program,
            spec.program.argv().iter().map(|item| item.len() + 1).sum(),
        ),
        ("env", variable_bytes(&spec.env)),
        ("secret_env", variable_bytes(&spec.secret_env.0)),
    ];
    let total: usize = parts.iter().map(|(_, bytes)| bytes).sum();
    if total > limits.exec_bytes
        && let Some((largest, _)) = parts.iter().max_by_key(|(_, bytes)| bytes)
    {
        f.refuse(
            largest,
            code::TOO_LONG,
            format!(
                "arguments and variables must have at most {} bytes together",
                limits.exec_bytes
            ),
        );
    }
}

/// As execve(2) copies them: `NAME=value` and a NUL.
fn variable_bytes(variables: &BTreeMap<String, String>) -> usize {
    variables
        .iter()
        .map(|(name, value)| name.len() + value.len() + 2)
        .sum()
}
