//! Jobs as the tests of the contract show them.

use std::sync::Arc;
use std::time::Duration;

use job::event::Kind;
use job::outcome::{SentSignal, Stage};
use job::ready::{Address, OnTimeout, Ready, Sign};
use job::sandbox::{InForce, Part, Sandbox};
use job::spec::{
    EnvInherit, IoClass, IoPriority, Limits, NameOrId, Program, Rlimit, RlimitResource,
    RlimitValue, Scope, Secrets, Stdin, StdinData, TimeoutWarning,
};
use job::time::Timestamp;
use job::webhook::{Webhook, WebhookSecret};
use job::workspace::{
    ArtifactRules, Artifacts, Content, FileMode, InnerPath, Input, Keep, Workspace,
};
use job::{
    Cause, Exit, ExitStatus, Job, JobId, Process, Signal, SpawnFailure, Spec, State, Survivor,
    Termination, Usage,
};

pub(super) fn queued_job() -> Job {
    let spec = Spec {
        program: Program::Command {
            command: vec!["true".to_owned()],
        },
        ..Spec::default()
    };
    Job::accepted(
        JobId::generate(),
        "token:default".to_owned(),
        Arc::new(spec),
        Timestamp::from_micros(1_700_000_000_000_000),
    )
}

/// A job with every field set.
pub(super) fn ended_job() -> Job {
    let moment = Timestamp::from_micros(1_700_000_000_123_456);
    let soft_and_hard = Rlimit {
        soft: RlimitValue::Value(0),
        hard: RlimitValue::Unlimited,
    };
    Job {
        name: Some("full".to_owned()),
        labels: [("example.org/team".to_owned(), "data".to_owned())].into(),
        spec: Arc::new(Spec {
            program: Program::Script {
                script: "exit 3".to_owned(),
                shell: vec!["/bin/sh".to_owned(), "-c".to_owned()],
            },
            cwd: Some("/tmp".to_owned()),
            env: [("A".to_owned(), "b".to_owned())].into(),
            secret_env: Secrets([("TOKEN".to_owned(), "hunter2".to_owned())].into()),
            env_inherit: EnvInherit::Names(vec!["PATH".to_owned()]),
            user: Some(NameOrId::Name("nobody".to_owned())),
            group: Some(NameOrId::Id(7)),
            supplementary_groups: Some(vec![NameOrId::Id(8)]),
            nice: Some(5),
            io_priority: Some(IoPriority {
                class: IoClass::Idle,
                level: 7,
            }),
            oom_score_adj: Some(500),
            cpu_affinity: Some(vec![0, 1]),
            rlimits: [(RlimitResource::Core, soft_and_hard)].into(),
            limits: Limits {
                memory_bytes: Some(64 << 20),
                cpu: Some(1.5),
                pids: Some(10),
            },
            sandbox: Some(Sandbox {
                writable_paths: Some(vec!["/tmp".to_owned()]),
                ..Sandbox::default()
            }),
            stdin: Stdin::Data(StdinData::Text("x".to_owned())),
            timeout: Some(Duration::from_millis(1500)),
            timeout_warning: Some(TimeoutWarning {
                before: Duration::from_secs(1),
                signal: Some(Signal::TERM),
                scope: Scope::Leader,
            }),
            start_deadline: Some(Duration::from_secs(3)),
            ready: Some(Ready {
                sign: Sign::Port {
                    port: 8080,
                    address: Address::Loopback,
                },
                timeout: Duration::from_secs(60),
                on_timeout: OnTimeout::Stop,
            }),
            workspace: Some(Workspace { keep: Keep::All }),
            inputs: vec![Input {
                path: InnerPath::new("in/a").unwrap(),
                content: Content::Text("x".to_owned()),
                mode: Some(FileMode::DEFAULT),
                unpack: None,
            }],
            artifacts: Some(ArtifactRules {
                paths: vec!["out/**".to_owned()],
                ..ArtifactRules::default()
            }),
            webhooks: vec![Webhook {
                url: "https://example.org/".to_owned(),
                events: vec![Kind::Finished],
                secret: Some(WebhookSecret("hunter2".to_owned())),
            }],
            ..Spec::default()
        }),
        version: 9,
        state: State::Failed,
        message: Some("it failed".to_owned()),
        started_at: Some(moment),
        finished_at: Some(moment),
        expires_at: Some(moment),
        deadline_at: Some(moment),
        warned_at: Some(moment),
        ready_at: Some(moment),
        not_ready_at: Some(moment),
        ready_message: Some("port 8080 at 127.0.0.1, process 4711".to_owned()),
        process: Some(Process {
            pid: 4711,
            started_at: moment,
            start_ticks: 1,
            monitor_pid: 4710,
            used_before: (0, 0),
            executable: Some("/bin/sh".to_owned()),
            unwatched: None,
            cgroup: Some("procession/x".to_owned()),
            sandbox: Some(InForce {
                landlock_abi: Some(3),
                seccomp: true,
                missing: vec![Part::LandlockSignal],
            }),
        }),
        exit: Some(Exit {
            status: ExitStatus::Signal {
                signal: Signal::KILL,
                core_dumped: false,
            },
            at: moment,
            oom_killed: None,
        }),
        termination: Some(Termination {
            requested_by: Some("uid:0".to_owned()),
            reason: Some("superseded".to_owned()),
            signals_sent: vec![SentSignal {
                signal: Signal::TERM,
                at: moment,
            }],
            ..Termination::unasked(Cause::Canceled)
        }),
        spawn_failure: Some(SpawnFailure {
            stage: Stage::Exec,
            errno: 2,
            message: "no such file".to_owned(),
        }),
        usage: Some(Usage::default()),
        survivors: vec![Survivor {
            pid: 9,
            state: 'D',
            uid: 0,
            name: "dd".to_owned(),
        }],
        artifacts: Some(Artifacts {
            missing: vec!["out/**".to_owned()],
            ..Artifacts::default()
        }),
        ..queued_job()
    }
}
