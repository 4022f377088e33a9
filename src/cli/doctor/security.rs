//! How safe the service is with these settings, on this machine, as this user. PURE.

use super::machine::Machine;
use super::{Say, Verdict};
use crate::config::Config;
use http::connections::Auth;
use http::tokens::Access;
use job::sandbox::{Baseline, Features, Sandbox};
use protocol::state_dir::SYSTEM_STATE_DIR;

/// How safe the service is.
pub(super) fn examine(config: &Config, machine: &Machine, say: &mut Say<'_>) {
    listener(config, machine, say);
    match config.auth {
        Auth::Token => say("auth", Verdict::Good, "bearer token".to_owned()),
        Auth::None => say(
            "auth",
            Verdict::Insecure,
            "none: every local user may run commands as this one; use --auth token".to_owned(),
        ),
    }
    state(machine, say);
    tokens(machine, say);
    commands(machine, say);
    jobs(config, machine, say);
    containment(machine, say);
    sandbox(config.sandbox, machine.features, say);
}

fn listener(config: &Config, machine: &Machine, say: &mut Say<'_>) {
    let listen = config.listen;
    let (verdict, text) = match (&machine.tls, listen.ip().is_loopback()) {
        (Some(Ok(())), _) => {
            let tls = config.tls.as_ref();
            let clients = match tls.is_some_and(|tls| tls.client_ca.is_some()) {
                true => ", clients show a certificate",
                false => "",
            };
            (Verdict::Good, format!("{listen} with TLS{clients}"))
        }
        (Some(Err(why)), _) => (Verdict::Insecure, format!("would not start: {why}")),
        (None, true) => (Verdict::Good, format!("{listen}, loopback only")),
        (None, false) => (
            Verdict::Insecure,
            format!(
                "{listen} with plain HTTP: the network can read tokens; give --tls-cert and --tls-key"
            ),
        ),
    };
    say("listener", verdict, text);
    say(
        "listener",
        Verdict::Good,
        "unix socket in the state directory, for this user and root".to_owned(),
    );
}

fn commands(machine: &Machine, say: &mut Say<'_>) {
    let (verdict, text) = match &machine.policy {
        None => (
            Verdict::Note,
            "any: whoever may operate can run everything; --policy allows templates only"
                .to_owned(),
        ),
        Some(Ok((count, true))) => (Verdict::Good, format!("{count} templates only")),
        Some(Ok((count, false))) => (
            Verdict::Note,
            format!("any, and {count} templates: whoever may operate can run everything"),
        ),
        Some(Err(why)) => (Verdict::Insecure, format!("would not start: {why}")),
    };
    say("commands", verdict, text);
}

fn jobs(config: &Config, machine: &Machine, say: &mut Say<'_>) {
    let (verdict, text) = match (machine.is_root, config.deny_root_jobs) {
        (true, true) => (Verdict::Good, "as the user that each names, never root"),
        (true, false) => (
            Verdict::Insecure,
            "as root where they name no user; give --deny-root-jobs",
        ),
        (false, _) => (
            Verdict::Note,
            match config.sandbox {
                Baseline::Off => {
                    "as the service's own user: a job can read its token and its state"
                }
                Baseline::Default | Baseline::Require => "as the service's own user, in a sandbox",
            },
        ),
    };
    say("jobs", verdict, text.to_owned());
}

fn state(machine: &Machine, say: &mut Say<'_>) {
    match machine.state_dir {
        None => {
            say("state", Verdict::Note, "made at the first start".to_owned());
            if machine.has_installed_service {
                let other = format!(
                    "the service installed on this machine has another, {SYSTEM_STATE_DIR}: run this as root to see it"
                );
                say("state", Verdict::Note, other);
            }
        }
        Some((mode, _)) if mode & nix::libc::S_IFMT != nix::libc::S_IFDIR => {
            say(
                "state",
                Verdict::Insecure,
                "is no directory, or a link".to_owned(),
            );
        }
        Some((_, owner)) if owner != machine.uid => say(
            "state",
            Verdict::Note,
            format!("belongs to uid {owner}; run this as that user to see all"),
        ),
        Some((mode, _)) if mode & 0o077 != 0 => say(
            "state",
            Verdict::Insecure,
            format!(
                "others can enter the state directory (mode {:04o}); run chmod 700 on it",
                mode & 0o7777
            ),
        ),
        Some(_) => say("state", Verdict::Good, "private to this user".to_owned()),
    }
}

fn tokens(machine: &Machine, say: &mut Say<'_>) {
    match machine.default_token {
        None => say(
            "tokens",
            Verdict::Note,
            "default: made at the next start".to_owned(),
        ),
        Some(mode) if mode & 0o077 != 0 => say(
            "tokens",
            Verdict::Insecure,
            format!(
                "others can read the file token (mode {:04o}); run chmod 600 on it",
                mode & 0o7777
            ),
        ),
        Some(_) => say(
            "tokens",
            Verdict::Good,
            "default: admin, in the file token".to_owned(),
        ),
    }
    match &machine.tokens {
        None => {}
        Some(Err(why)) => say("tokens", Verdict::Insecure, why.clone()),
        Some(Ok(tokens)) => {
            for scope in Access::SCOPES {
                let count = tokens.iter().filter(|(held, _)| *held == scope).count();
                if count > 0 {
                    say(
                        "tokens",
                        Verdict::Good,
                        format!("{count} named with the scope {}", scope.as_str()),
                    );
                }
            }
            let expired = tokens.iter().filter(|(_, expired)| *expired).count();
            if expired > 0 {
                say(
                    "tokens",
                    Verdict::Note,
                    format!("{expired} of them expired; revoke them"),
                );
            }
        }
    }
}

fn containment(machine: &Machine, say: &mut Say<'_>) {
    let Some(info) = &machine.info else {
        let able = if machine.cgroup_kill {
            "cgroup v2 is there; a running service says whether it can be used"
        } else {
            "subreaper: no cgroup v2 with cgroup.kill here, so that limits are refused"
        };
        say("containment", Verdict::Note, able.to_owned());
        return;
    };
    let kind = info["containment"]["kind"].as_str().unwrap_or("unknown");
    match info["containment"]["cgroup_unavailable"].as_str() {
        None => say("containment", Verdict::Good, kind.to_owned()),
        Some(why) => say("containment", Verdict::Note, format!("{kind}: {why}")),
    }
}

fn sandbox(baseline: Baseline, features: Features, say: &mut Say<'_>) {
    let missing = Sandbox::default().missing(features);
    let words: Vec<&str> = missing.iter().map(|part| part.as_str()).collect();
    let words = words.join(", ");
    let (verdict, text) = match (baseline, missing.is_empty()) {
        (Baseline::Off, true) => (
            Verdict::Note,
            "for jobs that ask for one; --sandbox default gives it to all".to_owned(),
        ),
        (Baseline::Off, false) => (
            Verdict::Note,
            format!("for jobs that ask for one, and this kernel lacks {words}"),
        ),
        (Baseline::Default, true) => (
            Verdict::Good,
            "for every job that does not do without".to_owned(),
        ),
        (Baseline::Default, false) => (
            Verdict::Note,
            format!("for every job, and this kernel lacks {words}"),
        ),
        (Baseline::Require, true) => (Verdict::Good, "for every job".to_owned()),
        (Baseline::Require, false) => (
            Verdict::Note,
            format!("required, and this kernel lacks {words}: every job is refused"),
        ),
    };
    say("sandbox", verdict, text);
    let landlock = match features.landlock_abi {
        Some(abi) => format!("version {abi}"),
        None => "none".to_owned(),
    };
    let seccomp = if features.seccomp { "yes" } else { "none" };
    say(
        "sandbox",
        Verdict::Note,
        format!("this kernel has Landlock: {landlock}; seccomp filters: {seccomp}"),
    );
}

#[cfg(test)]
mod tests {
    use super::super::Finding;
    use super::super::testing::config;
    use super::*;

    /// An ordinary user with a state directory as the service leaves it.
    fn machine() -> Machine {
        Machine {
            state_dir: Some((0o40_700, 1000)),
            uid: 1000,
            default_token: Some(0o100_600),
            tokens: Some(Ok(vec![(Access::Read, false), (Access::Read, true)])),
            ..Machine::default()
        }
    }

    fn findings(config: &Config, machine: &Machine) -> Vec<Finding> {
        Finding::collect(|say| examine(config, machine, say))
    }

    fn insecure(config: &Config, machine: &Machine) -> Vec<&'static str> {
        let findings = findings(config, machine);
        let bad = findings
            .into_iter()
            .filter(|f| f.verdict == Verdict::Insecure);
        bad.map(|finding| finding.about).collect()
    }

    #[test]
    fn the_defaults_are_secure() {
        assert!(insecure(&config(&[]), &machine()).is_empty());
        assert!(insecure(&config(&[]), &Machine::default()).is_empty());
    }

    #[test]
    fn everything_insecure_is_found() {
        let tls = config(&["--listen=0.0.0.0:1", "--tls-cert=c", "--tls-key=k"]);
        let good_tls = Machine {
            tls: Some(Ok(())),
            ..machine()
        };
        assert!(insecure(&tls, &good_tls).is_empty());
        let bad_tls = Machine {
            tls: Some(Err("no".to_owned())),
            ..machine()
        };
        assert_eq!(insecure(&tls, &bad_tls), ["listener"]);
        assert_eq!(
            insecure(&config(&["--listen=0.0.0.0:1"]), &machine()),
            ["listener"]
        );
        assert_eq!(insecure(&config(&["--auth=none"]), &machine()), ["auth"]);
        let with = |change: &dyn Fn(&mut Machine)| {
            let mut machine = machine();
            change(&mut machine);
            insecure(&config(&[]), &machine)
        };
        assert_eq!(with(&|m| m.state_dir = Some((0o40_755, 1000))), ["state"]);
        assert_eq!(with(&|m| m.state_dir = Some((0o120_777, 1000))), ["state"]);
        assert_eq!(with(&|m| m.default_token = Some(0o100_640)), ["tokens"]);
        assert_eq!(
            with(&|m| m.tokens = Some(Err("damaged".to_owned()))),
            ["tokens"]
        );
        assert_eq!(
            with(&|m| m.policy = Some(Err("bad".to_owned()))),
            ["commands"]
        );
        let root = Machine {
            is_root: true,
            ..machine()
        };
        assert_eq!(insecure(&config(&[]), &root), ["jobs"]);
        assert!(insecure(&config(&["--deny-root-jobs"]), &root).is_empty());
    }

    #[test]
    fn a_running_service_says_its_containment() {
        let told = |info: serde_json::Value| {
            let machine = Machine {
                info: Some(info),
                ..machine()
            };
            let findings = findings(&config(&[]), &machine);
            let found = findings
                .into_iter()
                .find(|f| f.about == "containment")
                .unwrap();
            (found.verdict, found.text)
        };
        let cgroup = serde_json::json!({"containment": {"kind": "cgroup+subreaper", "cgroup_unavailable": null}});
        assert_eq!(told(cgroup), (Verdict::Good, "cgroup+subreaper".to_owned()));
        let none = serde_json::json!({"containment": {"kind": "subreaper", "cgroup_unavailable": "not mounted"}});
        assert_eq!(
            told(none),
            (Verdict::Note, "subreaper: not mounted".to_owned())
        );
    }
}
