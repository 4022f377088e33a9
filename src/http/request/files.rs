//! The fields of a spec about files: `workspace`, `inputs`, `artifacts`, and `cwd`, which may be within the workspace.

use super::fields::{At, Fields, code, filled_text, integer};
use super::json::Value;
use super::rules;
use job::Spec;
use job::workspace::{
    ArtifactRules, Content, FileMode, InnerPath, Input, Keep, PATH_BYTES, PATTERNS_MAX, Patterns,
    When, Workspace, clash,
};

/// The most inputs of a job.
const INPUTS_MAX: usize = 1000;
/// The most that a job may keep.
const KEPT_BYTES_MAX: u64 = 1 << 50;
const KEPT_FILES_MAX: u64 = 1_000_000;

/// The workspace that is asked for, or that something else needs.
pub(super) fn workspace_of(f: &mut Fields<'_>, is_needed: bool) -> Option<Workspace> {
    let given = f.optional("workspace", workspace);
    given.or_else(|| is_needed.then(Workspace::default))
}

fn workspace(at: &At<'_>) -> Option<Workspace> {
    match at.value {
        Value::Bool(true) => return Some(Workspace::default()),
        Value::Bool(false) => return None,
        Value::Object(_) => {}
        Value::Null | Value::Number(_) | Value::Text(_) | Value::List(_) => {
            return at.refuse(code::WRONG_TYPE, "must be true, false or an object");
        }
    }
    let mut f = Fields::of(at)?;
    let keep = f.or_default("keep", |at| {
        at.choice(&[
            ("artifacts", Keep::Artifacts),
            ("all", Keep::All),
            ("none", Keep::None),
        ])
    });
    f.finish();
    Some(Workspace { keep })
}

pub(super) fn inputs(at: &At<'_>) -> Option<Vec<Input>> {
    at.list(INPUTS_MAX, input)
}

fn input(at: &At<'_>) -> Option<Input> {
    const ONE: &str = "give exactly one of text and base64";
    let mut f = Fields::of(at)?;
    let path = f.required("path", inner_path);
    let text = f.optional("text", |at| at.text().map(str::to_owned));
    let base64 = f.optional("base64", rules::base64);
    let mode = f.optional("mode", mode);
    match (f.has("text"), f.has("base64")) {
        (true, true) => f.refuse("base64", code::CONFLICT, ONE),
        (false, false) => f.refuse("text", code::MISSING, ONE),
        (true, false) | (false, true) => {}
    }
    f.finish();
    Some(Input {
        path: path?,
        content: text.map(Content::Text).or(base64.map(Content::Base64))?,
        mode,
    })
}

pub(super) fn inner_path(at: &At<'_>) -> Option<InnerPath> {
    match InnerPath::new(at.text()?) {
        Ok(path) => Some(path),
        Err(error) => at.refuse(code::INVALID_VALUE, error.to_string()),
    }
}

pub(super) fn mode(at: &At<'_>) -> Option<FileMode> {
    match FileMode::try_from(at.text()?.to_owned()) {
        Ok(mode) => Some(mode),
        Err(detail) => at.refuse(code::INVALID_VALUE, format!("must be {detail}")),
    }
}

pub(super) fn artifacts(at: &At<'_>) -> Option<ArtifactRules> {
    let base = ArtifactRules::default();
    let mut f = Fields::of(at)?;
    let paths = f.required("paths", |at| at.filled_list(PATTERNS_MAX, pattern));
    let artifacts = ArtifactRules {
        when: f.or(base.when, "when", |at| {
            at.choice(&[
                ("always", When::Always),
                ("success", When::Success),
                ("failure", When::Failure),
            ])
        }),
        max_bytes: f.or(base.max_bytes, "max_bytes", integer(0..=KEPT_BYTES_MAX)),
        max_files: f.or(base.max_files, "max_files", integer(0..=KEPT_FILES_MAX)),
        paths: paths.unwrap_or_default(),
    };
    f.finish();
    Some(artifacts)
}

fn pattern(at: &At<'_>) -> Option<String> {
    let text = at.text()?.to_owned();
    match Patterns::new(std::slice::from_ref(&text)) {
        Ok(_) => Some(text),
        Err(error) => at.refuse(code::INVALID_VALUE, error.to_string()),
    }
}

/// An absolute path, or one within the workspace.
pub(super) fn working_directory(at: &At<'_>) -> Option<String> {
    let path = filled_text(PATH_BYTES)(at)?;
    if path.starts_with('/') || InnerPath::new(path.as_str()).is_ok() {
        return Some(path);
    }
    at.refuse(code::INVALID_VALUE, RELATIVE)
}

const RELATIVE: &str = "must be an absolute path, or with a workspace one within it, without empty names, `.` and `..`";

pub(super) fn check_together(f: &Fields<'_>, spec: &Spec) {
    let is_relative = spec.cwd.as_ref().is_some_and(|cwd| !cwd.starts_with('/'));
    if is_relative && spec.workspace.is_none() {
        f.refuse("cwd", code::INVALID_VALUE, RELATIVE);
    }
    if let Some(place) = clash(&spec.inputs) {
        f.refuse_below(
            "inputs",
            &place.to_string(),
            code::CONFLICT,
            "another input has this path, or is in its way",
        );
    }
}
