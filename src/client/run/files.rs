//! The flags of `procession run` for files: what is put in, and what is kept.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Value, json};

use super::spec::put;
use crate::failure::Failure;

/// More than that is not part of the request.
const INLINE_BYTES: u64 = 512 << 10;

/// Files of the job.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Files")]
pub(crate) struct FilesArgs {
    /// Give the job its own directory; KEEP says what stays of it until the record expires [default: artifacts]
    #[arg(long, value_enum, value_name = "KEEP", num_args = 0..=1, require_equals = true, default_missing_value = "artifacts")]
    workspace: Option<Keep>,
    /// Put a file or a directory into the job's workspace, by default under its own name; can be repeated
    #[arg(long = "in", value_name = "FILE[:PATH]")]
    inputs: Vec<String>,
    /// Keep files of the workspace that match, such as 'dist/**' or '!dist/tmp'; can be repeated
    #[arg(long = "out", value_name = "PATTERN")]
    outputs: Vec<String>,
    /// When to keep them [default: always]
    #[arg(long, value_enum, value_name = "WHEN", requires = "outputs")]
    out_when: Option<When>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Keep {
    Artifacts,
    All,
    None,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum When {
    Always,
    Success,
    Failure,
}

impl FilesArgs {
    pub(super) fn put_into(
        &self,
        body: &mut Map<String, Value>,
        directory: &Path,
    ) -> Result<(), Failure> {
        if let Some(keep) = self.workspace {
            let keep = match keep {
                Keep::Artifacts => "artifacts",
                Keep::All => "all",
                Keep::None => "none",
            };
            put(body, &["workspace", "keep"], json!(keep));
        }
        if !self.inputs.is_empty() {
            let inputs = self.brought(directory)?;
            if is_large(&inputs) {
                body.entry("workspace").or_insert(json!(true));
            } else {
                let inputs: Result<Vec<Value>, Failure> = inputs.iter().map(inline).collect();
                body.insert("inputs".to_owned(), json!(inputs?));
            }
        }
        if !self.outputs.is_empty() {
            put(body, &["artifacts", "paths"], json!(self.outputs));
        }
        if let Some(when) = self.out_when {
            let when = match when {
                When::Always => "always",
                When::Success => "success",
                When::Failure => "failure",
            };
            put(body, &["artifacts", "when"], json!(when));
        }
        Ok(())
    }

    fn brought(&self, directory: &Path) -> Result<Vec<Brought>, Failure> {
        let inputs = self.inputs.iter();
        inputs.map(|input| look(input, directory)).collect()
    }

    /// What has to be put into the job once it is there, since the request cannot hold it.
    pub(super) fn apart(&self, directory: &Path) -> Result<Vec<Brought>, Failure> {
        let mut inputs = self.brought(directory)?;
        if !is_large(&inputs) {
            inputs.clear();
        }
        Ok(inputs)
    }
}

/// Does the job have a directory of its own, by these fields?
pub(super) fn has_workspace(body: &Map<String, Value>) -> bool {
    let is_one_looked_for = body.get("ready").is_some_and(|it| it.get("file").is_some());
    let has = |field: &str| {
        body.get(field)
            .is_some_and(|it| !matches!(it, Value::Null | Value::Bool(false)))
    };
    is_one_looked_for || ["workspace", "inputs", "artifacts"].into_iter().any(has)
}

/// What one `--in` names.
pub(crate) struct Brought {
    /// Where it is.
    pub(super) from: PathBuf,
    /// Where it goes in the workspace; nothing for the workspace itself.
    pub(super) to: String,
    pub(super) is_directory: bool,
    bytes: u64,
}

/// What is too large for the body of a request, or is no file: it goes into a held job.
fn is_large(inputs: &[Brought]) -> bool {
    let bytes = inputs.iter().map(|input| input.bytes).sum::<u64>();
    bytes > INLINE_BYTES || inputs.iter().any(|input| input.is_directory)
}

/// What is named, as it is here.
fn look(input: &str, directory: &Path) -> Result<Brought, Failure> {
    let (from, to) = match input.split_once(':') {
        Some((from, to)) => (from, to),
        None => (input, input),
    };
    let usage = |why: String| Failure::Usage(format!("--in {from}: {why}"));
    let path = directory.join(from);
    let found = path.metadata().map_err(|error| usage(error.to_string()))?;
    if !found.is_file() && !found.is_dir() {
        return Err(usage("it is neither a file nor a directory".to_owned()));
    }
    let to = match (to, to.starts_with('/') || to.starts_with("..")) {
        // Somewhere else here: its name is what it has there.
        (_, true) if to == from => path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or(to),
        (to, _) => to.trim_start_matches("./"),
    };
    let to = match found.is_dir() {
        true if to == "." => "",
        true => to.trim_end_matches('/'),
        false => to,
    };
    let to = to.to_owned();
    Ok(Brought {
        from: path,
        to,
        is_directory: found.is_dir(),
        bytes: found.len(),
    })
}

/// An input of a file that is here, with its permission to be executed.
fn inline(input: &Brought) -> Result<Value, Failure> {
    let path = &input.from;
    let usage = |error: io::Error| Failure::Usage(format!("--in {}: {error}", path.display()));
    let found = path.metadata().map_err(usage)?;
    let bytes = std::fs::read(path).map_err(usage)?;
    let to = &input.to;
    let mut value = match String::from_utf8(bytes) {
        Ok(text) => json!({"path": to, "text": text}),
        Err(error) => json!({"path": to, "base64": BASE64_STANDARD.encode(error.as_bytes())}),
    };
    if found.mode() & 0o100 != 0 {
        put(
            value.as_object_mut().expect("it was made one"),
            &["mode"],
            json!("0755"),
        );
    }
    Ok(value)
}
