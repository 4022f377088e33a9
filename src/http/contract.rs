//! `openapi.yaml` held against the code.

mod samples;

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::problem::examples;
use crate::request;
use crate::routes::{self, Route};
use crate::service::OPENAPI;
use crate::view::JobView;
use crate::{Access, ApiError};
use job::spec::Program;
use job::{Cause, Job, State, Termination};
use samples::{ended_job, queued_job};

fn description() -> Value {
    serde_norway::from_str(OPENAPI).unwrap()
}

/// The value itself, or what its `$ref` points at.
fn resolved<'a>(root: &'a Value, value: &'a Value) -> &'a Value {
    match value["$ref"].as_str() {
        Some(pointer) => root.pointer(&pointer[1..]).expect(pointer),
        None => value,
    }
}

/// A validator for one schema of the description.
fn schema(name: &str) -> jsonschema::Validator {
    let mut root = description();
    let document = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$ref": format!("#/components/schemas/{name}"),
        "components": {"schemas": root["components"]["schemas"].take()},
    });
    jsonschema::options()
        .with_draft(jsonschema::Draft::Draft202012)
        .should_validate_formats(true)
        .build(&document)
        .unwrap()
}

#[track_caller]
fn assert_valid(schema: &jsonschema::Validator, value: &Value) {
    let errors: Vec<String> = schema
        .iter_errors(value)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    assert!(errors.is_empty(), "{errors:#?}\n{value:#}");
}

#[test]
fn the_description_has_the_routes_of_the_table_and_no_other() {
    let root = description();
    let mut described = BTreeSet::new();
    for (path, item) in root["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            if method != "parameters" {
                described.insert(format!("{} {path}", method.to_uppercase()));
            }
        }
    }
    let table: BTreeSet<String> = routes::table()
        .iter()
        .map(|route| format!("{} {}", route.method, route.path))
        .collect();
    assert_eq!(described, table);
}

fn operation<'a>(root: &'a Value, route: &Route) -> &'a Value {
    &root["paths"][route.path][route.method.as_str().to_lowercase()]
}

#[test]
fn the_description_has_the_access_words_of_the_table() {
    let root = description();
    for route in routes::table() {
        let expected = match route.access {
            Access::Public => json!([]),
            word @ (Access::Metrics
            | Access::Read
            | Access::Operate
            | Access::Admin
            | Access::Runner) => {
                json!([{"bearer": [word.as_str()]}])
            }
        };
        assert_eq!(
            operation(&root, &route)["security"],
            expected,
            "{} {}",
            route.method,
            route.path
        );
    }
}

#[test]
fn the_description_has_the_query_parameters_of_the_table() {
    let root = description();
    for route in routes::table() {
        let described: BTreeSet<&str> = operation(&root, &route)["parameters"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|parameter| resolved(&root, parameter))
            .filter(|parameter| parameter["in"] == "query")
            .map(|parameter| parameter["name"].as_str().unwrap())
            .collect();
        let table: BTreeSet<&str> = route.query.iter().copied().collect();
        assert_eq!(described, table, "{} {}", route.method, route.path);
    }
}

#[test]
fn every_operation_has_what_all_have() {
    let root = description();
    let mut ids = BTreeSet::new();
    for route in routes::table() {
        let operation = operation(&root, &route);
        let id = operation["operationId"].as_str().unwrap();
        assert!(ids.insert(id.to_owned()), "{id} comes twice");
        assert!(operation["summary"].is_string(), "{id}");
        let responses = operation["responses"].as_object().unwrap();
        let mut needed = vec!["400", "403", "421"];
        if route.access != Access::Public {
            needed.push("401");
        }
        if route.path.contains("{id}") {
            needed.push("404");
        }
        if operation["requestBody"]["content"]["application/json"].is_object() {
            needed.extend(["408", "413", "415", "422"]);
        }
        for status in needed {
            assert!(responses.contains_key(status), "{id} lacks {status}");
        }
        for (status, response) in responses {
            let response = resolved(&root, response);
            assert!(response["description"].is_string(), "{id} {status}");
            if status.starts_with(['4', '5']) {
                let schema = &response["content"][super::PROBLEM_JSON]["schema"]["$ref"];
                assert_eq!(schema, "#/components/schemas/Problem", "{id} {status}");
            }
        }
    }
}

#[test]
fn the_description_has_every_code_and_no_other() {
    let root = description();
    let described = root["components"]["schemas"]["ProblemCode"]["enum"].as_array();
    let described: Vec<_> = described
        .unwrap()
        .iter()
        .map(|code| code.as_str().unwrap())
        .collect();
    let examples = examples();
    let codes: BTreeSet<_> = examples.iter().map(ApiError::code).collect();
    assert_eq!(codes, described.iter().copied().collect());
    assert_eq!(codes.len(), described.len(), "a code is listed twice");
    // Each is explained where an operation, a response or the introduction names it.
    for code in codes {
        assert!(
            OPENAPI.contains(&format!("`{code}`")),
            "{code} is not explained"
        );
    }
}

#[test]
fn the_description_has_every_state_and_cause() {
    let root = description();
    let schemas = &root["components"]["schemas"];
    assert_eq!(schemas["State"]["enum"], json!(State::ALL));
    let causes = [
        Cause::Exited,
        Cause::Signaled,
        Cause::SpawnFailed,
        Cause::Timeout,
        Cause::Canceled,
        Cause::Superseded,
        Cause::DependencyFailed,
        Cause::OomKilled,
        Cause::OutputLimit,
        Cause::WorkspaceLimit,
        Cause::NotReady,
        Cause::StartDeadline,
        Cause::Shutdown,
        Cause::MonitorLost,
        Cause::SupervisorLost,
        Cause::HostRebooted,
        Cause::NodeLost,
    ];
    assert_eq!(schemas["Cause"]["enum"], json!(causes));
    for cause in causes {
        let mut job = ended_job();
        job.termination = Some(Termination::unasked(cause));
        let view = serde_json::to_value(JobView::with(&job, None)).unwrap();
        assert_eq!(view["state_reason"], json!(cause));
    }
}

#[test]
fn every_reference_leads_somewhere() {
    fn walk(root: &Value, value: &Value) {
        match value {
            Value::Object(members) => {
                resolved(root, value);
                members.values().for_each(|member| walk(root, member));
            }
            Value::Array(items) => items.iter().for_each(|item| walk(root, item)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    let root = description();
    walk(&root, &root);
}

#[test]
fn every_schema_is_valid_and_so_are_its_examples() {
    let root = description();
    for (name, described) in root["components"]["schemas"].as_object().unwrap() {
        jsonschema::meta::validate(described).unwrap();
        let schema = schema(name);
        for example in described["examples"].as_array().into_iter().flatten() {
            assert_valid(&schema, example);
        }
    }
    let new_jobs = &root["paths"]["/jobs"]["post"]["requestBody"]["content"]["application/json"];
    for example in new_jobs["examples"].as_object().unwrap().values() {
        assert!(parses(&example["value"]), "{example}");
    }
    for (path, name) in [
        ("/paths/~1jobs/post/requestBody", "JobSubmission"),
        (
            "/paths/~1jobs~1{id}~1signal/post/requestBody",
            "SignalRequest",
        ),
    ] {
        let media = root
            .pointer(&format!("{path}/content/application~1json"))
            .unwrap();
        for example in media["examples"].as_object().unwrap().values() {
            assert_valid(&schema(name), &example["value"]);
        }
    }
    let problem = schema("Problem");
    for pointer in [
        "/components/responses/InvalidQuery/content",
        "/paths/~1jobs/post/responses/422/content",
    ] {
        let media = root.pointer(pointer).unwrap();
        let examples = media[super::PROBLEM_JSON]["examples"].as_object().unwrap();
        for example in examples.values() {
            assert_valid(&problem, &example["value"]);
        }
    }
}

fn parses(body: &Value) -> bool {
    let body = request::parse_body(body.to_string().as_bytes()).unwrap();
    request::parse_submission(&body, &request::SpecLimits::default()).is_ok()
}

#[test]
fn the_schema_of_a_new_job_refuses_what_the_parser_refuses() {
    let schema = schema("JobSubmission");
    for good in [
        json!({"command": ["true"]}),
        json!({"script": "true", "shell": ["/bin/bash", "-c"], "rlimits": {"core": 0}}),
        json!({"command": ["cat"], "stdin": {"mode": "data", "base64": "AA=="}, "stop": {"signal": 2}}),
        json!({"command": ["cat"], "stdin": {"mode": "data", "text": ""}, "env_inherit": ["PATH"]}),
        json!({"command": ["cat"], "stdin": {"mode": "open"}, "env_inherit": "none"}),
    ] {
        assert_valid(&schema, &good);
        assert!(parses(&good), "{good}");
    }
    for bad in [
        json!({}),
        json!({"command": []}),
        json!({"command": ["true"], "script": "true"}),
        json!({"command": ["true"], "shell": ["sh"]}),
        json!({"command": ["true"], "comand": 1}),
        json!({"command": ["true"], "stop": {"grace": 1}}),
        json!({"command": ["true"], "timeout_seconds": 0}),
        json!({"command": ["true"], "cwd": "tmp//a"}),
        json!({"command": ["true"], "labels": {"-": "x"}}),
        json!({"command": ["true"], "env_inherit": "all"}),
        json!({"command": ["true"], "stdin": {"mode": "data"}}),
        json!({"command": ["true"], "stdin": {"mode": "data", "text": "a", "base64": "AA=="}}),
        json!({"command": ["true"], "stdin": {"mode": "open", "text": "a"}}),
        json!({"command": ["true"], "stdin": {"text": "a"}}),
    ] {
        assert!(!schema.is_valid(&bad), "{bad}");
        assert!(!parses(&bad), "{bad}");
    }
}

#[test]
fn views_are_as_described_with_every_field_there() {
    let root = description();
    let schema = schema("Job");
    for job in [queued_job(), ended_job()] {
        let view = serde_json::to_value(JobView::with(&job, None)).unwrap();
        assert_valid(&schema, &view);
        assert!(!view.to_string().contains("hunter2"));
        let described = root["components"]["schemas"]["Job"]["properties"].as_object();
        // Those are there in a cluster alone.
        let described = described.unwrap().keys();
        let described = described.filter(|it| !["node", "late"].contains(&it.as_str()));
        let described: BTreeSet<_> = described.collect();
        let shown: BTreeSet<_> = view.as_object().unwrap().keys().collect();
        assert_eq!(shown, described);
        let spec: BTreeSet<_> = view["spec"].as_object().unwrap().keys().cloned().collect();
        let schemas = &root["components"]["schemas"];
        let parts = [&schemas["SpecCommon"], &schemas["JobSpec"]["allOf"][1]];
        let mut known: BTreeSet<String> = parts
            .into_iter()
            .flat_map(|part| part["properties"].as_object().unwrap().keys())
            .cloned()
            .collect();
        // Shown if they were given.
        known.remove("placement");
        known.remove("on_node_loss");
        match job.spec.program {
            Program::Command { .. } => {
                known.remove("script");
                known.remove("shell");
            }
            Program::Script { .. } => {
                known.remove("command");
            }
        }
        assert_eq!(spec, known);
    }
}

#[test]
fn a_queued_job_waits_for_a_slot_and_a_running_one_for_nothing() {
    let view = |job: &Job| serde_json::to_value(JobView::with(job, None)).unwrap();
    assert_eq!(view(&queued_job())["state_reason"], "waiting_for_slot");
    let running = Job {
        state: State::Running,
        ..queued_job()
    };
    assert_eq!(view(&running)["state_reason"], Value::Null);
}
