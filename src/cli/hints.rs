//! What to type instead of words that other programs have. PURE.

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// Commands elsewhere, and what does that here.
const COMMANDS: &[(&str, &str)] = &[
    (
        "kill",
        "procession stop --force JOB, or procession signal JOB KILL",
    ),
    ("rm", "procession stop --purge JOB"),
    ("delete", "procession stop --purge JOB"),
    ("remove", "procession stop --purge JOB"),
    ("restart", "procession rerun JOB"),
    ("retry", "procession rerun JOB"),
    ("exec", "procession run -- COMMAND"),
    ("start", "procession run --detach -- COMMAND"),
    ("submit", "procession run --detach -- COMMAND"),
    ("create", "procession run --detach -- COMMAND"),
    ("tail", "procession logs --follow --tail 10 JOB"),
    ("output", "procession logs JOB"),
    ("follow", "procession logs --follow JOB"),
    ("status", "procession show JOB, or procession ps"),
    (
        "info",
        "procession show JOB for a job, GET /info for the service",
    ),
    ("stats", "procession top"),
    ("server", "procession serve"),
];

/// Options elsewhere, and what does that here.
const OPTIONS: &[(&str, &str)] = &[
    (
        "--rm",
        "--ttl TIME, after which the job's record and output are removed",
    ),
    (
        "--volume",
        "a job sees the files of this host, and --cwd DIR is where it starts",
    ),
    (
        "--restart",
        "--retry N, which tries a failed job again; what must always run is for a service manager",
    ),
    (
        "--retries",
        "--retry N, which counts the first attempt as well: --retry 3 for two retries",
    ),
];

/// The hint for a command line that clap does not understand.
pub(super) fn of(error: &clap::Error) -> Option<String> {
    let (kind, table, what) = if error.kind() == ErrorKind::InvalidSubcommand {
        (ContextKind::InvalidSubcommand, COMMANDS, "command")
    } else if error.kind() == ErrorKind::UnknownArgument {
        (ContextKind::InvalidArg, OPTIONS, "option")
    } else {
        return None;
    };
    let ContextValue::String(word) = error.get(kind)? else {
        return None;
    };
    let (word, instead) = table.iter().find(|(known, _)| known == word)?;
    Some(format!("there is no {what} {word}; use {instead}"))
}
