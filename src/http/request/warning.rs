//! The field `timeout_warning` of a spec.

use super::fields::{At, Fields, code, seconds};
use super::{ANY_TIME, rules};
use job::Spec;
use job::spec::{Scope, TimeoutWarning};

pub(super) fn warning(at: &At<'_>) -> Option<TimeoutWarning> {
    let mut f = Fields::of(at)?;
    let before = f.required("before_seconds", seconds(ANY_TIME));
    let signal = f.optional("signal", rules::signal);
    // The others may not know it, and most signals end who does not know them.
    let scope = f.or(Scope::Leader, "scope", rules::scope);
    if signal.is_none() && f.has("scope") && !f.has("signal") {
        f.refuse("scope", code::CONFLICT, "goes with signal only");
    }
    f.finish();
    Some(TimeoutWarning {
        before: before?,
        signal,
        scope,
    })
}

pub(super) fn check_together(f: &Fields<'_>, spec: &Spec) {
    let Some(warning) = spec.timeout_warning else {
        return;
    };
    match spec.timeout {
        None if f.has("timeout_seconds") => {}
        None => f.refuse(
            "timeout_warning",
            code::CONFLICT,
            "goes with timeout_seconds only",
        ),
        Some(timeout) if warning.before >= timeout => f.refuse_below(
            "timeout_warning",
            "before_seconds",
            code::OUT_OF_RANGE,
            "must be less than timeout_seconds",
        ),
        Some(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::request::tests::spec_with;

    #[test]
    fn a_warning_is_read_with_its_defaults() {
        let warning = json!({"before_seconds": 60});
        let spec = spec_with(&json!({"timeout_seconds": 90, "timeout_warning": warning})).unwrap();
        assert_eq!(
            serde_json::to_value(&spec).unwrap()["timeout_warning"],
            json!({"before_seconds": 60, "signal": null, "scope": "leader"})
        );
        let warning = json!({"before_seconds": 0.5, "signal": "SIGUSR1", "scope": "all"});
        let spec = spec_with(&json!({"timeout_seconds": 90, "timeout_warning": warning})).unwrap();
        assert_eq!(
            serde_json::to_value(&spec).unwrap()["timeout_warning"],
            warning
        );
    }

    #[test]
    fn what_cannot_be_meant_is_refused_where_it_is() {
        for (body, pointer, code) in [
            (
                json!({"timeout_warning": {"before_seconds": 1}}),
                "/timeout_warning",
                "conflict",
            ),
            (
                json!({"timeout_seconds": 5, "timeout_warning": {"before_seconds": 5}}),
                "/timeout_warning/before_seconds",
                "out_of_range",
            ),
            (
                json!({"timeout_seconds": 5, "timeout_warning": {}}),
                "/timeout_warning/before_seconds",
                "missing",
            ),
            (
                json!({"timeout_seconds": 5, "timeout_warning": {"before_seconds": 1, "scope": "all"}}),
                "/timeout_warning/scope",
                "conflict",
            ),
        ] {
            let errors = spec_with(&body).unwrap_err();
            assert_eq!(
                (errors[0].pointer.as_str(), errors[0].code),
                (pointer, code),
                "{body}"
            );
        }
    }
}
