//! The bodies of `PUT` and `PATCH /schedules/{name}` and of `POST /schedules/times`.

use std::collections::BTreeMap;

use serde_json::{Map, Value as JsonValue};

use super::fields::{At, Errors, Fields, boolean, code, integer};
use super::{Body, BodyError, FieldError, SpecLimits, parse_body, patch, rules, times};
use job::schedule::{Definition, Line, MOMENTS_MAX, Missed, Overlap, When};
use job::time::Timestamp;

/// The fields that say when it is due.
const WHEN: [&str; 3] = ["cron", "every_seconds", "at"];
const YEAR_SECONDS: u64 = 366 * 86_400;
const WEEK_SECONDS: u64 = 7 * 86_400;
const DAY_SECONDS: u64 = 86_400;
const HOUR_SECONDS: u64 = 3600;
const ZONE_BYTES: usize = 64;

/// Reads a schedule. `bytes` are those of the body; the job in it is looked at by whoever can make one.
pub fn parse_schedule(
    body: &Body,
    bytes: &[u8],
    limits: &SpecLimits,
) -> Result<Definition, Vec<FieldError>> {
    let errors = Errors::default();
    let at = At::root(&body.0, &errors);
    let definition = Fields::of(&at).map(|mut f| {
        let when = when(&mut f);
        let has_job = f.required("job", |at| Fields::of(at).map(|_| ())).is_some();
        let definition = Definition {
            when: when.unwrap_or(When::At(Vec::new())),
            time_zone: f.or("UTC".to_owned(), "time_zone", zone),
            job: if has_job {
                job_of(bytes)
            } else {
                String::new()
            },
            overlap: f.or_default("overlap", overlap),
            missed: f.or_default("missed", missed),
            missed_within_seconds: f.or(
                HOUR_SECONDS,
                "missed_within_seconds",
                integer(0..=WEEK_SECONDS),
            ),
            jitter_seconds: f.or(0, "jitter_seconds", integer(0..=DAY_SECONDS)),
            paused: f.or_default("paused", boolean),
            starts_at: f.optional("starts_at", times::moment),
            ends_at: f.optional("ends_at", times::moment),
            labels: f.or_default("labels", rules::labels(limits.labels)),
        };
        ordered(&f, &definition);
        f.finish();
        definition
    });
    errors.result(definition)
}

/// Reads when something would be due, after which moment it is asked, and how often.
pub fn parse_times(
    body: &Body,
    most: u64,
) -> Result<(Definition, Option<Timestamp>, u64), Vec<FieldError>> {
    let errors = Errors::default();
    let at = At::root(&body.0, &errors);
    let request = Fields::of(&at).map(|mut f| {
        let when = when(&mut f);
        let definition = Definition {
            when: when.unwrap_or(When::At(Vec::new())),
            time_zone: f.or("UTC".to_owned(), "time_zone", zone),
            job: String::new(),
            overlap: Overlap::default(),
            missed: Missed::default(),
            missed_within_seconds: 0,
            jitter_seconds: 0,
            paused: false,
            starts_at: f.optional("starts_at", times::moment),
            ends_at: f.optional("ends_at", times::moment),
            labels: BTreeMap::new(),
        };
        let after = f.optional("after", times::moment);
        let count = f.or(10, "count", integer(1..=most));
        ordered(&f, &definition);
        f.finish();
        (definition, after, count)
    });
    errors.result(request)
}

/// Reads a merge patch on a schedule.
pub fn parse_schedule_patch(
    definition: &Definition,
    patch: &[u8],
    limits: &SpecLimits,
) -> Result<Definition, BodyError> {
    let patch = patch::read(patch)?;
    let mut base = schedule_members(definition);
    // One way to say when takes the place of another.
    if WHEN
        .iter()
        .any(|it| patch.get(*it).is_some_and(|value| !value.is_null()))
    {
        base.retain(|name, _| !WHEN.contains(&name.as_str()));
    }
    let members = patch::merged_members(base, patch);
    let bytes = JsonValue::Object(members).to_string().into_bytes();
    let body = parse_body(&bytes)?;
    parse_schedule(&body, &bytes, limits).map_err(BodyError::Invalid)
}

/// A schedule as its body would say it.
pub fn schedule_members(definition: &Definition) -> Map<String, JsonValue> {
    let value =
        serde_json::to_value(definition).expect("a definition can always be written as JSON");
    let mut members = value.as_object().cloned().unwrap_or_default();
    let job = serde_json::from_str(&definition.job).unwrap_or(JsonValue::Null);
    members.insert("job".to_owned(), job);
    members
}

fn job_of(bytes: &[u8]) -> String {
    let body: JsonValue = serde_json::from_slice(bytes).unwrap_or_default();
    body.get("job")
        .map(JsonValue::to_string)
        .unwrap_or_default()
}

fn when(f: &mut Fields<'_>) -> Option<When> {
    const ONE: &str = "give exactly one of cron, every_seconds and at";
    let cron = f.optional("cron", line);
    let every = f.optional("every_seconds", integer(1..=YEAR_SECONDS));
    let moments = f.optional("at", |at| at.set(MOMENTS_MAX, times::moment));
    let mut given = WHEN.into_iter().filter(|name| f.has(name));
    let (first, second) = (given.next(), given.next());
    if let Some(second) = second {
        f.refuse(second, code::CONFLICT, ONE);
    } else if first.is_none() {
        f.refuse("cron", code::MISSING, ONE);
    }
    cron.map(When::Cron)
        .or(every.map(When::EverySeconds))
        .or(moments.map(When::At))
}

fn line(at: &At<'_>) -> Option<String> {
    let text = at.text()?;
    match Line::parse(text) {
        Ok(_) => Some(text.to_owned()),
        Err(why) => at.refuse(code::INVALID_VALUE, why),
    }
}

fn zone(at: &At<'_>) -> Option<String> {
    let text = at.text()?;
    if text.len() <= ZONE_BYTES && manager::zone(text).is_some() {
        return Some(text.to_owned());
    }
    at.refuse(
        code::INVALID_VALUE,
        "no such time zone; one is named as in Europe/Berlin",
    )
}

fn overlap(at: &At<'_>) -> Option<Overlap> {
    at.choice(&[
        ("allow", Overlap::Allow),
        ("skip", Overlap::Skip),
        ("queue", Overlap::Queue),
        ("replace", Overlap::Replace),
    ])
}

fn missed(at: &At<'_>) -> Option<Missed> {
    at.choice(&[
        ("latest", Missed::Latest),
        ("all", Missed::All),
        ("skip", Missed::Skip),
    ])
}

fn ordered(f: &Fields<'_>, definition: &Definition) {
    if let (Some(start), Some(end)) = (definition.starts_at, definition.ends_at)
        && end < start
    {
        f.refuse("ends_at", code::CONFLICT, "must not be before starts_at");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::request::parse_body;

    fn read(body: &JsonValue) -> Result<Definition, Vec<FieldError>> {
        let bytes = body.to_string().into_bytes();
        parse_schedule(&parse_body(&bytes).unwrap(), &bytes, &SpecLimits::default())
    }

    #[test]
    fn a_schedule_comes_back_as_it_was_given() {
        let full = json!({
            "cron": "0 3 * * *", "time_zone": "Europe/Berlin", "job": {"command": ["x"], "env": {"A": "b"}},
            "overlap": "queue", "missed": "all", "missed_within_seconds": 60, "jitter_seconds": 30, "paused": true,
            "starts_at": "2027-01-01T00:00:00.000000Z", "ends_at": "2028-01-01T00:00:00.000000Z",
            "labels": {"k": "v"}
        });
        let definition = read(&full).unwrap();
        assert_eq!(JsonValue::Object(schedule_members(&definition)), full);
        let least = read(&json!({"every_seconds": 5, "job": {"command": ["x"]}})).unwrap();
        assert_eq!(least.when, When::EverySeconds(5));
        assert_eq!(
            (least.missed_within_seconds, least.time_zone.as_str()),
            (3600, "UTC")
        );
    }

    #[test]
    fn what_is_wrong_is_refused_where_it_is() {
        let job = json!({"command": ["x"]});
        for (body, pointer, code) in [
            (json!({"job": job}), "/cron", code::MISSING),
            (
                json!({"cron": "61 * * * *", "job": job}),
                "/cron",
                code::INVALID_VALUE,
            ),
            (
                json!({"cron": "30 2 30 2 *", "job": job}),
                "/cron",
                code::INVALID_VALUE,
            ),
            (
                json!({"cron": "@daily", "every_seconds": 1, "job": job}),
                "/every_seconds",
                code::CONFLICT,
            ),
            (
                json!({"every_seconds": 0, "job": job}),
                "/every_seconds",
                code::OUT_OF_RANGE,
            ),
            (json!({"at": [], "job": job}), "/at", code::INVALID_VALUE),
            (
                json!({"at": ["soon"], "job": job}),
                "/at/0",
                code::INVALID_VALUE,
            ),
            (json!({"cron": "@daily"}), "/job", code::MISSING),
            (
                json!({"cron": "@daily", "job": 7}),
                "/job",
                code::WRONG_TYPE,
            ),
            (
                json!({"cron": "@daily", "time_zone": "Mars/Base", "job": job}),
                "/time_zone",
                code::INVALID_VALUE,
            ),
            (
                json!({"cron": "@daily", "overlap": "x", "job": job}),
                "/overlap",
                code::INVALID_VALUE,
            ),
            (
                json!({"cron": "@daily", "missed_within_seconds": 604_801, "job": job}),
                "/missed_within_seconds",
                code::OUT_OF_RANGE,
            ),
            (
                json!({"cron": "@daily", "when": 1, "job": job}),
                "/when",
                code::UNKNOWN_FIELD,
            ),
            (
                json!({"cron": "@daily", "job": job, "starts_at": "2027-01-02T00:00:00Z", "ends_at": "2027-01-01T00:00:00Z"}),
                "/ends_at",
                code::CONFLICT,
            ),
        ] {
            let errors = read(&body).unwrap_err();
            let told = (errors[0].pointer.as_str(), errors[0].code);
            assert_eq!(
                (told, errors.len()),
                ((pointer, code), 1),
                "{body} {errors:?}"
            );
        }
        let never = read(&json!({"cron": "30 2 30 2 *", "job": job})).unwrap_err();
        assert_eq!(never[0].detail, "never due");
    }

    #[test]
    fn a_patch_changes_what_it_names() {
        let job = json!({"command": ["x"], "env": {"A": "b", "C": "d"}, "timeout_seconds": 5});
        let daily = read(&json!({"cron": "@daily", "job": job})).unwrap();
        let limits = SpecLimits::default();
        let patched = |patch: &str| parse_schedule_patch(&daily, patch.as_bytes(), &limits);
        let paused = patched(r#"{"paused": true}"#).unwrap();
        assert_eq!(
            Definition {
                paused: false,
                ..paused
            },
            daily
        );
        assert_eq!(
            patched(r#"{"every_seconds": 9}"#).unwrap().when,
            When::EverySeconds(9)
        );
        let other =
            patched(r#"{"job": {"env": {"A": null}, "timeout_seconds": null, "name": "n"}}"#)
                .unwrap();
        let other: JsonValue = serde_json::from_str(&other.job).unwrap();
        assert_eq!(
            other,
            json!({"command": ["x"], "env": {"C": "d"}, "name": "n"})
        );
        assert!(patched(r#"{"pause": true}"#).is_err() && patched(r#"{"job": null}"#).is_err());
    }
}
