//! The body of `POST /jobs` that a command policy makes a job of: a template and its parameters.

use std::collections::BTreeMap;

use super::fields::{At, Errors, FieldError, Fields, boolean, code};
use super::json::{Number, Value};
use super::{Body, SpecLimits, dependencies, rules, times};
use job::Spec;
use job::dependency::Dependency;
use job::queue::Concurrency;
use job::time::Timestamp;

/// The most parameters that are read.
const PARAMS: usize = 256;

/// A value for a parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Argument {
    /// A JSON number that is whole.
    Integer(i64),
    /// A JSON string.
    Text(String),
}

/// What a client wants to run, as a template and what to put in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateRequest {
    /// The template's name.
    pub template: String,
    /// Values by the names of the parameters.
    pub params: BTreeMap<String, Argument>,
    /// A name for people.
    pub name: Option<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// It does not start before this moment.
    pub run_at: Option<Timestamp>,
    /// It does not start before it is released.
    pub hold: bool,
    /// What has to end before it may start.
    pub depends_on: Vec<Dependency>,
    /// Where it waits.
    pub turn: Turn,
}

/// Where a job waits for its turn, and what decides whose turn it is: no matter of what it runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Turn {
    /// The queue.
    pub queue: Option<String>,
    /// Higher starts first.
    pub priority: Option<i32>,
    /// How much it takes of the limits.
    pub weight: Option<u32>,
    /// The key that it runs under.
    pub concurrency: Option<Concurrency>,
}

impl Turn {
    /// That of a job which is there.
    #[must_use]
    pub fn of(spec: &Spec) -> Self {
        Self {
            queue: Some(spec.queue.clone()),
            priority: Some(spec.priority),
            weight: Some(spec.weight),
            concurrency: spec.concurrency.clone(),
        }
    }
}

impl Body {
    /// Does it say itself what to run?
    #[must_use]
    pub fn has_program(&self) -> bool {
        self.has_any(&["command", "script"])
    }

    /// Does it name a template?
    #[must_use]
    pub fn has_template(&self) -> bool {
        self.has_any(&["template"])
    }

    fn has_any(&self, names: &[&str]) -> bool {
        match &self.0 {
            Value::Object(object) => names.iter().any(|name| object.members.contains_key(*name)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Text(_) | Value::List(_) => {
                false
            }
        }
    }
}

/// Reads the body. Every error is told, up to a hundred.
pub fn parse_template_request(
    body: &Body,
    limits: &SpecLimits,
) -> Result<TemplateRequest, Vec<FieldError>> {
    let errors = Errors::default();
    let at = At::root(&body.0, &errors);
    let request = Fields::of(&at).and_then(|mut f| {
        let template = f.required("template", |at| at.text().map(str::to_owned));
        let params = f.or_default("params", |at| {
            at.map(PARAMS, |name, at| Some((name.to_owned(), argument(at)?)))
        });
        let name = f.optional("name", rules::job_name);
        let labels = f.or_default("labels", rules::labels(limits.labels));
        let run_at = f.optional("run_at", times::moment);
        let hold = f.or_default("hold", boolean);
        let depends_on = f.or_default("depends_on", dependencies::dependencies);
        let turn = Turn {
            queue: f.optional("queue", rules::queue),
            priority: f.optional("priority", rules::priority),
            weight: f.optional("weight", rules::weight),
            concurrency: f.optional("concurrency", rules::concurrency),
        };
        f.finish();
        Some(TemplateRequest {
            template: template?,
            params,
            name,
            labels,
            run_at,
            hold,
            depends_on,
            turn,
        })
    });
    errors.result(request)
}

fn argument(at: &At<'_>) -> Option<Argument> {
    const DETAIL: &str = "must be a string or an integer";
    match at.value {
        Value::Text(text) => Some(Argument::Text(text.clone())),
        Value::Number(Number::Unsigned(number)) => match i64::try_from(*number) {
            Ok(number) => Some(Argument::Integer(number)),
            Err(_) => at.refuse(code::OUT_OF_RANGE, DETAIL),
        },
        Value::Number(Number::Negative(number)) => Some(Argument::Integer(*number)),
        Value::Null
        | Value::Bool(_)
        | Value::Number(Number::Float(_))
        | Value::List(_)
        | Value::Object(_) => at.refuse(code::WRONG_TYPE, DETAIL),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::parse_body;
    use job::queue::OnConflict;

    fn read(text: &str) -> Result<TemplateRequest, Vec<(String, &'static str)>> {
        let body = parse_body(text.as_bytes()).unwrap();
        parse_template_request(&body, &SpecLimits::default()).map_err(|errors| {
            let told = |error: FieldError| (error.pointer, error.code);
            errors.into_iter().map(told).collect()
        })
    }

    #[test]
    fn a_template_its_parameters_and_when_it_runs_are_read() {
        let request = read(
            r#"{"template":"t","params":{"a":-1,"b":"x"},"name":"n","labels":{"k":"v"},
                "run_at":"2027-01-01T00:00:00Z","hold":true,"queue":"q","priority":-5,"weight":null,
                "concurrency":{"key":"k"}}"#,
        );
        let request = request.unwrap();
        let midnight = "2027-01-01T00:00:00Z".parse().ok();
        assert_eq!((request.run_at, request.hold), (midnight, true));
        let turn = Turn {
            queue: Some("q".to_owned()),
            priority: Some(-5),
            weight: None,
            concurrency: Some(Concurrency {
                key: "k".to_owned(),
                limit: 1,
                policy: OnConflict::Queue,
            }),
        };
        assert_eq!(request.turn, turn);
        assert_eq!(request.template, "t");
        assert_eq!(request.params["a"], Argument::Integer(-1));
        assert_eq!(request.params["b"], Argument::Text("x".to_owned()));
        assert_eq!(request.name.as_deref(), Some("n"));
        assert_eq!(request.labels["k"], "v");
    }

    #[test]
    fn anything_else_is_refused_where_it_is() {
        for (body, pointer, code) in [
            ("{}", "/template", "missing"),
            (r#"{"template":7}"#, "/template", "wrong_type"),
            (
                r#"{"template":"t","user":"root"}"#,
                "/user",
                "unknown_field",
            ),
            (r#"{"template":"t","queue":""}"#, "/queue", "invalid_value"),
            (
                r#"{"template":"t","priority":"1"}"#,
                "/priority",
                "wrong_type",
            ),
            (r#"{"template":"t","weight":0}"#, "/weight", "out_of_range"),
            (
                r#"{"template":"t","concurrency":{}}"#,
                "/concurrency/key",
                "missing",
            ),
            (r#"{"template":"t","params":[]}"#, "/params", "wrong_type"),
            (
                r#"{"template":"t","params":{"a":null}}"#,
                "/params/a",
                "wrong_type",
            ),
            (
                r#"{"template":"t","params":{"a":["x","y"]}}"#,
                "/params/a",
                "wrong_type",
            ),
            (
                r#"{"template":"t","params":{"a":1.5}}"#,
                "/params/a",
                "wrong_type",
            ),
            (
                r#"{"template":"t","params":{"a":1e-3}}"#,
                "/params/a",
                "wrong_type",
            ),
            (
                r#"{"template":"t","params":{"a":9223372036854775808}}"#,
                "/params/a",
                "out_of_range",
            ),
        ] {
            assert_eq!(read(body), Err(vec![(pointer.to_owned(), code)]), "{body}");
        }
    }

    #[test]
    fn a_body_that_says_what_to_run_is_known_by_its_fields() {
        let has = |text: &str| parse_body(text.as_bytes()).unwrap().has_program();
        for own in [
            r#"{"command":["x"]}"#,
            r#"{"script":null}"#,
            r#"{"template":"t","command":7}"#,
        ] {
            assert!(has(own), "{own}");
        }
        assert!(!has(r#"{"template":"t"}"#) && !has("{}"));
    }
}
