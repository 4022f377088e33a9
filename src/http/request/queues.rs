//! The body of `PUT /queues/{name}`.

use std::time::Duration;

use super::fields::{At, Errors, Fields, boolean, code, integer, seconds};
use super::json::Value;
use super::{Body, FieldError, ONE_DAY, rules};
use job::queue::{FairBy, Rate, STARTS_MAX, Settings, WEIGHT_MAX};

const REASON_CHARACTERS: usize = 1024;

/// Reads what is to be set of a queue.
pub fn parse_queue(body: &Body) -> Result<Settings, Vec<FieldError>> {
    let errors = Errors::default();
    let at = At::root(&body.0, &errors);
    let settings = Fields::of(&at).map(|mut f| {
        let settings = Settings {
            max_running: f.optional("max_running", integer(1..=WEIGHT_MAX)),
            max_queued: f.optional("max_queued", integer(0..=WEIGHT_MAX)),
            rate: f.optional("rate", rate),
            paused: f.or(false, "paused", boolean),
            pause_reason: f.optional("pause_reason", pause_reason),
            fair_by: f.optional("fair_by", fair_by),
            default_priority: f.or(0, "default_priority", rules::priority),
        };
        f.finish();
        settings
    });
    errors.result(settings)
}

fn rate(at: &At<'_>) -> Option<Rate> {
    let mut f = Fields::of(at)?;
    let starts = f.required("starts", integer(1..=STARTS_MAX));
    let per = f.required("per_seconds", seconds(Duration::from_millis(1)..=ONE_DAY));
    f.finish();
    Some(Rate {
        starts: starts?,
        per: per?,
    })
}

fn pause_reason(at: &At<'_>) -> Option<String> {
    let text = at.text()?;
    if text.chars().count() > REASON_CHARACTERS {
        return at.refuse(
            code::TOO_LONG,
            format!("at most {REASON_CHARACTERS} characters"),
        );
    }
    Some(text.to_owned())
}

fn fair_by(at: &At<'_>) -> Option<FairBy> {
    if let Value::Text(_) = at.value {
        return at.choice(&[("created_by", FairBy::CreatedBy)]);
    }
    let Value::Object(_) = at.value else {
        return at.refuse(
            code::WRONG_TYPE,
            "must be \"created_by\" or an object with the key of a label",
        );
    };
    let mut f = Fields::of(at)?;
    let label = f.required("label", rules::label_key);
    f.finish();
    label.map(FairBy::Label)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::request::{Changes, code, parse_body, parse_queue_patch};

    #[test]
    fn settings_come_back_as_they_were_given() {
        let full = json!({
            "max_running": 4, "max_queued": 500, "rate": {"starts": 10, "per_seconds": 0.5},
            "paused": true, "pause_reason": "friday", "fair_by": {"label": "customer"},
            "default_priority": -3
        });
        let body = parse_body(full.to_string().as_bytes()).unwrap();
        let settings = parse_queue(&body).unwrap();
        assert_eq!(serde_json::to_value(&settings).unwrap(), full);
        let none = parse_queue(&parse_body(b"{}").unwrap()).unwrap();
        assert_eq!(none, Settings::default());
    }

    #[test]
    fn what_is_wrong_is_refused_where_it_is() {
        for (body, pointer, code) in [
            (r#"{"max_running": 0}"#, "/max_running", code::OUT_OF_RANGE),
            (
                r#"{"max_running": 1000001}"#,
                "/max_running",
                code::OUT_OF_RANGE,
            ),
            (
                r#"{"rate": {"starts": 1}}"#,
                "/rate/per_seconds",
                code::MISSING,
            ),
            (
                r#"{"rate": {"starts": 10001, "per_seconds": 1}}"#,
                "/rate/starts",
                code::OUT_OF_RANGE,
            ),
            (
                r#"{"rate": {"starts": 1, "per_seconds": 0}}"#,
                "/rate/per_seconds",
                code::OUT_OF_RANGE,
            ),
            (
                r#"{"rate": {"starts": 1, "per_seconds": 86401}}"#,
                "/rate/per_seconds",
                code::OUT_OF_RANGE,
            ),
            (r#"{"fair_by": "age"}"#, "/fair_by", code::INVALID_VALUE),
            (r#"{"fair_by": 1}"#, "/fair_by", code::WRONG_TYPE),
            (
                r#"{"fair_by": {"label": "a b"}}"#,
                "/fair_by/label",
                code::INVALID_VALUE,
            ),
            (r#"{"max": 1}"#, "/max", code::UNKNOWN_FIELD),
        ] {
            let body = parse_body(body.as_bytes()).unwrap();
            let errors = parse_queue(&body).unwrap_err();
            let told = (errors[0].pointer.as_str(), errors[0].code);
            assert_eq!((told, errors.len()), ((pointer, code), 1));
        }
    }

    #[test]
    fn a_patch_changes_what_it_names_and_says_what_it_is_about() {
        let settings = Settings {
            max_running: Some(4),
            paused: true,
            ..Settings::default()
        };
        let (resumed, changes) = parse_queue_patch(&settings, br#"{"paused": false}"#).unwrap();
        assert_eq!(changes, Changes::PauseAlone);
        assert_eq!((resumed.max_running, resumed.paused), (Some(4), false));
        let (freed, changes) = parse_queue_patch(&settings, br#"{"max_running": null}"#).unwrap();
        assert_eq!(changes, Changes::More);
        assert_eq!((freed.max_running, freed.paused), (None, true));
    }
}
