//! Merge patches (RFC 7396) on jobs: what the patched job would be goes through the rules of a new one.

use std::collections::BTreeMap;

use serde_json::{Map, Value as JsonValue};

use super::fields::{At, Errors, Fields, boolean, code, seconds};
use super::{
    ANY_TIME, Body, BodyError, FieldError, NewJob, ONE_MINUTE, SpecLimits, TEN_YEARS, parse_body,
    parse_queue, parse_submission, placement, retry::retry, rules, stop, times,
};
use job::Job;
use job::Spec;
use job::amendment::Amendment;
use job::queue::Settings;

/// The members of a spec that an amendment can change.
const AMENDABLE: [&str; 9] = [
    "timeout_seconds",
    "stop",
    "ttl_seconds_after_finished",
    "queue",
    "priority",
    "weight",
    "concurrency",
    "retry",
    "placement",
];

/// Reads the body of `PATCH /jobs/{id}` as a change of this job.
pub fn parse_amendment(
    job: &Job,
    patch: &[u8],
    limits: &SpecLimits,
) -> Result<Amendment, BodyError> {
    let patch = read(patch)?;
    let mut base = members_of(job);
    base.retain(|name, _| {
        ["name", "labels"].contains(&name.as_str()) || AMENDABLE.contains(&name.as_str())
    });
    if let Some(run_at) = job.run_at {
        base.insert("run_at".to_owned(), run_at.to_string().into());
    }
    base.insert("hold".to_owned(), job.hold.into());
    let body = merged(base, patch)?;
    let errors = Errors::default();
    let at = At::root(&body.0, &errors);
    let usual = Spec::default();
    let amendment = Fields::of(&at).map(|mut f| {
        let amendment = Amendment {
            name: f.optional("name", rules::job_name),
            labels: f.or_default("labels", rules::labels(limits.labels)),
            timeout: f.optional("timeout_seconds", seconds(ANY_TIME)),
            stop: f.or_default("stop", stop),
            ttl_after_finished: f.or(
                usual.ttl_after_finished,
                "ttl_seconds_after_finished",
                seconds(ONE_MINUTE..=TEN_YEARS),
            ),
            queue: f.or(usual.queue, "queue", rules::queue),
            priority: f.or(usual.priority, "priority", rules::priority),
            weight: f.or(usual.weight, "weight", rules::weight),
            concurrency: f.optional("concurrency", rules::concurrency),
            retry: f.optional("retry", retry),
            placement: f.optional("placement", placement::placement),
            run_at: f.optional("run_at", times::moment),
            hold: f.or_default("hold", boolean),
            next_attempt_at: job.next_attempt_at,
            uploads: job.uploads.clone(),
        };
        f.finish();
        amendment
    });
    let amendment = errors.result(amendment).map_err(BodyError::Invalid)?;
    let limit = job.batch.as_ref().and_then(|it| it.max_running);
    if limit.is_some() && amendment.concurrency.is_some() {
        return Err(BodyError::Invalid(vec![FieldError {
            pointer: "/concurrency".to_owned(),
            code: code::CONFLICT,
            detail: "a job of a batch with max_running has no key of its own".to_owned(),
        }]));
    }
    Ok(amendment)
}

/// Reads the body of `PATCH /queues/{name}` as what is then set of a queue with these settings.
pub fn parse_queue_patch(
    settings: &Settings,
    patch: &[u8],
) -> Result<(Settings, Changes), BodyError> {
    let patch = read(patch)?;
    let pause = |name: &String| ["paused", "pause_reason"].contains(&name.as_str());
    let changes = if patch.keys().all(pause) {
        Changes::PauseAlone
    } else {
        Changes::More
    };
    let base = serde_json::to_value(settings).expect("settings can always be written as JSON");
    let base = base.as_object().cloned().unwrap_or_default();
    let body = merged(base, patch)?;
    let settings = parse_queue(&body).map_err(BodyError::Invalid)?;
    Ok((settings, changes))
}

/// What a patch of a queue is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changes {
    /// Whether it is paused, and why.
    PauseAlone,
    /// Something else as well.
    More,
}

/// Reads the body of `POST /jobs/{id}/rerun` as a new job like this one. Values of secrets are not known
/// any more: they have to be given again, or dropped with `null`.
pub fn parse_rerun(job: &Job, patch: &[u8], limits: &SpecLimits) -> Result<NewJob, BodyError> {
    let patch = if patch.is_empty() {
        Map::new()
    } else {
        read(patch)?
    };
    let mut base = members_of(job);
    // One program takes the place of the other, and one input that of another.
    if patch.contains_key("command") {
        base.remove("script");
        base.remove("shell");
    }
    if patch.contains_key("script") {
        base.remove("command");
    }
    if patch
        .get("stdin")
        .is_some_and(|stdin| stdin.get("mode").is_some())
    {
        base.remove("stdin");
    }
    let mut given = patch;
    let secrets = given.remove("secret_env");
    let mut known: BTreeMap<String, JsonValue> = job
        .spec
        .secret_env
        .0
        .keys()
        .map(|name| (name.clone(), JsonValue::Null))
        .collect();
    match secrets {
        None => {}
        Some(JsonValue::Null) => known.clear(),
        Some(JsonValue::Object(values)) => {
            for (name, value) in values {
                if value.is_null() {
                    known.remove(&name);
                } else {
                    known.insert(name, value);
                }
            }
        }
        // Refused below, as of the wrong type.
        Some(other) => {
            given.insert("secret_env".to_owned(), other);
            known.clear();
        }
    }
    let signed = job.spec.webhooks.iter().enumerate();
    let unsigned = signed
        .filter(|(_, webhook)| webhook.secret.is_some() && !given.contains_key("webhooks"))
        .map(|(number, _)| FieldError {
            pointer: format!("/webhooks/{number}/secret"),
            code: code::MISSING,
            detail: "the value is not known any more: give webhooks again, or null to drop them"
                .to_owned(),
        });
    let missing: Vec<FieldError> = known
        .iter()
        .filter(|(_, value)| value.is_null())
        .map(|(name, _)| FieldError {
            pointer: format!("/secret_env/{}", name.replace('~', "~0").replace('/', "~1")),
            code: code::MISSING,
            detail: "the value is not known any more: give it again, or null to drop it".to_owned(),
        })
        .chain(unsigned)
        .collect();
    if !missing.is_empty() {
        return Err(BodyError::Invalid(missing));
    }
    base.remove("secret_env");
    if !known.is_empty() {
        base.insert("secret_env".to_owned(), known.into_iter().collect());
    }
    let body = merged(base, given)?;
    parse_submission(&body, limits).map_err(BodyError::Invalid)
}

pub(super) fn read(patch: &[u8]) -> Result<Map<String, JsonValue>, BodyError> {
    // For its own rules: no key twice, not too deep.
    let _ = parse_body(patch)?;
    serde_json::from_slice(patch).map_err(|error| BodyError::Syntax {
        detail: error.to_string(),
    })
}

fn members_of(job: &Job) -> Map<String, JsonValue> {
    let spec = serde_json::to_value(&*job.spec).expect("a spec can always be written as JSON");
    let mut members = match spec {
        JsonValue::Object(members) => members,
        JsonValue::Null
        | JsonValue::Bool(_)
        | JsonValue::Number(_)
        | JsonValue::String(_)
        | JsonValue::Array(_) => Map::new(),
    };
    if let Some(name) = &job.name {
        members.insert("name".to_owned(), name.as_str().into());
    }
    let labels = job.labels.iter();
    members.insert(
        "labels".to_owned(),
        labels
            .map(|(name, value)| (name.clone(), JsonValue::from(value.as_str())))
            .collect(),
    );
    members
}

/// What is patched.
pub(super) fn merged(
    base: Map<String, JsonValue>,
    patch: Map<String, JsonValue>,
) -> Result<Body, BodyError> {
    let members = merged_members(base, patch);
    parse_body(JsonValue::Object(members).to_string().as_bytes())
}

/// The fields of a job, with a patch put over them.
pub(super) fn merged_members(
    mut base: Map<String, JsonValue>,
    patch: Map<String, JsonValue>,
) -> Map<String, JsonValue> {
    for (name, value) in patch {
        let below = match name.as_str() {
            "labels" | "env" | "job" => Names::Chosen,
            "rlimits" => Names::Resources,
            _ => Names::Fields,
        };
        merge(base.entry(name).or_insert(JsonValue::Null), value, below);
    }
    base
}

/// What the names in an object are.
#[derive(Clone, Copy)]
enum Names {
    /// Fields. `null` is the default to the parser, which is as good as absent, and the parser still sees the name of a
    /// field that there is not.
    Fields,
    /// Resources, to which `null` is no value. A name that is none is left to the parser, too.
    Resources,
    /// Whatever a client has chosen.
    Chosen,
}

impl Names {
    fn are_removed(self, name: &str) -> bool {
        match self {
            Self::Fields => false,
            Self::Resources => rules::is_resource(name),
            Self::Chosen => true,
        }
    }

    fn below(self) -> Self {
        match self {
            Self::Fields | Self::Resources => Self::Fields,
            Self::Chosen => Self::Chosen,
        }
    }
}

/// The algorithm of RFC 7396, section 2, but that a field is set to `null` instead of removed.
fn merge(target: &mut JsonValue, patch: JsonValue, names: Names) {
    let JsonValue::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = JsonValue::Object(Map::new());
    }
    let Some(members) = target.as_object_mut() else {
        return;
    };
    for (name, value) in patch {
        if value.is_null() && names.are_removed(&name) {
            members.remove(&name);
        } else {
            let member = members.entry(name).or_insert(JsonValue::Null);
            merge(member, value, names.below());
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A job with defaults and one resource limit.
    fn plain() -> Job {
        let body =
            parse_body(br#"{"command": ["x"], "rlimits": {"core": 0}}"#).expect("it is JSON");
        let new = parse_submission(&body, &SpecLimits::default()).expect("it is valid");
        Job::accepted(
            job::JobId::from_bytes([1; 16]),
            String::new(),
            std::sync::Arc::new(new.spec),
            job::time::Timestamp::from_micros(0),
        )
    }

    /// The pointers of what is refused, each as unknown.
    fn unknown<T: std::fmt::Debug>(read: Result<T, BodyError>) -> Vec<String> {
        match read {
            Ok(_) => Vec::new(),
            Err(BodyError::Invalid(errors)) => errors
                .into_iter()
                .map(|error| {
                    assert_eq!(error.code, code::UNKNOWN_FIELD, "{error:?}");
                    error.pointer
                })
                .collect(),
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn a_field_that_there_is_not_is_refused_even_where_it_is_null() {
        let job = plain();
        let limits = SpecLimits::default();
        let none: &[&str] = &[];
        for (patch, refused) in [
            (r#"{"": null, "timeout_seconds": 1}"#, &["/"][..]),
            (r#"{"tmeout_seconds": null}"#, &["/tmeout_seconds"]),
            (r#"{"command": null}"#, &["/command"]),
            (r#"{"stop": {"typo": null}}"#, &["/stop/typo"]),
            (
                r#"{"stop": {"signal": null, "a/b": null, "grace_seconds": 1}, "typo": null}"#,
                &["/stop/a~1b", "/typo"],
            ),
            (
                r#"{"stop": {"signal": null, "grace_seconds": null, "scope": null}}"#,
                none,
            ),
            (
                r#"{"name": null, "timeout_seconds": null, "labels": {"k": null}}"#,
                none,
            ),
        ] {
            let read = parse_amendment(&job, patch.as_bytes(), &limits);
            assert_eq!(unknown(read), refused, "{patch}");
        }
        for (patch, refused) in [
            (r#"{"command": ["x"], "comand": null}"#, &["/comand"][..]),
            (r#"{"limits": {"cpus": null}}"#, &["/limits/cpus"]),
            (r#"{"output": {"typo": null}}"#, &["/output/typo"]),
            (r#"{"pty": {"typo": null}}"#, &["/pty/typo"]),
            (r#"{"sandbox": {"typo": null}}"#, &["/sandbox/typo"]),
            (
                r#"{"stdin": {"mode": "open", "typo": null}}"#,
                &["/stdin/typo"],
            ),
            (r#"{"stdin": {"typo": null}}"#, &["/stdin/typo"]),
            (r#"{"rlimits": {"files": null}}"#, &["/rlimits/files"]),
            (
                r#"{"rlimits": {"core": {"cpu": null}}}"#,
                &["/rlimits/core/cpu"],
            ),
            (r#"{"rlimits": {"core": null, "nofile": null}}"#, none),
            (r#"{"env": {"ANY": null}, "labels": {"any": null}}"#, none),
            (r#"{"secret_env": {"ANY": null}}"#, none),
            (
                r#"{"command": ["x"], "script": null, "name": null, "webhooks": null, "secret_env": null}"#,
                none,
            ),
            (
                r#"{"stdin": {"mode": "data", "text": "x", "base64": null}, "pty": null}"#,
                none,
            ),
        ] {
            let read = parse_rerun(&job, patch.as_bytes(), &limits);
            assert_eq!(unknown(read), refused, "{patch}");
        }
    }

    #[test]
    fn null_takes_away_what_is_there() {
        let patch =
            br#"{"rlimits": {"core": null, "cpu": 1}, "command": ["y"], "stop": {"scope": null}}"#;
        let new = parse_rerun(&plain(), patch, &SpecLimits::default()).expect("it is valid");
        assert_eq!(new.spec.rlimits.len(), 1, "{:?}", new.spec.rlimits);
        assert_eq!(new.spec.stop, Spec::default().stop);
    }

    #[test]
    fn the_examples_of_the_rfc_come_out_as_there() {
        for (mut target, patch, expected) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (
                json!({"a": "b"}),
                json!({"b": "c"}),
                json!({"a": "b", "b": "c"}),
            ),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (
                json!({"a": "b", "b": "c"}),
                json!({"a": null}),
                json!({"b": "c"}),
            ),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
            (
                json!({"a": {"b": "c"}}),
                json!({"a": {"b": "d", "c": null}}),
                json!({"a": {"b": "d"}}),
            ),
            (
                json!({"e": null}),
                json!({"a": 1}),
                json!({"e": null, "a": 1}),
            ),
            (
                json!([1, 2]),
                json!({"a": "b", "c": null}),
                json!({"a": "b"}),
            ),
            (
                json!({}),
                json!({"a": {"bb": {"ccc": null}}}),
                json!({"a": {"bb": {}}}),
            ),
        ] {
            merge(&mut target, patch, Names::Chosen);
            assert_eq!(target, expected);
        }
    }
}
