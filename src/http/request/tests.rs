//! A bad case for every rule, and properties of whole bodies.

use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::*;
use job::sandbox::{Mechanism, Sandbox};
use job::spec::Program;

fn parse(body: &Json) -> Result<NewJob, Vec<FieldError>> {
    parse_text(&body.to_string())
}

fn parse_text(body: &str) -> Result<NewJob, Vec<FieldError>> {
    match parse_body(body.as_bytes()) {
        Ok(body) => parse_submission(&body, &SpecLimits::default()),
        Err(BodyError::Invalid(errors)) => Err(errors),
        Err(error) => panic!("{error}"),
    }
}

/// `{"command": ["x"]}` with these fields beside it.
fn body_with(fields: &Json) -> Json {
    let mut body = json!({"command": ["x"]});
    for (key, value) in fields.as_object().unwrap() {
        body[key] = value.clone();
    }
    body
}

/// What is read of that.
pub(super) fn spec_with(fields: &Json) -> Result<Spec, Vec<FieldError>> {
    parse(&body_with(fields)).map(|new| new.spec)
}

/// The errors of that.
fn errors_with(fields: &Json) -> Vec<(String, &'static str)> {
    errors(&body_with(fields))
}

fn errors(body: &Json) -> Vec<(String, &'static str)> {
    match parse(body) {
        Ok(job) => panic!("accepted: {body} as {job:?}"),
        Err(errors) => errors
            .into_iter()
            .map(|error| {
                assert!(!error.detail.is_empty());
                assert!(code::ALL.contains(&error.code));
                (error.pointer, error.code)
            })
            .collect(),
    }
}

#[test]
fn the_least_submission_gets_every_default() {
    let job = parse(&json!({"command": ["true"]})).unwrap();
    assert_eq!((job.name, job.labels.len()), (None, 0));
    let program = Program::Command {
        command: vec!["true".to_owned()],
    };
    assert_eq!(
        job.spec,
        Spec {
            program,
            ..Spec::default()
        }
    );
}

#[test]
fn a_script_gets_a_shell() {
    let job = parse(&json!({"script": "exit 3"})).unwrap();
    assert_eq!(job.spec.program.argv(), ["/bin/sh", "-c", "exit 3"]);
}

#[test]
fn every_field_can_be_set() {
    let job = parse(&full()).unwrap();
    let shown = serde_json::to_value(&job.spec).unwrap();
    let mut expected = full();
    let fields = expected.as_object_mut().unwrap();
    fields.remove("name");
    fields.remove("labels");
    fields.insert("secret_env".into(), json!({"TOKEN": null}));
    fields.insert("cpu_affinity".into(), json!([0, 1]));
    fields.insert("success_exit_codes".into(), json!([0, 3]));
    fields.insert("sandbox".into(), Json::Null);
    fields.insert("webhooks".into(), json!([]));
    fields.insert("ready".into(), Json::Null);
    fields.insert("io_priority".into(), Json::Null);
    fields.insert("timeout_warning".into(), Json::Null);
    fields.insert("workspace".into(), Json::Null);
    fields.insert("inputs".into(), json!([]));
    fields.insert("artifacts".into(), Json::Null);
    fields["rlimits"]["core"] = json!({"soft": 0, "hard": 0});
    assert_eq!(shown, expected);
    assert_eq!(job.name.as_deref(), Some("nightly report"));
    assert_eq!(job.spec.secret_env.0["TOKEN"], "hunter2");
}

fn full() -> Json {
    json!({
        "name": "nightly report", "labels": {"example.org/team": "data", "empty": ""},
        "command": ["/bin/echo", ""], "cwd": "/tmp", "env": {"A": "1"}, "secret_env": {"TOKEN": "hunter2"},
        "env_inherit": ["PATH"], "user": "nobody", "group": 65534, "supplementary_groups": [1, "adm"],
        "umask": "0077", "nice": -20, "oom_score_adj": 1000, "cpu_affinity": [1, 0],
        "rlimits": {"nofile": {"soft": 1024, "hard": "unlimited"}, "core": 0},
        "limits": {"memory_bytes": 1_048_576, "cpu": 0.5, "pids": 1}, "no_new_privs": false,
        "stdin": {"mode": "data", "base64": "aGk="}, "pty": null,
        "output": {"merge_stderr": true, "max_bytes": 4096, "on_limit": "stop_job"},
        "timeout_seconds": 0.5, "stop": {"signal": "SIGINT", "grace_seconds": 0, "scope": "all"},
        "wait_for": "all", "success_exit_codes": [3, 0], "queue": "batch", "priority": -1_000_000,
        "weight": 1_000_000, "concurrency": {"key": "deploy prod", "limit": 3, "policy": "replace"},
        "retry": {
            "max_attempts": 100, "on": ["timeout", "shutdown"], "exit_codes": [75, [100, 110]], "never_exit_codes": [105],
            "backoff": {"initial_seconds": 0.5, "factor": 1.5, "max_seconds": 86_400}, "within_seconds": 60,
        },
        "start_deadline_seconds": 5, "ttl_seconds_after_finished": 60
    })
}

#[test]
fn a_sandbox_can_be_given_in_parts() {
    let with = |sandbox: Json| {
        parse(&json!({"command": ["x"], "sandbox": sandbox})).map(|job| job.spec.sandbox)
    };
    assert_eq!(with(json!({})), Ok(Some(Sandbox::default())));
    let all = json!({"landlock": "default", "seccomp": "off", "writable_paths": ["/a"], "readable_paths": [], "require": true});
    let expected = Sandbox {
        network: job::sandbox::Network::Default,
        landlock: Mechanism::Default,
        seccomp: Mechanism::Off,
        writable_paths: Some(vec!["/a".to_owned()]),
        readable_paths: Some(vec![]),
        require: true,
    };
    assert_eq!(with(all), Ok(Some(expected)));
    let off = json!({"landlock": "off", "seccomp": "off"});
    let body = json!({"command": ["x"], "sandbox": off, "no_new_privs": false});
    assert!(parse(&body).unwrap().spec.sandbox.unwrap().is_off());
}

#[test]
fn null_means_the_default() {
    let mut body = full();
    for (key, value) in body.as_object_mut().unwrap() {
        if key != "command" {
            *value = Json::Null;
        }
    }
    let bare = parse(&json!({"command": ["/bin/echo", ""]})).unwrap();
    assert_eq!(parse(&body).unwrap(), bare);
    let nested = json!({"command": ["/bin/echo", ""], "limits": {"cpu": null}, "output": {"max_bytes": null},
        "stop": {"signal": null, "grace_seconds": null, "scope": null}, "stdin": {"mode": "null", "text": null}});
    assert_eq!(parse(&nested).unwrap(), bare);
}

#[test]
fn every_rule_refuses_with_its_place_and_code() {
    let long = "x".repeat(131_072);
    let many_labels: serde_json::Map<_, _> =
        (0..65).map(|n| (format!("k{n}"), json!(""))).collect();
    let cases = [
        (json!({"comand": []}), "/comand", code::UNKNOWN_FIELD),
        (json!({"a/b~c": 1}), "/a~1b~0c", code::UNKNOWN_FIELD),
        (json!({"retries": null}), "/retries", code::UNKNOWN_FIELD),
        (json!({"command": null}), "/command", code::MISSING),
        (json!({"command": "ls -l"}), "/command", code::WRONG_TYPE),
        (json!({"command": []}), "/command", code::INVALID_VALUE),
        (json!({"command": [""]}), "/command", code::INVALID_VALUE),
        (json!({"command": ["a", 1]}), "/command/1", code::WRONG_TYPE),
        (
            json!({"command": ["a", "\0"]}),
            "/command/1",
            code::INVALID_VALUE,
        ),
        (
            json!({"command": ["a", long]}),
            "/command/1",
            code::TOO_LONG,
        ),
        (
            json!({"command": vec!["a"; 4097]}),
            "/command",
            code::TOO_MANY,
        ),
        (
            json!({"command": vec!["x".repeat(100_000); 11]}),
            "/command",
            code::TOO_LONG,
        ),
        (json!({"script": "x"}), "/script", code::CONFLICT),
        (json!({"shell": ["sh"]}), "/shell", code::CONFLICT),
        (json!({"cwd": "tmp"}), "/cwd", code::INVALID_VALUE),
        (json!({"cwd": ""}), "/cwd", code::INVALID_VALUE),
        (json!({"cwd": "/\0"}), "/cwd", code::INVALID_VALUE),
        (
            json!({"cwd": format!("/{}", "x".repeat(4095))}),
            "/cwd",
            code::TOO_LONG,
        ),
        (json!({"env": []}), "/env", code::WRONG_TYPE),
        (json!({"env": {"A": null}}), "/env/A", code::WRONG_TYPE),
        (json!({"env": {"": "x"}}), "/env/", code::INVALID_VALUE),
        (
            json!({"env": {"a=b": "x"}}),
            "/env/a=b",
            code::INVALID_VALUE,
        ),
        (json!({"env": {"A": "\0"}}), "/env/A", code::INVALID_VALUE),
        (json!({"env": {"A": long}}), "/env/A", code::TOO_LONG),
        (
            json!({"secret_env": {"A": 1}}),
            "/secret_env/A",
            code::WRONG_TYPE,
        ),
        (
            json!({"env": {"A/": "1"}, "secret_env": {"A/": "2"}}),
            "/secret_env/A~1",
            code::CONFLICT,
        ),
        (
            json!({"env_inherit": "all"}),
            "/env_inherit",
            code::INVALID_VALUE,
        ),
        (json!({"env_inherit": 1}), "/env_inherit", code::WRONG_TYPE),
        (
            json!({"env_inherit": ["A="]}),
            "/env_inherit/0",
            code::INVALID_VALUE,
        ),
        (json!({"user": ""}), "/user", code::INVALID_VALUE),
        (json!({"user": true}), "/user", code::WRONG_TYPE),
        (json!({"user": -1}), "/user", code::OUT_OF_RANGE),
        (
            json!({"group": 4_294_967_295_u64}),
            "/group",
            code::OUT_OF_RANGE,
        ),
        (
            json!({"supplementary_groups": vec![1; 65]}),
            "/supplementary_groups",
            code::TOO_MANY,
        ),
        (
            json!({"supplementary_groups": [1.5]}),
            "/supplementary_groups/0",
            code::WRONG_TYPE,
        ),
        (json!({"umask": 22}), "/umask", code::WRONG_TYPE),
        (json!({"umask": "0o22"}), "/umask", code::INVALID_VALUE),
        (json!({"umask": "1000"}), "/umask", code::INVALID_VALUE),
        (json!({"nice": 20}), "/nice", code::OUT_OF_RANGE),
        (json!({"nice": 3.5}), "/nice", code::WRONG_TYPE),
        (json!({"nice": 1e300}), "/nice", code::OUT_OF_RANGE),
        (
            json!({"oom_score_adj": -1001}),
            "/oom_score_adj",
            code::OUT_OF_RANGE,
        ),
        (
            json!({"cpu_affinity": []}),
            "/cpu_affinity",
            code::INVALID_VALUE,
        ),
        (
            json!({"cpu_affinity": [1, 1]}),
            "/cpu_affinity",
            code::INVALID_VALUE,
        ),
        (
            json!({"cpu_affinity": [1024]}),
            "/cpu_affinity/0",
            code::OUT_OF_RANGE,
        ),
        (
            json!({"rlimits": {"rss": 1}}),
            "/rlimits/rss",
            code::UNKNOWN_FIELD,
        ),
        (
            json!({"rlimits": {"cpu": -1}}),
            "/rlimits/cpu",
            code::OUT_OF_RANGE,
        ),
        (
            json!({"rlimits": {"cpu": "infinity"}}),
            "/rlimits/cpu",
            code::INVALID_VALUE,
        ),
        (
            json!({"rlimits": {"cpu": null}}),
            "/rlimits/cpu",
            code::WRONG_TYPE,
        ),
        (
            json!({"rlimits": {"cpu": {"soft": 1}}}),
            "/rlimits/cpu/hard",
            code::MISSING,
        ),
        (
            json!({"rlimits": {"cpu": {"soft": "unlimited", "hard": 1}}}),
            "/rlimits/cpu/soft",
            code::OUT_OF_RANGE,
        ),
        (
            json!({"rlimits": {"cpu": {"soft": 1, "hard": 1, "x": 1}}}),
            "/rlimits/cpu/x",
            code::UNKNOWN_FIELD,
        ),
        (
            json!({"limits": {"memory_bytes": 1_048_575}}),
            "/limits/memory_bytes",
            code::OUT_OF_RANGE,
        ),
        (
            json!({"limits": {"cpu": 0}}),
            "/limits/cpu",
            code::OUT_OF_RANGE,
        ),
        (
            json!({"limits": {"cpu": 1024.5}}),
            "/limits/cpu",
            code::OUT_OF_RANGE,
        ),
        (
            json!({"limits": {"cpu": "1"}}),
            "/limits/cpu",
            code::WRONG_TYPE,
        ),
        (
            json!({"limits": {"pids": 0}}),
            "/limits/pids",
            code::OUT_OF_RANGE,
        ),
        (
            json!({"limits": {"memory": 1}}),
            "/limits/memory",
            code::UNKNOWN_FIELD,
        ),
        (
            json!({"no_new_privs": "yes"}),
            "/no_new_privs",
            code::WRONG_TYPE,
        ),
        (json!({"sandbox": true}), "/sandbox", code::WRONG_TYPE),
        (
            json!({"sandbox": {"seccomp": "on"}}),
            "/sandbox/seccomp",
            code::INVALID_VALUE,
        ),
        (
            json!({"sandbox": {"inaccessible": []}}),
            "/sandbox/inaccessible",
            code::UNKNOWN_FIELD,
        ),
        (
            json!({"sandbox": {"writable_paths": ["/a", "b"]}}),
            "/sandbox/writable_paths/1",
            code::INVALID_VALUE,
        ),
        (
            json!({"sandbox": {"readable_paths": vec!["/a"; 257]}}),
            "/sandbox/readable_paths",
            code::TOO_MANY,
        ),
        (
            json!({"sandbox": {"landlock": "off", "readable_paths": []}}),
            "/sandbox/readable_paths",
            code::CONFLICT,
        ),
        (
            json!({"sandbox": {"landlock": "off"}, "no_new_privs": false}),
            "/no_new_privs",
            code::CONFLICT,
        ),
        (json!({"stdin": "null"}), "/stdin", code::WRONG_TYPE),
        (json!({"stdin": {}}), "/stdin/mode", code::MISSING),
        (
            json!({"stdin": {"mode": "open", "text": "x"}}),
            "/stdin/text",
            code::CONFLICT,
        ),
        (
            json!({"stdin": {"mode": "pipe"}}),
            "/stdin/mode",
            code::INVALID_VALUE,
        ),
        (
            json!({"stdin": {"mode": "null", "text": ""}}),
            "/stdin/text",
            code::CONFLICT,
        ),
        (
            json!({"stdin": {"mode": "data"}}),
            "/stdin/text",
            code::MISSING,
        ),
        (
            json!({"stdin": {"mode": "data", "text": "", "base64": ""}}),
            "/stdin/base64",
            code::CONFLICT,
        ),
        (
            json!({"stdin": {"mode": "data", "base64": "aGk"}}),
            "/stdin/base64",
            code::INVALID_VALUE,
        ),
        (
            json!({"stdin": {"mode": "data", "base64": "_-8="}}),
            "/stdin/base64",
            code::INVALID_VALUE,
        ),
        (json!({"pty": true}), "/pty", code::WRONG_TYPE),
        (json!({"pty": {"rows": 0}}), "/pty/rows", code::OUT_OF_RANGE),
        (
            json!({"pty": {"rows": 4097}}),
            "/pty/rows",
            code::OUT_OF_RANGE,
        ),
        (json!({"pty": {"cols": 0}}), "/pty/cols", code::OUT_OF_RANGE),
        (
            json!({"pty": {"cols": "80"}}),
            "/pty/cols",
            code::WRONG_TYPE,
        ),
        (
            json!({"pty": {"term": ""}}),
            "/pty/term",
            code::INVALID_VALUE,
        ),
        (
            json!({"pty": {"term": "a/b"}}),
            "/pty/term",
            code::INVALID_VALUE,
        ),
        (
            json!({"pty": {"term": "x".repeat(65)}}),
            "/pty/term",
            code::TOO_LONG,
        ),
        (
            json!({"pty": {"width": 80}}),
            "/pty/width",
            code::UNKNOWN_FIELD,
        ),
        (
            json!({"pty": {}, "stdin": {"mode": "data", "text": "x"}}),
            "/stdin",
            code::CONFLICT,
        ),
        (
            json!({"output": {"max_bytes": 4095}}),
            "/output/max_bytes",
            code::OUT_OF_RANGE,
        ),
        (
            json!({"output": {"max_bytes": (1_u64 << 40) + 1}}),
            "/output/max_bytes",
            code::OUT_OF_RANGE,
        ),
        (
            json!({"output": {"on_limit": "drop"}}),
            "/output/on_limit",
            code::INVALID_VALUE,
        ),
        (
            json!({"timeout_seconds": 0}),
            "/timeout_seconds",
            code::OUT_OF_RANGE,
        ),
        (
            json!({"timeout_seconds": -1}),
            "/timeout_seconds",
            code::OUT_OF_RANGE,
        ),
        (
            json!({"timeout_seconds": -1e-12}),
            "/timeout_seconds",
            code::OUT_OF_RANGE,
        ),
        (
            json!({"timeout_seconds": 1e308}),
            "/timeout_seconds",
            code::OUT_OF_RANGE,
        ),
        (
            json!({"timeout_seconds": u64::MAX}),
            "/timeout_seconds",
            code::OUT_OF_RANGE,
        ),
        (
            json!({"timeout_seconds": "1"}),
            "/timeout_seconds",
            code::WRONG_TYPE,
        ),
        (
            json!({"stop": {"signal": "SIGFOO"}}),
            "/stop/signal",
            code::INVALID_VALUE,
        ),
        (
            json!({"stop": {"signal": 0}}),
            "/stop/signal",
            code::INVALID_VALUE,
        ),
        (
            json!({"stop": {"signal": 1.5}}),
            "/stop/signal",
            code::WRONG_TYPE,
        ),
        (
            json!({"stop": {"grace_seconds": -0.1}}),
            "/stop/grace_seconds",
            code::OUT_OF_RANGE,
        ),
        (
            json!({"stop": {"grace_seconds": 86_400.5}}),
            "/stop/grace_seconds",
            code::OUT_OF_RANGE,
        ),
        (
            json!({"stop": {"scope": "session"}}),
            "/stop/scope",
            code::INVALID_VALUE,
        ),
        (
            json!({"wait_for": "none"}),
            "/wait_for",
            code::INVALID_VALUE,
        ),
        (
            json!({"success_exit_codes": []}),
            "/success_exit_codes",
            code::INVALID_VALUE,
        ),
        (
            json!({"success_exit_codes": [0, 0]}),
            "/success_exit_codes",
            code::INVALID_VALUE,
        ),
        (
            json!({"success_exit_codes": [256]}),
            "/success_exit_codes/0",
            code::OUT_OF_RANGE,
        ),
        (json!({"queue": ""}), "/queue", code::INVALID_VALUE),
        (json!({"queue": "a b"}), "/queue", code::INVALID_VALUE),
        (json!({"queue": "q".repeat(64)}), "/queue", code::TOO_LONG),
        (json!({"weight": 0}), "/weight", code::OUT_OF_RANGE),
        (json!({"weight": 1_000_001}), "/weight", code::OUT_OF_RANGE),
        (
            json!({"concurrency": {"limit": 1}}),
            "/concurrency/key",
            code::MISSING,
        ),
        (
            json!({"concurrency": {"key": ""}}),
            "/concurrency/key",
            code::INVALID_VALUE,
        ),
        (
            json!({"concurrency": {"key": "k".repeat(129)}}),
            "/concurrency/key",
            code::TOO_LONG,
        ),
        (
            json!({"concurrency": {"key": "k", "limit": 10_001}}),
            "/concurrency/limit",
            code::OUT_OF_RANGE,
        ),
        (
            json!({"concurrency": {"key": "k", "policy": "wait"}}),
            "/concurrency/policy",
            code::INVALID_VALUE,
        ),
        (
            json!({"priority": 1_000_001}),
            "/priority",
            code::OUT_OF_RANGE,
        ),
        (
            json!({"start_deadline_seconds": 0}),
            "/start_deadline_seconds",
            code::OUT_OF_RANGE,
        ),
        (
            json!({"ttl_seconds_after_finished": 59.9}),
            "/ttl_seconds_after_finished",
            code::OUT_OF_RANGE,
        ),
        (
            json!({"ttl_seconds_after_finished": 315_360_001}),
            "/ttl_seconds_after_finished",
            code::OUT_OF_RANGE,
        ),
        (json!({"name": ""}), "/name", code::INVALID_VALUE),
        (json!({"name": "é".repeat(129)}), "/name", code::TOO_LONG),
        (json!({"name": "a\nb"}), "/name", code::INVALID_VALUE),
        (json!({"labels": many_labels}), "/labels", code::TOO_MANY),
        (
            json!({"labels": {"-": ""}}),
            "/labels/-",
            code::INVALID_VALUE,
        ),
        (
            json!({"labels": {"a/b": "x y"}}),
            "/labels/a~1b",
            code::INVALID_VALUE,
        ),
        (json!({"labels": {"a": 1}}), "/labels/a", code::WRONG_TYPE),
        (
            json!({"labels": {"a": "v".repeat(64)}}),
            "/labels/a",
            code::TOO_LONG,
        ),
    ];
    for (fields, pointer, code) in cases {
        let shown: String = fields.to_string().chars().take(100).collect();
        assert_eq!(
            errors_with(&fields),
            [(pointer.to_owned(), code)],
            "{shown}"
        );
    }
}

#[test]
fn the_program_of_a_script_has_rules_too() {
    for (body, pointer, code) in [
        (
            json!({"script": "x", "shell": []}),
            "/shell",
            code::INVALID_VALUE,
        ),
        (
            json!({"script": "x", "shell": [""]}),
            "/shell",
            code::INVALID_VALUE,
        ),
        (json!({"script": "\0"}), "/script", code::INVALID_VALUE),
        (json!({"script": ["x"]}), "/script", code::WRONG_TYPE),
        (json!({}), "/command", code::MISSING),
    ] {
        assert_eq!(errors(&body), [(pointer.to_owned(), code)], "{body}");
    }
}

#[test]
fn what_is_just_allowed_is_taken() {
    let env = json!({"A": "x".repeat(131_069)});
    for fields in [
        json!({"command": vec!["a"; 4096]}),
        json!({"command": ["a", "x".repeat(131_071)]}),
        json!({"env": env}),
        json!({"name": "é".repeat(128)}),
        json!({"ttl_seconds_after_finished": 315_360_000}),
        json!({"stop": {"grace_seconds": -0.0, "signal": 64}}),
        json!({"limits": {"cpu": 1024}}),
        json!({"group": 4_294_967_294_u32}),
        json!({"rlimits": {"nofile": "unlimited"}}),
    ] {
        let mut body = json!({"command": ["x"]});
        for (key, value) in fields.as_object().unwrap() {
            body[key] = value.clone();
        }
        assert!(parse(&body).is_ok(), "{:?}", parse(&body));
    }
}

#[test]
fn all_errors_are_told_up_to_a_hundred() {
    let two = json!({"nice": 99, "umask": 1, "extra": 1, "stop": {"scope": 1}});
    let mut found = errors(&two);
    found.sort_unstable();
    assert_eq!(
        found,
        [
            ("/command".to_owned(), code::MISSING),
            ("/extra".to_owned(), code::UNKNOWN_FIELD),
            ("/nice".to_owned(), code::OUT_OF_RANGE),
            ("/stop/scope".to_owned(), code::WRONG_TYPE),
            ("/umask".to_owned(), code::WRONG_TYPE),
        ]
    );
    assert_eq!(errors(&json!({"command": vec![1; 4000]})).len(), 100);
    let huge = json!({"command": ["x"], "env": {"=".repeat(500_000): 1}, "secret_env": {"=".repeat(500_000): 1}});
    assert_eq!(errors(&huge).len(), 1);
}

#[test]
fn a_detail_never_repeats_a_secret() {
    let body = json!({"secret_env": {"TOKEN": "hunter2\0"}, "env": {"TOKEN": ["hunter2"]}, "stdin": {"mode": "hunter2"}});
    let shown = format!("{:?}", parse(&body));
    assert!(!shown.contains("hunter2"), "{shown}");
}

#[test]
fn a_repeated_key_is_found_anywhere() {
    let body = r#"{"command": ["x"], "env": {"A": "1", "B": "2", "A": "3"}, "x": [{"a/b": 1, "a/b": 1}], "name": null, "name": "n"}"#;
    let pointers: Vec<_> = parse_text(body)
        .unwrap_err()
        .into_iter()
        .map(|error| (error.pointer, error.code))
        .collect();
    let duplicate = |pointer: &str| (pointer.to_owned(), code::DUPLICATE_FIELD);
    assert_eq!(
        pointers,
        [
            duplicate("/name"),
            duplicate("/env/A"),
            duplicate("/x/0/a~1b")
        ]
    );
}

#[test]
fn what_is_no_json_is_a_syntax_error() {
    let bodies: [&[u8]; 10] = [
        b"",
        b" ",
        b"{",
        b"{}x",
        b"{} {}",
        b"{\"a\": NaN}",
        b"{\"a\": 1e999}",
        b"{'a': 1}",
        b"{\"a\": \"\xff\"}",
        b"{\"a\": \"\\ud800\"}",
    ];
    for body in bodies {
        let error = parse_body(body).unwrap_err();
        assert!(
            matches!(error, BodyError::Syntax { .. }),
            "{body:?}: {error}"
        );
    }
}

#[test]
fn the_top_is_an_object() {
    for body in ["[]", "null", "1", "\"x\""] {
        let error = parse_body(body.as_bytes()).unwrap_err();
        let BodyError::Invalid(errors) = error else {
            panic!("{error}")
        };
        assert_eq!(
            (errors[0].pointer.as_str(), errors[0].code),
            ("", code::WRONG_TYPE)
        );
    }
}

#[test]
fn sixty_four_levels_are_the_most() {
    let nested = |levels: usize| {
        let (open, close) = ("[".repeat(levels - 1), "]".repeat(levels - 1));
        parse_body(format!("{{\"a\": {open}{close}}}").as_bytes()).map(|_| ())
    };
    assert_eq!(nested(64), Ok(()));
    assert_eq!(nested(65), Err(BodyError::TooDeep));
    assert_eq!(
        parse_body("[".repeat(1 << 20).as_bytes()).map(|_| ()),
        Err(BodyError::TooDeep)
    );
}

#[test]
fn a_signal_body_needs_a_signal() {
    let parse = |body: Json| parse_signal_body(&parse_body(body.to_string().as_bytes()).unwrap());
    assert_eq!(
        parse(json!({"signal": "usr1"})),
        Ok(("USR1".parse().unwrap(), Scope::Group))
    );
    assert_eq!(
        parse(json!({"signal": 9, "scope": "all"})),
        Ok((Signal::KILL, Scope::All))
    );
    for (body, pointer, code) in [
        (json!({}), "/signal", code::MISSING),
        (json!({"signal": null}), "/signal", code::MISSING),
        (
            json!({"signal": "9", "scope": 1}),
            "/scope",
            code::WRONG_TYPE,
        ),
        (json!({"signal": 9, "pid": 1}), "/pid", code::UNKNOWN_FIELD),
    ] {
        let errors = parse(body).unwrap_err();
        assert_eq!(
            (errors.len(), errors[0].pointer.as_str(), errors[0].code),
            (1, pointer, code)
        );
    }
}

#[test]
fn many_errors_beneath_a_long_key_are_told_at_once() {
    let repeated = ["\"a\":1"; 50_000].join(",");
    let body = format!("{{\"{}\":{{{repeated}}}}}", "k".repeat(500_000));
    assert_eq!(parse_text(&body).unwrap_err().len(), 1);
}

fn any_json() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<u64>().prop_map(Json::from),
        any::<f64>().prop_map(Json::from),
        ".{0,8}".prop_map(Json::from),
        "(null|data|none|default|group|SIGTERM|0022|/x|unlimited|aGk=)".prop_map(Json::from),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Json::from),
            prop::collection::btree_map(
                "(mode|text|soft|hard|cpu|core|signal|scope|grace_seconds|max_bytes|pids|[A-Z/~=]{0,3})",
                inner,
                0..6
            )
            .prop_map(|map| Json::Object(map.into_iter().collect())),
        ]
    })
}

/// Bodies whose keys are mostly known.
fn any_body() -> impl Strategy<Value = Json> {
    let keys: Vec<String> = full().as_object().unwrap().keys().cloned().collect();
    let key = prop_oneof![9 => prop::sample::select(keys), 1 => ".{0,6}".prop_map(String::from)];
    prop::collection::btree_map(key, any_json(), 0..12)
        .prop_map(|map| Json::Object(map.into_iter().collect()))
}

/// Bodies that are valid: any subset of the fields, with numbers of every size.
fn valid_body() -> impl Strategy<Value = Json> {
    let choices = (
        prop::collection::vec(any::<bool>(), 40),
        (1e-6..3e8_f64, 0.0..86_400_f64, 1e-3..1024_f64, -20..=19_i32),
        (
            ".{0,40}",
            "[a-z]([a-z0-9.-]{0,20}[a-z0-9])?",
            any::<[u8; 3]>(),
        ),
        prop::collection::btree_map("[^=\\x00]{1,5}", "[^\\x00]{0,9}", 0..4),
    );
    choices.prop_map(
        |(keep, (timeout, grace, cpu, nice), (text, word, codes), env)| {
            let mut body = full();
            body["timeout_seconds"] = timeout.into();
            body["stop"]["grace_seconds"] = grace.into();
            body["limits"]["cpu"] = cpu.into();
            body["nice"] = nice.into();
            body["stdin"] = json!({"mode": "data", "text": text});
            body["queue"] = word.clone().into();
            body["labels"] = json!({word: "v"});
            body["success_exit_codes"] =
                json!(codes.into_iter().collect::<std::collections::BTreeSet<_>>());
            body["env"] = json!(env);
            let mut keep = keep.into_iter();
            let fields = body.as_object_mut().unwrap();
            fields.remove("secret_env");
            fields.retain(|key, _| key == "command" || keep.next().unwrap_or(true));
            body
        },
    )
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse_body(&bytes);
    }

    #[test]
    fn no_json_makes_it_panic(body in any_body()) {
        let parsed = parse_body(body.to_string().as_bytes()).unwrap();
        let _ = parse_signal_body(&parsed);
        if let Err(errors) = parse_submission(&parsed, &SpecLimits::default()) {
            prop_assert!(!errors.is_empty());
            for error in errors {
                // What is complained about is there, or is missing from an object that is there.
                let parent = error.pointer.rsplit_once('/').map_or("", |(parent, _)| parent);
                prop_assert!(body.pointer(parent).is_some(), "{}", error.pointer);
            }
        }
    }

    #[test]
    fn a_parsed_spec_survives_the_store(body in valid_body()) {
        let job = parse(&body).unwrap();
        let stored = serde_json::to_string(&job.spec).unwrap();
        prop_assert_eq!(serde_json::from_str::<Spec>(&stored).unwrap(), job.spec, "{}", stored);
    }

    #[test]
    fn what_is_shown_can_be_submitted_again(body in valid_body()) {
        let job = parse(&body).unwrap();
        let mut shown = serde_json::to_value(&job.spec).unwrap();
        shown["name"] = json!(job.name);
        shown["labels"] = json!(job.labels);
        let again = parse(&shown).unwrap();
        // A priority that is shown is given.
        prop_assert_eq!(again, NewJob { has_priority: true, ..job });
    }
}

#[test]
fn a_whole_number_is_an_integer_however_it_is_written() {
    for (text, expected) in [
        ("3.0", Some(3)),
        ("1e1", Some(10)),
        ("-2.0", Some(-2)),
        ("-0.0", Some(0)),
        ("120e-1", Some(12)),
        ("3.5", None),
        ("1e300", None),
        ("-1e-1", None),
    ] {
        let body = format!(r#"{{"command": ["true"], "nice": {text}}}"#);
        let body = parse_body(body.as_bytes()).unwrap();
        let nice = parse_submission(&body, &SpecLimits::default()).map(|new| new.spec.nice);
        assert_eq!(nice.ok().flatten(), expected, "{text}");
    }
}

#[test]
fn the_least_time_that_is_more_than_zero_is_more_than_zero() {
    let body = parse_body(br#"{"command": ["true"], "timeout_seconds": 5e-324}"#).unwrap();
    let new = parse_submission(&body, &SpecLimits::default()).unwrap();
    assert_eq!(new.spec.timeout, Some(Duration::from_nanos(1)));
}
