//! The body of `POST /batches`: entries that are put together with the defaults and expanded, each then going through
//! the rules of a new job.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value as JsonValue};

use super::fields::{At, Errors, Fields, code, integer, seconds};
use super::json::Value;
use super::patch::{merged, merged_members, read};
use super::{
    Body, BodyError, FieldError, ONE_MINUTE, SpecLimits, TEN_YEARS, dependencies, parse_body,
    rules, webhooks,
};
use job::batch::{self, Fault, JOBS_MAX, On, OnFailure, Target};
use job::queue::WEIGHT_MAX;
use job::webhook::Webhook;

/// What is an entry's own, and no field of a job.
const OF_ENTRY: [&str; 4] = ["key", "repeat", "for_each", "depends_on"];

/// How long the record of a batch stays by default, as that of a job does.
const TTL: Duration = Duration::from_hours(168);

/// Jobs that a client wants together.
#[derive(Debug)]
pub struct NewBatch {
    /// A name for people.
    pub name: Option<String>,
    /// Labels of the batch.
    pub labels: BTreeMap<String, String>,
    /// How many of its jobs may run at once.
    pub max_running: Option<u32>,
    /// What happens to the others when a job has failed.
    pub on_failure: OnFailure,
    /// Who is told of its end.
    pub webhooks: Vec<Webhook>,
    /// How long the record stays after the end.
    pub ttl_after_finished: Duration,
    /// Its entries, checked against each other.
    pub entries: Vec<NewEntry>,
    raw: JsonValue,
}

/// One line of a batch.
#[derive(Debug)]
pub struct NewEntry {
    /// Its key.
    pub key: String,
    /// How often each of its jobs is wanted; 1, or one of many the same.
    pub repeat: u32,
    /// What its jobs wait for.
    pub depends_on: Vec<(Target, On)>,
    /// The bodies of its jobs, as `POST /jobs` takes them: one, or one for each patch.
    pub bodies: Vec<Body>,
    is_for_each: bool,
}

/// Reads the body. Every error is told, up to a hundred; those in single jobs are found later.
pub fn parse_batch(bytes: &[u8], limits: &SpecLimits) -> Result<NewBatch, BodyError> {
    let body = parse_body(bytes)?;
    let raw = read(bytes)?;
    let errors = Errors::default();
    let at = At::root(&body.0, &errors);
    let parsed = Fields::of(&at).and_then(|f| whole(f, limits));
    let (mut new, lines) = errors.result(parsed).map_err(BodyError::Invalid)?;
    check(&lines)?;
    let none = Map::new();
    let defaults = raw.get("defaults").and_then(JsonValue::as_object);
    let defaults = defaults.unwrap_or(&none);
    let entries = raw.get("jobs").and_then(JsonValue::as_array);
    for (line, entry) in lines.into_iter().zip(entries.into_iter().flatten()) {
        let mut own = entry.as_object().cloned().unwrap_or_default();
        own.retain(|name, _| !OF_ENTRY.contains(&name.as_str()));
        let patches = entry.get("for_each").and_then(JsonValue::as_array);
        let bodies = match patches {
            None => vec![merged(defaults.clone(), own)?],
            Some(patches) => {
                let base = merged_members(defaults.clone(), own);
                let each = patches.iter().map(|patch| {
                    let patch = patch.as_object().cloned().unwrap_or_default();
                    merged(base.clone(), patch)
                });
                each.collect::<Result<_, _>>()?
            }
        };
        new.entries.push(NewEntry {
            key: line.key,
            repeat: line.repeat.unwrap_or(1),
            depends_on: line.depends_on,
            bodies,
            is_for_each: line.for_each.is_some(),
        });
    }
    new.raw = JsonValue::Object(raw);
    Ok(new)
}

/// An entry without what its jobs are.
struct Line {
    key: String,
    repeat: Option<u32>,
    for_each: Option<usize>,
    depends_on: Vec<(Target, On)>,
}

fn whole(mut f: Fields<'_>, limits: &SpecLimits) -> Option<(NewBatch, Vec<Line>)> {
    let name = f.optional("name", rules::job_name);
    let labels = f.or_default("labels", rules::labels(limits.labels));
    f.optional("defaults", |at| Fields::of(at).map(drop));
    let max_running = f.optional("max_running", integer(1..=WEIGHT_MAX));
    let on_failure = f.or_default("on_failure", |at| {
        at.choice(&[
            ("continue", OnFailure::Continue),
            ("cancel_queued", OnFailure::CancelQueued),
            ("stop_all", OnFailure::StopAll),
        ])
    });
    let webhooks = f.or_default("webhooks", webhooks::of_batch(limits));
    let ttl = f.or(
        TTL,
        "ttl_seconds_after_finished",
        seconds(ONE_MINUTE..=TEN_YEARS),
    );
    let lines = f.required("jobs", |at| at.filled_list(JOBS_MAX, line));
    f.finish();
    let new = NewBatch {
        name,
        labels,
        max_running,
        on_failure,
        webhooks,
        ttl_after_finished: Duration::from_secs(ttl.as_secs()),
        entries: Vec::new(),
        raw: JsonValue::Null,
    };
    Some((new, lines?))
}

fn line(at: &At<'_>) -> Option<Line> {
    let most = u32::try_from(JOBS_MAX).unwrap_or(u32::MAX);
    let mut f = Fields::of(at)?;
    let key = f.required("key", rules::queue);
    let repeat = f.optional("repeat", integer(1..=most));
    let for_each = f.optional("for_each", |at| {
        at.filled_list(JOBS_MAX, |at| match at.value {
            Value::Object(_) => Some(()),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Text(_) | Value::List(_) => {
                at.refuse(code::WRONG_TYPE, "must be an object")
            }
        })
    });
    if f.has("repeat") && f.has("for_each") {
        f.refuse(
            "for_each",
            code::CONFLICT,
            "give repeat or for_each, not both",
        );
    }
    let depends_on = f.or_default("depends_on", dependencies::of_entry);
    // The other fields are those of a job, and read as such.
    Some(Line {
        key: key?,
        repeat,
        for_each: for_each.map(|it| it.len()),
        depends_on,
    })
}

/// Who waits for whom, and how many there are.
fn check(lines: &[Line]) -> Result<(), BodyError> {
    let entries: Vec<batch::Entry> = lines
        .iter()
        .map(|line| batch::Entry {
            key: line.key.clone(),
            count: line
                .for_each
                .unwrap_or_else(|| usize::try_from(line.repeat.unwrap_or(1)).unwrap_or(usize::MAX)),
            depends_on: line.depends_on.clone(),
        })
        .collect();
    let Err(fault) = batch::check(&entries) else {
        return Ok(());
    };
    let (pointer, code, detail) = match fault {
        Fault::Jobs(count) => (
            "/jobs".to_owned(),
            code::TOO_MANY,
            format!("{count} jobs are more than {JOBS_MAX}"),
        ),
        Fault::Edges(count) => (
            "/jobs".to_owned(),
            code::TOO_MANY,
            format!("{count} dependencies are more than {}", batch::EDGES_MAX),
        ),
        Fault::Dependencies(place) => (
            format!("/jobs/{place}/depends_on"),
            code::TOO_MANY,
            format!("must have at most {} items", batch::DEPENDENCIES_MAX),
        ),
        Fault::Nothing(place) => (
            format!("/jobs/{place}"),
            code::INVALID_VALUE,
            "stands for no job".to_owned(),
        ),
        Fault::Doubled(place) => (
            format!("/jobs/{place}/key"),
            code::INVALID_VALUE,
            "an earlier entry has this key".to_owned(),
        ),
        Fault::Unknown(place, number) => (
            format!("/jobs/{place}/depends_on/{number}/key"),
            code::INVALID_VALUE,
            "no entry has this key".to_owned(),
        ),
        Fault::Cycle(keys) => (
            "/jobs".to_owned(),
            code::CONFLICT,
            format!("these wait for each other: {}", keys.join(" → ")),
        ),
    };
    Err(BodyError::Invalid(vec![FieldError {
        pointer,
        code,
        detail,
    }]))
}

impl NewBatch {
    /// Where in the request a field of a job was given: the pointer to it, from the one within the job.
    #[must_use]
    pub fn place(&self, entry: usize, body: usize, pointer: &str) -> String {
        let own = format!("/jobs/{entry}");
        let is_for_each = self.entries.get(entry).is_some_and(|it| it.is_for_each);
        let patch = is_for_each.then(|| format!("{own}/for_each/{body}"));
        let places = patch
            .into_iter()
            .chain([own.clone(), "/defaults".to_owned()]);
        let mut places = places.map(|place| format!("{place}{pointer}"));
        let found = places.find(|place| self.raw.pointer(place).is_some());
        found.unwrap_or_else(|| format!("{own}{pointer}"))
    }
}

/// Which jobs of a batch are to run again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Only {
    /// Those that have not succeeded.
    Failed,
    /// All.
    All,
}

/// Reads the body of `POST /batches/{id}/rerun`.
pub fn parse_batch_rerun(body: &Body) -> Result<Only, Vec<FieldError>> {
    let errors = Errors::default();
    let at = At::root(&body.0, &errors);
    let only = Fields::of(&at).map(|mut f| {
        let only = f.or(Only::Failed, "only", |at| {
            at.choice(&[("failed", Only::Failed), ("all", Only::All)])
        });
        f.finish();
        only
    });
    errors.result(only)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::request::parse_submission;

    fn parse(body: &JsonValue) -> Result<NewBatch, (String, &'static str, String)> {
        let parsed = parse_batch(body.to_string().as_bytes(), &SpecLimits::default());
        parsed.map_err(|error| match error {
            BodyError::Invalid(errors) => {
                let first = errors.into_iter().next().unwrap();
                (first.pointer, first.code, first.detail)
            }
            error @ (BodyError::Syntax { .. } | BodyError::TooDeep) => panic!("{error}"),
        })
    }

    #[test]
    fn defaults_are_merged_under_every_job_and_patches_over_it() {
        let new = parse(&json!({
            "defaults": {"cwd": "/srv", "env": {"A": "1", "B": "1"}, "timeout_seconds": 5},
            "jobs": [
                {"key": "a", "command": ["x"], "env": {"B": "2"}, "timeout_seconds": null},
                {"key": "b", "command": ["y"], "for_each": [{"env": {"C": "3"}}, {"command": ["z"]}]},
                {"key": "c", "command": ["w"], "repeat": 7, "depends_on": [{"key": "a"}]},
            ]
        }))
        .unwrap();
        let job = |entry: usize, body: usize| {
            let body = &new.entries[entry].bodies[body];
            parse_submission(body, &SpecLimits::default()).unwrap().spec
        };
        let a = job(0, 0);
        assert_eq!((a.env["A"].as_str(), a.env["B"].as_str()), ("1", "2"));
        assert_eq!((a.cwd.as_deref(), a.timeout), (Some("/srv"), None));
        assert_eq!(job(1, 0).env.len(), 3);
        assert_eq!(job(1, 1).program.argv(), ["z"]);
        assert_eq!(job(1, 1).timeout, Some(Duration::from_secs(5)));
        assert_eq!(new.entries[2].repeat, 7);
        assert_eq!(new.place(0, 0, "/env/B"), "/jobs/0/env/B");
        assert_eq!(new.place(0, 0, "/cwd"), "/defaults/cwd");
        assert_eq!(new.place(1, 0, "/env/C"), "/jobs/1/for_each/0/env/C");
        assert_eq!(new.place(1, 0, "/command"), "/jobs/1/command");
    }

    #[test]
    fn what_is_wrong_is_refused_where_it_is() {
        let a = json!({"key": "a", "command": ["x"]});
        let with = |fields: JsonValue| {
            let mut entry = a.clone();
            let members = fields.as_object().unwrap().clone();
            entry.as_object_mut().unwrap().extend(members);
            json!({"jobs": [a, entry]})
        };
        for (body, pointer, code) in [
            (json!({}), "/jobs", code::MISSING),
            (json!({"jobs": []}), "/jobs", code::INVALID_VALUE),
            (
                json!({"jobs": [{"command": ["x"]}]}),
                "/jobs/0/key",
                code::MISSING,
            ),
            (json!({"jobs": [a], "max": 1}), "/max", code::UNKNOWN_FIELD),
            (
                json!({"jobs": [a], "defaults": []}),
                "/defaults",
                code::WRONG_TYPE,
            ),
            (with(json!({})), "/jobs/1/key", code::INVALID_VALUE),
            (
                with(json!({"key": "b", "repeat": 0})),
                "/jobs/1/repeat",
                code::OUT_OF_RANGE,
            ),
            (
                with(json!({"key": "b", "repeat": 2, "for_each": [{}]})),
                "/jobs/1/for_each",
                code::CONFLICT,
            ),
            (
                with(json!({"key": "b", "repeat": 10_000})),
                "/jobs",
                code::TOO_MANY,
            ),
            (
                with(json!({"key": "b", "depends_on": [{"key": "a"}, {"key": "x"}]})),
                "/jobs/1/depends_on/1/key",
                code::INVALID_VALUE,
            ),
            (
                with(json!({"key": "b", "depends_on": [{"key": "b"}]})),
                "/jobs",
                code::CONFLICT,
            ),
            (
                with(json!({"key": "b", "depends_on": [{}]})),
                "/jobs/1/depends_on/0/key",
                code::MISSING,
            ),
            (
                with(json!({"key": "b", "depends_on": [{"key": "a"}, {"key": "a"}]})),
                "/jobs/1/depends_on",
                code::INVALID_VALUE,
            ),
            (
                with(json!({"key": "b", "depends_on": [{"key": "a", "job": "x"}]})),
                "/jobs/1/depends_on/0/job",
                code::INVALID_VALUE,
            ),
        ] {
            let (told, told_code, detail) = parse(&body).unwrap_err();
            assert_eq!(
                (told.as_str(), told_code),
                (pointer, code),
                "{body} {detail}"
            );
        }
        let cycle = json!({"jobs": [
            {"key": "a", "command": ["x"], "depends_on": [{"key": "b"}]},
            {"key": "b", "command": ["x"], "depends_on": [{"key": "a"}]},
        ]});
        let (_, _, detail) = parse(&cycle).unwrap_err();
        assert!(detail.ends_with("a → b → a"), "{detail}");
    }
}
