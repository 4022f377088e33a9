//! The field `retry` of a spec.

use std::time::Duration;

use super::fields::{At, Fields, code, integer, seconds};
use super::json::Value;
use super::{ANY_TIME, ONE_DAY, rules};
use job::Spec;
use job::retry::{ATTEMPTS_MAX, Backoff, Codes, On, Retry};

/// The most exit codes and ranges of them.
const CODES_MAX: usize = 256;

pub(super) fn retry(at: &At<'_>) -> Option<Retry> {
    let base = Retry::default();
    let mut f = Fields::of(at)?;
    let retry = Retry {
        max_attempts: f.or(base.max_attempts, "max_attempts", integer(1..=ATTEMPTS_MAX)),
        on: f.or(base.on, "on", |at| {
            at.filled_list(On::WORDS.len(), |at| at.choice(&On::WORDS))
        }),
        exit_codes: f.optional("exit_codes", |at| at.filled_list(CODES_MAX, codes)),
        never_exit_codes: f.or_default("never_exit_codes", |at| at.list(CODES_MAX, codes)),
        backoff: f.or_default("backoff", backoff),
        within: f.optional("within_seconds", seconds(ANY_TIME)),
    };
    f.finish();
    Some(retry)
}

fn codes(at: &At<'_>) -> Option<Codes> {
    let Value::List(_) = at.value else {
        let code = integer(0..=255_u8)(at)?;
        return Some(Codes {
            first: code,
            last: code,
        });
    };
    let both = at.list(2, integer(0..=255_u8))?;
    match both.as_slice() {
        [first, last] if first <= last => Some(Codes {
            first: *first,
            last: *last,
        }),
        _ => at.refuse(
            code::INVALID_VALUE,
            "a range has two exit codes, the smaller one first",
        ),
    }
}

fn backoff(at: &At<'_>) -> Option<Backoff> {
    let base = Backoff::default();
    let mut f = Fields::of(at)?;
    let pause = || seconds(Duration::ZERO..=ONE_DAY);
    let initial = f.or(base.initial, "initial_seconds", pause());
    let backoff = Backoff {
        initial,
        factor: f.or(base.factor, "factor", rules::factor),
        // The default is no reason to refuse a longer first pause.
        max: f.or(base.max.max(initial), "max_seconds", pause()),
    };
    if backoff.max < backoff.initial {
        f.refuse(
            "max_seconds",
            code::OUT_OF_RANGE,
            "must be at least initial_seconds",
        );
    }
    f.finish();
    Some(backoff)
}

/// What was typed in an attempt is gone in the next.
pub(super) fn check_together(f: &Fields<'_>, spec: &Spec) {
    if spec.retry.is_some() && spec.takes_input() {
        f.refuse(
            "retry",
            code::CONFLICT,
            "goes neither with an open standard input nor with a terminal",
        );
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::request::tests::spec_with;

    #[test]
    fn what_was_given_is_shown() {
        let retry = json!({
            "max_attempts": 3, "on": ["exited", "spawn_failed"], "exit_codes": [75, [100, 110]],
            "never_exit_codes": [105], "within_seconds": 60,
            "backoff": {"initial_seconds": 0.5, "factor": 1.5, "max_seconds": 10},
        });
        let spec = spec_with(&json!({"retry": retry})).unwrap();
        assert_eq!(serde_json::to_value(&spec).unwrap()["retry"], retry);
        let long = spec_with(&json!({"retry": {"backoff": {"initial_seconds": 4000}}})).unwrap();
        let backoff = &serde_json::to_value(&long).unwrap()["retry"]["backoff"];
        assert_eq!(backoff["max_seconds"], 4000);
        assert_eq!(spec_with(&json!({"retry": null})).unwrap().retry, None);
    }

    #[test]
    fn what_is_wrong_is_refused_where_it_is() {
        for (retry, pointer) in [
            (json!({"max_attempts": 0}), "/retry/max_attempts"),
            (json!({"max_attempts": 101}), "/retry/max_attempts"),
            (json!({"on": []}), "/retry/on"),
            (json!({"on": ["canceled"]}), "/retry/on/0"),
            (json!({"exit_codes": [256]}), "/retry/exit_codes/0"),
            (json!({"exit_codes": [[5, 4]]}), "/retry/exit_codes/0"),
            (json!({"exit_codes": [[5]]}), "/retry/exit_codes/0"),
            (json!({"backoff": {"factor": 11}}), "/retry/backoff/factor"),
            (
                json!({"backoff": {"initial_seconds": 2, "max_seconds": 1}}),
                "/retry/backoff/max_seconds",
            ),
            (json!({"typo": 1}), "/retry/typo"),
        ] {
            let errors = spec_with(&json!({"retry": retry})).unwrap_err();
            assert_eq!(errors[0].pointer, pointer, "{retry}");
        }
        for more in [json!({"pty": {}}), json!({"stdin": {"mode": "open"}})] {
            let mut more = more;
            more["retry"] = json!({});
            let errors = spec_with(&more).unwrap_err();
            assert_eq!(
                (errors[0].pointer.as_str(), errors[0].code),
                ("/retry", "conflict")
            );
        }
    }
}
