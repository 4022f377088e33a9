//! Precedence, rules and messages of the settings.

use clap::Parser;

use super::settings::{CONFIG_FILE, Preset, Setting};
use super::*;

#[derive(Debug, Parser)]
struct Serve {
    #[command(flatten)]
    args: ServeArgs,
}

fn args(flags: &[&str]) -> ServeArgs {
    let line = ["serve"].iter().chain(flags);
    Serve::try_parse_from(line).unwrap().args
}

fn surroundings() -> Surroundings {
    Surroundings {
        owns_system_dir: false,
        otel: Vec::new(),
        is_root: false,
        home: Some("/home/ada".into()),
        state_home: None,
        current_dir: "/srv".into(),
    }
}

fn with_flags(flags: &[&str]) -> Result<Config, ConfigErrors> {
    resolve(&args(flags), None, &surroundings())
}

fn with_file(flags: &[&str], text: &str) -> Result<Config, ConfigErrors> {
    resolve(
        &args(flags),
        Some((Path::new("/etc/p.toml"), text)),
        &surroundings(),
    )
}

#[test]
fn without_settings_the_defaults_hold() {
    let config = with_flags(&[]).unwrap();
    assert_eq!(
        config,
        Config {
            listen: "127.0.0.1:8080".parse().unwrap(),
            state_dir: "/home/ada/.local/state/procession".into(),
            auth: Auth::Token,
            tls: None,
            policy: None,
            max_connections: 1024,
            max_streams: 256,
            mcp: true,
            keep_alive: Duration::from_secs(75),
            max_running: 256,
            max_queued: 100_000,
            max_finished: 1_000_000,
            max_events: 100_000,
            metrics_labels: Vec::new(),
            otlp: None,
            webhook_allow_private: false,
            on_shutdown: None,
            shutdown_grace: Duration::from_secs(8),
            min_free_bytes: 1 << 30,
            max_body_bytes: 1 << 20,
            max_upload_bytes: 1 << 30,
            max_workspace_bytes: 10 << 30,
            max_workspaces_bytes: u64::MAX,
            log_format: None,
            log_level: LogLevel::Info,
            deny_root_jobs: false,
            sandbox: Baseline::Off,
            work_dir: "/home/ada/.local/state/procession/work".into(),
            workspaces_dir: "/home/ada/.local/state/procession/workspaces".into(),
            allowed_hosts: Vec::new(),
            part: Part::Alone,
            ledger: None,
        }
    );
    assert_eq!(config.on_shutdown(true), OnShutdown::Stop);
    assert_eq!(config.on_shutdown(false), OnShutdown::Leave);
}

#[test]
fn every_setting_can_be_given_by_flag_and_by_file() {
    let flags = [
        "--listen=[::1]:0",
        "--state-dir=s",
        "--auth=none",
        "--tls-cert=c.pem",
        "--tls-key=k.pem",
        "--tls-client-ca=ca.pem",
        "--policy=p.toml",
        "--max-connections=2",
        "--max-streams=3",
        "--mcp=off",
        "--keep-alive-seconds=9",
        "--max-running=1",
        "--max-queued=0",
        "--max-finished=5",
        "--max-events=600",
        "--on-shutdown=stop",
        "--shutdown-grace-seconds=0.5",
        "--min-free-bytes=0",
        "--max-body-bytes=2048",
        "--max-upload-bytes=4096",
        "--max-workspace-bytes=8192",
        "--max-workspaces-bytes=16384",
        "--log-format=json",
        "--log-level=trace",
        "--deny-root-jobs",
        "--sandbox=require",
        "--webhook-allow-private",
        "--otlp-endpoint=http://c:4318",
        "--otlp-label=team",
        "--metrics-label=team",
        "--metrics-label=example.org/tier",
        "--work-dir=/w",
        "--workspaces-dir=/v",
        "--allowed-host=A.example",
        "--allowed-host=b.example",
        "--cluster=off",
        "--role=all",
        "--join=https://hub",
        "--join-token-file=t",
        "--join-ca=hub.pem",
        "--node-name=n1",
        "--node-lost-after-seconds=60",
        "--cluster-key-file=",
        "--advertise=",
        "--api-takeover-seconds=5",
        "--node-label=gpu=a100",
        "--node-label=zone=",
        "--placement=pack",
    ];
    let file = r#"
        listen = "[::1]:0"
        state_dir = "s"
        auth = "none"
        tls_cert = "c.pem"
        tls_key = "k.pem"
        tls_client_ca = "ca.pem"
        policy = "p.toml"
        max_connections = 2
        max_streams = 3
        mcp = "off"
        keep_alive_seconds = 9
        max_running = 1
        max_queued = 0
        max_finished = 5
        max_events = 600
        on_shutdown = "stop"
        shutdown_grace_seconds = 0.5
        min_free_bytes = 0
        max_body_bytes = "2K"
        max_upload_bytes = 4096
        max_workspace_bytes = 8192
        max_workspaces_bytes = 16384
        log_format = "json"
        log_level = "trace"
        deny_root_jobs = true
        sandbox = "require"
        webhook_allow_private = true
        otlp_endpoint = "http://c:4318"
        otlp_label = ["team"]
        metrics_label = ["team", "example.org/tier"]
        work_dir = "/w"
        workspaces_dir = "/v"
        allowed_host = ["A.example", "b.example"]
        cluster = "off"
        role = "all"
        join = "https://hub"
        join_token_file = "t"
        join_ca = "hub.pem"
        node_name = "n1"
        node_lost_after_seconds = "1min"
        cluster_key_file = ""
        advertise = ""
        api_takeover_seconds = "5s"
        node_label = ["gpu=a100", "zone="]
        placement = "pack"
    "#;
    let by_flags = with_flags(&flags).unwrap();
    assert_eq!(by_flags.state_dir, Path::new("/srv/s"));
    assert_eq!(by_flags.allowed_hosts, ["a.example", "b.example"]);
    assert_eq!(by_flags.on_shutdown(false), OnShutdown::Stop);
    assert_eq!(by_flags.metrics_labels, ["team", "example.org/tier"]);
    assert_eq!(by_flags.otlp.as_ref().unwrap().labels, ["team"]);
    assert!(by_flags.deny_root_jobs);
    assert_eq!(by_flags.sandbox, Baseline::Require);
    let target = ::cluster::Target {
        urls: vec!["https://hub".to_owned()],
        token_file: "/srv/t".into(),
        ca: Some("/srv/hub.pem".into()),
    };
    let labels = [
        ("gpu", "a100"),
        ("zone", ""),
        ("procession/name", "n1"),
        ("procession/arch", std::env::consts::ARCH),
    ];
    let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let part = Part::Node("n1".parse().unwrap(), target, labels.into());
    assert_eq!(by_flags.part, part);
    assert_eq!(by_flags.policy.as_deref(), Some(Path::new("/srv/p.toml")));
    let tls = by_flags.tls.clone().unwrap();
    assert_eq!(tls.client_ca.as_deref(), Some(Path::new("/srv/ca.pem")));
    assert_eq!(with_file(&[], file).unwrap(), by_flags);
    for setting in SETTINGS {
        assert!(
            file.contains(&format!("{} = ", setting.key)),
            "{}",
            setting.key
        );
    }
}

#[test]
fn a_flag_wins_over_the_file() {
    let file = "max_running = 7\nmax_queued = 7\ndeny_root_jobs = true\nallowed_host = \"a\"";
    let config = with_file(
        &[
            "--max-running",
            "9",
            "--deny-root-jobs=false",
            "--allowed-host=b,c",
        ],
        file,
    )
    .unwrap();
    assert_eq!((config.max_running, config.max_queued), (9, 7));
    assert!(!config.deny_root_jobs);
    assert_eq!(config.allowed_hosts, ["b", "c"]);
}

#[test]
fn the_state_directory_depends_on_who_runs_the_service() {
    let state_dir = |surroundings: &Surroundings| {
        resolve(&ServeArgs::default(), None, surroundings).map(|config| config.state_dir)
    };
    let with_xdg = |path: &str| Surroundings {
        state_home: Some(path.into()),
        ..surroundings()
    };
    assert_eq!(
        state_dir(&with_xdg("/x")).unwrap(),
        Path::new("/x/procession")
    );
    assert_eq!(
        state_dir(&with_xdg("x")).unwrap(),
        Path::new("/home/ada/.local/state/procession")
    );
    let root = Surroundings {
        is_root: true,
        ..with_xdg("/x")
    };
    assert_eq!(state_dir(&root).unwrap(), Path::new("/var/lib/procession"));
    assert_eq!(
        state_dir(&Surroundings::default()),
        Err(ConfigError::NoStateDir.into())
    );
}

#[test]
fn without_auth_the_address_is_loopback() {
    for listen in ["127.0.0.1:0", "127.8.8.8:1", "[::1]:80"] {
        assert!(
            with_flags(&["--auth=none", "--listen", listen]).is_ok(),
            "{listen}"
        );
    }
    for listen in [
        "0.0.0.0:80",
        "[::]:80",
        "192.0.2.1:80",
        "[::ffff:127.0.0.1]:80",
    ] {
        let error = with_flags(&["--auth=none", "--listen", listen]).unwrap_err();
        assert!(
            matches!(error.0.as_slice(), [ConfigError::OpenToNetwork { .. }]),
            "{listen}: {error}"
        );
        assert!(with_flags(&["--listen", listen]).is_ok(), "{listen}");
    }
}

#[test]
fn a_certificate_and_its_key_go_together() {
    for (flags, missing) in [
        (&["--tls-cert=c"][..], "--tls-key"),
        (&["--tls-key=k"], "--tls-cert"),
        (&["--tls-client-ca=a"], "--tls-cert"),
        (&["--tls-client-ca=a", "--tls-cert=c"], "--tls-key"),
    ] {
        assert_eq!(
            with_flags(flags),
            Err(ConfigError::HalfOfTls { missing }.into())
        );
    }
    assert!(with_flags(&["--tls-cert=c", "--tls-key=k"]).is_ok());
}

#[test]
fn what_is_not_allowed_is_refused_with_its_origin() {
    for flag in [
        "--listen=localhost:80",
        "--listen=127.0.0.1",
        "--listen=",
        "--state-dir=",
        "--auth=",
        "--auth=None",
        "--tls-cert=",
        "--tls-key=",
        "--tls-client-ca=",
        "--policy=",
        "--max-connections=0",
        "--max-running=0",
        "--max-running=100001",
        "--max-running=1e3",
        "--max-queued=-1",
        "--on-shutdown=kill",
        "--shutdown-grace-seconds=-1",
        "--shutdown-grace-seconds=NaN",
        "--shutdown-grace-seconds=inf",
        "--min-free-bytes=1X",
        "--max-body-bytes=1023",
        "--log-format=xml",
        "--log-level=loud",
        "--deny-root-jobs=maybe",
        "--work-dir=",
        "--allowed-host=http://a",
        "--allowed-host=a:80",
        "--allowed-host=",
    ] {
        let error = with_flags(&[flag]).unwrap_err().to_string();
        let name = flag.split('=').next().unwrap();
        assert!(error.starts_with(&format!("{name}: must be")), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}

#[test]
fn a_bad_file_is_refused_in_one_line() {
    for (file, expected) in [
        (
            "max_running = \"\"",
            "\"/etc/p.toml\", line 1, max_running: must be an integer from 1 to 100000, not \"\"",
        ),
        (
            "listen = [\"x\"]",
            "\"/etc/p.toml\", line 1, listen: must be a string or a number, not",
        ),
        (
            "auth = 2026-01-01",
            "\"/etc/p.toml\", line 1, auth: must be",
        ),
        (
            "[allowed_host]\na = \"b\"",
            "\"/etc/p.toml\", line 1, allowed_host: must be an array of strings",
        ),
        (
            "max-running = 1",
            "\"/etc/p.toml\", line 1: unknown key \"max-running\"; did you mean max_running?",
        ),
        (
            "config = \"x\"",
            "\"/etc/p.toml\", line 1: unknown key \"config\"",
        ),
        (
            "[serve]\nlisten = \"x\"",
            "\"/etc/p.toml\", line 1: unknown key \"serve\"",
        ),
        ("\n\nlisten = ", "\"/etc/p.toml\", line 3: not valid TOML: "),
        (
            "listen = \"a\"\nlisten = \"b\"",
            "\"/etc/p.toml\", line 2: not valid TOML: ",
        ),
    ] {
        let error = with_file(&[], file).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}

#[test]
fn every_mistake_is_named_at_once() {
    let file = "max_runing = 1\n\nlog_level = \"loud\"\nauth = 7\nmax_queued = -1\n";
    let error = with_file(&["--listen=x", "--tls-key=k"], file).unwrap_err();
    let text = error.to_string();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "6 settings are wrong", "{text}");
    for part in [
        "  \"/etc/p.toml\", line 1: unknown key \"max_runing\"; did you mean max_running?",
        "  \"/etc/p.toml\", line 3, log_level: must be",
        "  \"/etc/p.toml\", line 4, auth: must be",
        "  \"/etc/p.toml\", line 5, max_queued: must be",
        "  --listen: must be",
        "  --tls-cert and --tls-key go together",
    ] {
        let found = lines.iter().filter(|line| line.starts_with(part)).count();
        assert_eq!(found, 1, "{part}: {text}");
    }
}

#[test]
fn a_variable_that_is_no_setting_is_named() {
    let remarks = |names: &[&str]| unknown_variables(names.iter().map(Into::into));
    assert_eq!(
        remarks(&["PROCESSION_MAX_RUNING", "HOME"]),
        [
            "the variable PROCESSION_MAX_RUNING is ignored: there is no such setting; \
             did you mean PROCESSION_MAX_RUNNING?"
        ]
    );
    let mut known: Vec<&str> = SETTINGS.iter().map(|setting| setting.env).collect();
    known.extend([
        "PROCESSION_CONFIG",
        "PROCESSION_TOKEN",
        "PROCESSION_JOB_ID",
        "PROCESSION_SCHEDULE",
        "PROCESSION_DUE_AT",
    ]);
    // Of Kubernetes, in a namespace with a service of this name.
    known.extend(["PROCESSION_SERVICE_HOST", "PROCESSION_PORT_8080_TCP_ADDR"]);
    assert!(remarks(&known).is_empty(), "{:?}", remarks(&known));
}

#[test]
fn a_missing_file_is_refused() {
    let error = load(&args(&["--config", "no/such.toml"]), &surroundings()).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("cannot read the configuration file \"/srv/no/such.toml\": "),
        "{error}"
    );
}

#[test]
fn the_names_of_a_setting_agree() {
    for setting in SETTINGS.iter().chain([&CONFIG_FILE]) {
        assert_eq!(setting.flag, format!("--{}", setting.key.replace('_', "-")));
        assert_eq!(
            setting.env,
            format!("PROCESSION_{}", setting.key.to_uppercase())
        );
        assert!(setting.what.ends_with('.'), "{}", setting.key);
        assert!(readme_row(setting).starts_with(&format!("| `{}", setting.flag)));
    }
}

#[test]
fn the_arguments_are_well_formed_and_read_the_environment() {
    use clap::{Args, CommandFactory};
    Serve::command().debug_assert();
    let command = ServeArgs::augment_args(clap::Command::new("serve"));
    for setting in SETTINGS.iter().chain([&CONFIG_FILE]) {
        let arg = command
            .get_arguments()
            .find(|arg| arg.get_id() == setting.key)
            .unwrap();
        assert_eq!(arg.get_env(), Some(std::ffi::OsStr::new(setting.env)));
    }
    let help = Serve::command().render_help().to_string();
    assert!(
        help.contains("--max-running <N>") && help.contains("[default: 256]"),
        "{help}"
    );
}

/// The setting as a row of README's table.
fn readme_row(setting: &Setting) -> String {
    let space = if setting.value.is_empty() { "" } else { " " };
    let default = match setting.default {
        Preset::Value(value) => format!("`{value}`"),
        Preset::Rule(rule) => rule.to_owned(),
    };
    format!(
        "| `{}{space}{}` | `{}` | {default} | {} |",
        setting.flag,
        // A bar would end the cell.
        setting.value.replace('|', "\\|"),
        setting.env,
        setting.what
    )
}

#[test]
fn the_packaged_configuration_shows_every_setting_with_its_default() {
    let text = include_str!("../../packaging/config.toml");
    assert_eq!(with_file(&[], text), with_file(&[], ""), "nothing is set");
    for setting in SETTINGS {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(&format!("#{} = ", setting.key)));
        let shown = line
            .unwrap_or_else(|| panic!("no {}", setting.key))
            .trim_matches('"');
        let before = text
            .lines()
            .filter(|line| *line == format!("# {}", setting.what));
        assert_eq!(before.count(), 1, "what {} does", setting.key);
        if let Preset::Value(default) = setting.default {
            assert_eq!(shown, default, "{}", setting.key);
        }
    }
    // What is shown can be set.
    let set: String = text
        .lines()
        .filter_map(|line| line.strip_prefix('#').filter(|line| !line.starts_with(' ')))
        .map(|line| format!("{line}\n"))
        .collect();
    with_file(&[], &set).unwrap();
}
