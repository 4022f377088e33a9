//! Templates, their parameters, and what the policy admits.

use std::os::unix::fs::{PermissionsExt, symlink};

use proptest::prelude::*;

use super::*;
use job::queue::{Concurrency, OnConflict};

const BACKUP: &str = r#"
[template.backup]
command = ["/usr/bin/backup", "--level", "{level}", "--kind", "{kind}", "--tag", "{tag}", "{}"]
[template.backup.params]
level = { type = "integer", min = -1, max = 9 }
kind = { type = "enum", values = ["full", "-i"] }
tag = { type = "pattern", pattern = "[a-z]{1,8}|-?[0-9]+" }
[template.backup.spec]
timeout_seconds = 60
user = "nobody"
env = { LANG = "C" }

[template.twice]
command = ["/bin/echo", "{a}", "{a}"]
params.a = { type = "pattern", pattern = "." }
"#;

fn request(template: &str, params: &[(&str, Argument)]) -> TemplateRequest {
    TemplateRequest {
        template: template.to_owned(),
        params: params
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.clone()))
            .collect(),
        name: None,
        labels: BTreeMap::new(),
        run_at: None,
        hold: false,
        depends_on: Vec::new(),
        turn: Turn::default(),
    }
}

fn text(text: &str) -> Argument {
    Argument::Text(text.to_owned())
}

fn good() -> [(&'static str, Argument); 3] {
    [
        ("level", Argument::Integer(3)),
        ("kind", text("full")),
        ("tag", text("nightly")),
    ]
}

fn command(spec: &Spec) -> &[String] {
    match &spec.program {
        Program::Command { command } => command,
        Program::Script { .. } => panic!("a template has no script"),
    }
}

#[test]
fn a_template_makes_a_job_and_the_policy_admits_it() {
    let policy = Policy::parse(BACKUP).unwrap();
    let new = policy.job(request("backup", &good())).unwrap();
    assert_eq!(
        command(&new.spec),
        [
            "/usr/bin/backup",
            "--level",
            "3",
            "--kind",
            "full",
            "--tag",
            "nightly",
            "{}"
        ]
    );
    assert_eq!(new.spec.timeout.unwrap().as_secs(), 60);
    assert!(policy.admits(&new.spec));
}

#[test]
fn a_client_says_where_its_job_waits_unless_the_template_does() {
    let policy = Policy::parse(
        "[template.free]\ncommand = [\"/bin/true\", \"free\"]\n\
         [template.fixed]\ncommand = [\"/bin/true\", \"fixed\"]\n\
         spec = { queue = \"backup\", concurrency = { key = \"disk\" } }\n",
    )
    .unwrap();
    let key = |key: &str| {
        let (limit, policy) = (1, OnConflict::Queue);
        let key = key.to_owned();
        Some(Concurrency { key, limit, policy })
    };
    let turn = Turn {
        queue: Some("night".to_owned()),
        priority: Some(0),
        weight: Some(2),
        concurrency: key("mine"),
    };
    let job = |template: &str, turn: &Turn| {
        let turn = turn.clone();
        policy.job(TemplateRequest {
            turn,
            ..request(template, &[])
        })
    };
    let free = job("free", &turn).unwrap();
    assert_eq!(Turn::of(&free.spec), turn);
    assert!(free.has_priority && policy.admits(&free.spec));
    // Without a priority it gets that of its queue.
    let plain = job("free", &Turn::default()).unwrap();
    assert!(!plain.has_priority);
    let Err(TemplateError::Invalid(errors)) = job("fixed", &turn) else {
        panic!("the template says its queue and its key");
    };
    let told: Vec<_> = errors
        .iter()
        .map(|it| (it.pointer.as_str(), it.code))
        .collect();
    let conflict = code::CONFLICT;
    assert_eq!(told, [("/queue", conflict), ("/concurrency", conflict)]);
    let open = Turn {
        queue: None,
        concurrency: None,
        ..turn
    };
    let fixed = job("fixed", &open).unwrap().spec;
    assert_eq!((fixed.queue.as_str(), fixed.weight), ("backup", 2));
    assert!(policy.admits(&fixed));
    let with = |change: &dyn Fn(&mut Spec)| {
        let mut spec = fixed.clone();
        change(&mut spec);
        policy.admits(&spec)
    };
    assert!(with(&|spec| spec.priority = 7));
    assert!(!with(&|spec| spec.queue = "night".to_owned()));
    assert!(!with(&|spec| spec.concurrency = None));
    assert!(!with(&|spec| spec.concurrency = key("mine")));
}

#[test]
fn a_job_that_no_template_makes_is_not_admitted() {
    let policy = Policy::parse(BACKUP).unwrap();
    let made = policy.job(request("backup", &good())).unwrap().spec;
    let with = |change: &dyn Fn(&mut Spec)| {
        let mut spec = made.clone();
        change(&mut spec);
        policy.admits(&spec)
    };
    let with_word = |index: usize, word: &str| {
        with(&|spec| {
            let mut command = command(spec).to_vec();
            command[index] = word.to_owned();
            spec.program = Program::Command { command };
        })
    };
    assert!(with_word(2, "4") && with_word(2, "-1") && with_word(4, "-i"));
    for (index, word) in [
        (0, "/bin/sh"),
        (1, "--leve"),
        (2, "10"),
        (2, "+3"),
        (2, "03"),
        (2, " 3"),
        (4, "FULL"),
        (6, "nightly\n"),
        (6, "-7"),
        (6, "a b"),
        (7, ""),
    ] {
        assert!(!with_word(index, word), "{index} {word:?}");
    }
    assert!(!with(&|spec| spec.timeout = None));
    assert!(!with(&|spec| spec.user = None));
    assert!(!with(&|spec| spec.no_new_privs = false));
    assert!(!with(&|spec| drop(
        spec.env.insert("LD_PRELOAD".to_owned(), "/x".to_owned())
    )));
    assert!(!with(&|spec| {
        let mut command = command(spec).to_vec();
        command.push("more".to_owned());
        spec.program = Program::Command { command };
    }));
    assert!(!with(&|spec| spec.program = Program::Script {
        script: "true".to_owned(),
        shell: vec!["/bin/sh".to_owned(), "-c".to_owned()],
    }));
    let twice = policy
        .job(request("twice", &[("a", text("x"))]))
        .unwrap()
        .spec;
    assert!(policy.admits(&twice));
    let differing = Spec {
        program: Program::Command {
            command: ["/bin/echo", "x", "y"].map(str::to_owned).to_vec(),
        },
        ..twice
    };
    assert!(!policy.admits(&differing));
}

#[test]
fn parameters_are_checked_each_by_its_type() {
    let policy = Policy::parse(BACKUP).unwrap();
    for (name, value, code) in [
        ("level", Argument::Integer(10), "out_of_range"),
        ("level", Argument::Integer(-2), "out_of_range"),
        ("level", text("3"), "wrong_type"),
        ("kind", Argument::Integer(1), "wrong_type"),
        ("kind", text("ful"), "invalid_value"),
        ("tag", text("nightly; reboot"), "invalid_value"),
        ("tag", text("nightly\n"), "invalid_value"),
        ("tag", text("-7"), "invalid_value"),
        ("tag", text(""), "invalid_value"),
        ("tag", text(&"7".repeat(4097)), "too_long"),
        ("new", text("x"), "unknown_field"),
    ] {
        let mut request = request("backup", &good());
        request.params.insert(name.to_owned(), value.clone());
        let Err(TemplateError::Invalid(errors)) = policy.job(request) else {
            panic!("{name} {value:?} was taken");
        };
        let found: Vec<_> = errors
            .iter()
            .map(|e| (e.pointer.as_str(), e.code))
            .collect();
        assert_eq!(found, [(format!("/params/{name}").as_str(), code)]);
    }
    let Err(TemplateError::Invalid(errors)) = policy.job(request("backup", &[])) else {
        panic!("parameters may be missing");
    };
    assert_eq!(errors.len(), 3);
    let none = policy.job(request("restore", &good()));
    assert_eq!(none.map(drop), Err(TemplateError::NoSuchTemplate));
}

#[test]
fn a_path_stays_beneath_its_root() {
    let dir = tempfile::tempdir().unwrap();
    let base = fs_path(dir.path());
    let root = format!("{base}/root");
    std::fs::create_dir_all(format!("{root}/inside")).unwrap();
    std::fs::create_dir(format!("{base}/root2")).unwrap();
    symlink("/etc", format!("{root}/out")).unwrap();
    symlink("inside", format!("{root}/in")).unwrap();
    symlink("nowhere", format!("{root}/dangling")).unwrap();
    let policy = Policy::parse(&format!(
        "[template.t]\ncommand = [\"/bin/ls\", \"{{p}}\"]\nparams.p = {{ type = \"path\", beneath = \"{root}\" }}"
    ))
    .unwrap();
    let takes = |path: &str| {
        let made = policy.job(request("t", &[("p", text(path))]));
        made.is_ok_and(|new| policy.admits(&new.spec))
    };
    for good in [
        "/inside",
        "/inside/new",
        "/new/newer",
        "/in/x",
        "/...",
        "/-rf",
    ] {
        assert!(takes(&format!("{root}{good}")), "{good}");
    }
    for bad in [
        "",
        "/",
        "/inside/",
        "//inside",
        "/../root2",
        "/inside/../../x",
        "/./inside",
        "/..",
        "/out",
        "/out/passwd",
        "/out/new",
        "2",
        "2/x",
        "/dangling",
        "/dangling/x",
    ] {
        assert!(!takes(&format!("{root}{bad}")), "{bad}");
    }
    for bad in ["inside", "/etc/passwd", "", "-rf", &format!("{root}/a\0b")] {
        assert!(!takes(bad), "{bad}");
    }
}

fn fs_path(path: &Path) -> String {
    path.canonicalize().unwrap().to_str().unwrap().to_owned()
}

#[test]
fn a_bad_policy_is_refused_in_one_line() {
    for (policy, expected) in [
        ("", "missing field"),
        ("[template.a]\n", "line 1: missing field `command`"),
        ("[template.a]\ncommand = []", "absolute path"),
        ("[template.a]\ncommand = [\"ls\"]", "absolute path"),
        (
            "[template.a]\ncommand = [\"{p}\"]\nparams.p = { type = \"enum\", values = [\"/bin/sh\"] }",
            "absolute path",
        ),
        (
            "[template.a]\ncommand = [\"/bin/ls\", \"{p}\"]",
            "is no parameter",
        ),
        (
            "[template.a]\ncommand = [\"/bin/ls\", \"--x={p}\"]\nparams.p = { type = \"integer\", min = 0, max = 1 }",
            "whole argument",
        ),
        (
            "[template.a]\ncommand = [\"/bin/ls\"]\nparams.p = { type = \"integer\", min = 0, max = 1 }",
            "is not used",
        ),
        (
            "[template.a]\ncommand = [\"/bin/ls\", \"{p}\"]\nparams.p = { type = \"integer\", min = 2, max = 1 }",
            "min",
        ),
        (
            "[template.a]\ncommand = [\"/bin/ls\", \"{p}\"]\nparams.p = { type = \"integer\", min = 0, max = 1, step = 2 }",
            "unknown field",
        ),
        (
            "[template.a]\ncommand = [\"/bin/ls\", \"{p}\"]\nparams.p = { type = \"text\" }",
            "unknown variant",
        ),
        (
            "[template.a]\ncommand = [\"/bin/ls\", \"{p}\"]\nparams.p = { type = \"enum\", values = [] }",
            "at least one",
        ),
        (
            "[template.a]\ncommand = [\"/bin/ls\", \"{p}\"]\nparams.p = { type = \"pattern\", pattern = \"a)|(b\" }",
            "pattern:",
        ),
        (
            "[template.a]\ncommand = [\"/bin/ls\", \"{p}\"]\nparams.p = { type = \"pattern\", pattern = \"(?x)a #\" }",
            "pattern:",
        ),
        (
            "[template.a]\ncommand = [\"/bin/ls\", \"{p}\"]\nparams.p = { type = \"pattern\", pattern = \"(a{1000}){1000}\" }",
            "pattern:",
        ),
        (
            "[template.a]\ncommand = [\"/bin/ls\", \"{p}\"]\nparams.p = { type = \"path\", beneath = \"/\" }",
            "beneath",
        ),
        (
            "[template.a]\ncommand = [\"/bin/ls\", \"{p}\"]\nparams.p = { type = \"path\", beneath = \"/srv/../etc\" }",
            "beneath",
        ),
        (
            "[template.a]\ncommand = [\"/bin/ls\"]\nspec.script = \"x\"",
            "must not have \"script\"",
        ),
        (
            "[template.a]\ncommand = [\"/bin/ls\"]\nspec.timeout = 1",
            "/timeout: did you mean timeout_seconds?",
        ),
        (
            "[template.a]\ncommand = [\"/bin/ls\"]\nshell = true",
            "unknown field",
        ),
        ("[template.\"a b\"]\ncommand = [\"/bin/ls\"]", "a name has"),
    ] {
        let error = Policy::parse(policy).unwrap_err();
        assert!(error.contains(expected), "{policy}\n{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}

#[test]
fn a_policy_that_others_can_write_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("policy.toml");
    std::fs::write(&path, BACKUP).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o664)).unwrap();
    assert!(Policy::read(&path).unwrap_err().contains("chmod go-w"));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(Policy::read(&path).unwrap().len(), 2);
    assert!(Policy::read(&dir.path().join("none")).is_err());
}

proptest! {
    #[test]
    fn a_value_is_never_more_than_one_argument(level in any::<i64>(), kind in ".*", tag in ".*") {
        let policy = Policy::parse(BACKUP).unwrap();
        let params = [("level", Argument::Integer(level)), ("kind", text(&kind)), ("tag", text(&tag))];
        if let Ok(new) = policy.job(request("backup", &params)) {
            prop_assert_eq!(command(&new.spec).len(), 8);
            prop_assert!(policy.admits(&new.spec));
        }
    }

    #[test]
    fn what_matches_the_type_is_taken(level in -1_i64..=9, tag in "[a-z]{1,8}") {
        let policy = Policy::parse(BACKUP).unwrap();
        let params = [("level", Argument::Integer(level)), ("kind", text("-i")), ("tag", text(&tag))];
        let new = policy.job(request("backup", &params)).unwrap();
        prop_assert_eq!(command(&new.spec)[6].as_str(), tag);
    }
}

#[test]
fn a_template_is_described_with_its_parameters_as_a_schema() {
    let policy = Policy::parse(
        r#"
        [template.deploy]
        command = ["/opt/deploy", "{env}", "--level", "{level}", "{host}", "{file}", "{env}"]
        params.level = { type = "integer", min = 1, max = 9 }
        params.env = { type = "enum", values = ["prod", "test"] }
        params.host = { type = "pattern", pattern = "[a-z]+" }
        params.file = { type = "path", beneath = "/srv/data" }
        "#,
    )
    .unwrap();
    let described = policy.described();
    assert_eq!(described.len(), 1);
    let template = &described[0];
    assert_eq!(template.name, "deploy");
    assert_eq!(
        template.command,
        [
            "/opt/deploy",
            "{env}",
            "--level",
            "{level}",
            "{host}",
            "{file}",
            "{env}"
        ]
    );
    let schema = &template.params;
    assert_eq!(
        schema["required"],
        serde_json::json!(["env", "level", "host", "file"])
    );
    let validator = jsonschema::validator_for(schema).unwrap();
    let with = |name: &str, value: serde_json::Value| {
        let mut params =
            serde_json::json!({"level": 3, "env": "prod", "host": "a", "file": "/srv/data/x"});
        params[name] = value;
        params
    };
    assert!(validator.is_valid(&with("level", 9.into())));
    for (name, wrong) in [
        ("level", 10.into()),
        ("level", "3".into()),
        ("env", "staging".into()),
        ("host", "a1".into()),
        ("other", 1.into()),
    ] {
        assert!(!validator.is_valid(&with(name, wrong)), "{name}");
    }
}
