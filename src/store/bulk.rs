//! The large parts of large specs: arguments or script, variables, standard input, inputs. No change of a job changes
//! them, so they are written once, beside its row, and a list that does not show them does not read them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};

use crate::Fault;
use job::spec::{Program, Stdin};
use job::workspace::Input;
use job::{Job, JobId, Spec};

/// A spec with more text than this is large.
const LARGE: usize = 4096;
/// How much of its program stays in the row.
const SHOWN: usize = 1024;

/// The large parts of a spec, as text.
#[derive(Debug)]
pub(super) struct Bulk(String);

#[derive(Serialize, Deserialize)]
struct Parts<'a> {
    program: Cow<'a, Program>,
    env: Cow<'a, BTreeMap<String, String>>,
    stdin: Cow<'a, Stdin>,
    inputs: Cow<'a, [Input]>,
}

/// A job as it is in its row.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) job: Job,
    /// The large parts of its spec are not in it.
    pub(super) is_cut: bool,
}

/// The spec without its large parts, and these; nothing if it is not large.
pub(super) fn split(spec: &Spec) -> Result<Option<(Spec, Bulk)>, Fault> {
    if spec.text_bytes() <= LARGE {
        return Ok(None);
    }
    let parts = Parts {
        program: Cow::Borrowed(&spec.program),
        env: Cow::Borrowed(&spec.env),
        stdin: Cow::Borrowed(&spec.stdin),
        inputs: Cow::Borrowed(&spec.inputs),
    };
    let bulk = Bulk(serde_json::to_string(&parts)?);
    Ok(Some((cut(spec.clone()), bulk)))
}

/// A spec without its large parts. What a list shows of its program stays.
fn cut(spec: Spec) -> Spec {
    let program = match spec.program {
        Program::Command { command } => {
            let mut left = SHOWN;
            let shown = command.into_iter().map_while(|argument| {
                let argument = (left > 0).then(|| beginning(&argument, left))?;
                left -= argument.len();
                Some(argument)
            });
            Program::Command {
                command: shown.collect(),
            }
        }
        Program::Script { script, .. } => Program::Script {
            script: beginning(script.trim_start(), SHOWN),
            shell: Vec::new(),
        },
    };
    Spec {
        program,
        env: BTreeMap::new(),
        stdin: Stdin::Null,
        inputs: Vec::new(),
        ..spec
    }
}

fn beginning(text: &str, most: usize) -> String {
    text.get(..text.floor_char_boundary(most))
        .unwrap_or_default()
        .to_owned()
}

/// Writes the large parts of a job's spec, unless they are there.
pub(super) fn put(connection: &Connection, id: JobId, bulk: Option<&Bulk>) -> Result<(), Fault> {
    if let Some(Bulk(text)) = bulk {
        connection
            .prepare_cached("INSERT OR IGNORE INTO bulk (id, parts) VALUES (?, ?)")?
            .execute(params![id.as_bytes(), text])?;
    }
    Ok(())
}

/// The job with all of its spec; nothing if it has been removed since its row was read.
pub(super) fn whole(connection: &Connection, stored: Stored) -> Result<Option<Job>, Fault> {
    let Stored { mut job, is_cut } = stored;
    if !is_cut {
        return Ok(Some(job));
    }
    let text: Option<String> = connection
        .prepare_cached("SELECT parts FROM bulk WHERE id = ?")?
        .query_row([job.id.as_bytes()], |row| row.get(0))
        .optional()?;
    let Some(text) = text else {
        return Ok(None);
    };
    let parts: Parts<'static> = serde_json::from_str(&text)?;
    let spec = Arc::make_mut(&mut job.spec);
    spec.program = parts.program.into_owned();
    spec.env = parts.env.into_owned();
    spec.stdin = parts.stdin.into_owned();
    spec.inputs = parts.inputs.into_owned();
    Ok(Some(job))
}

/// The job without the large parts of its spec.
pub(super) fn brief(stored: Stored) -> Job {
    let Stored { mut job, is_cut } = stored;
    // Rows of earlier versions have them.
    if !is_cut && job.spec.text_bytes() > LARGE {
        job.spec = Arc::new(cut(Arc::unwrap_or_clone(job.spec)));
    }
    job
}
