//! All that a leader will need, made before there is one.

use std::ffi::CString;
use std::os::fd::{AsRawFd, RawFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::resource::rlim_t;

use super::{Inherited, failed};
use crate::monitor::BetweenJobs;
use job::outcome::{SpawnFailure, Stage};
use job::spec::{IoPriority, RlimitResource, RlimitValue};
use linux::cgroup::Group;
use linux::failpoint::Failpoint;
use linux::sandbox::Prepared;
use linux::sys;
use linux::sys::child::Memory;
use linux::sys::raw::Strings;
use protocol::record;
use protocol::wire::messages::{Ids, Launch};

/// Where `execvp` looks when the job has no `PATH` (see exec(3)).
const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// The words of a set of CPUs: as many CPUs as the C library's own sets have.
pub(super) const CPU_WORDS: usize = 16;

/// What a leader works by. It reads it and changes nothing.
pub(super) struct ExecPlan {
    pub(super) monitor: i32,
    pub(super) record: RawFd,
    /// What its note in the record bears.
    pub(super) tag: u32,
    pub(super) report: RawFd,
    /// The path of the job's group, for messages.
    pub(super) group: Option<String>,
    /// `cgroup.procs` of the group that it is not made in and has to join.
    pub(super) joins: Option<CString>,
    pub(super) limits: Vec<Limit>,
    pub(super) umask: u32,
    pub(super) nice: Option<i32>,
    pub(super) io_priority: Option<u32>,
    /// What the job wants, where it is not so already.
    pub(super) oom_score_adj: Option<CString>,
    has_memory_limit: bool,
    pub(super) cpus: Option<[u64; CPU_WORDS]>,
    /// The same as the job has it, for messages.
    affinity: Vec<usize>,
    /// `None`: `/dev/null`.
    pub(super) stdin: Option<RawFd>,
    pub(super) stdout: RawFd,
    pub(super) stderr: RawFd,
    pub(super) has_terminal: bool,
    /// The descriptors that nobody inherits, as ranges.
    pub(super) closed: Vec<(u32, u32)>,
    pub(super) ids: Option<Ids>,
    pub(super) cwd: CString,
    pub(super) no_new_privs: bool,
    pub(super) sandbox: Option<Prepared>,
    /// The program, or where it may be.
    pub(super) programs: Vec<CString>,
    /// Where it is looked for: the job's `PATH`.
    pub(super) searched: Option<String>,
    pub(super) name: String,
    pub(super) argv: Strings,
    pub(super) env: Strings,
    pub(super) failpoints: Failpoints,
}

/// A limit that is to be set.
pub(super) struct Limit {
    pub(super) resource: i64,
    pub(super) soft: u64,
    pub(super) hard: u64,
    /// For messages.
    pub(super) text: String,
}

/// Where tests have somebody killed.
pub(super) struct Failpoints {
    pub(super) recording: Failpoint,
    pub(super) recorded: Failpoint,
    pub(super) confirmed: Failpoint,
    pub(super) executing: Failpoint,
}

impl ExecPlan {
    /// The plan of a job's leader. It names descriptors by number: they stay open until the leader is there.
    pub(super) fn new(
        mut launch: Launch,
        inherited: &Inherited<'_>,
        sandbox: Option<Prepared>,
        idle: &BetweenJobs,
        (record, report): (RawFd, RawFd),
    ) -> Result<Self, SpawnFailure> {
        let name = launch.argv.first().cloned().unwrap_or_default();
        let searched = (!name.contains('/')).then(|| path_of(&launch));
        let programs = match &searched {
            None => vec![name.clone()],
            Some(path) => path
                .split(':')
                .map(|directory| join(directory, &name))
                .collect(),
        };
        let argv = std::mem::take(&mut launch.argv);
        let env = std::mem::take(&mut launch.env);
        let env = env
            .into_iter()
            .map(|(name, value)| format!("{name}={value}"));
        let has_nul = |_| failed(Stage::Exec, Errno::EINVAL, "an argument with a NUL byte");
        let stdout = inherited.stdout.as_raw_fd();
        let ruleset = sandbox.as_ref().and_then(Prepared::descriptor);
        let kept: Vec<RawFd> = [record, report].into_iter().chain(ruleset).collect();
        Ok(Self {
            monitor: idle.me.pid,
            record,
            tag: record::tag_of(launch.job),
            report,
            joins: None,
            limits: limits(&launch, inherited.original_nofile),
            umask: launch.umask,
            nice: launch.nice,
            io_priority: launch.io_priority.map(IoPriority::number),
            oom_score_adj: launch
                .oom_score_adj
                .filter(|wish| idle.oom_score_adj != Some(*wish))
                .and_then(|wish| CString::new(wish.to_string()).ok()),
            has_memory_limit: launch.limits.memory_bytes.is_some(),
            cpus: launch.cpu_affinity.as_deref().map(cpus).transpose()?,
            affinity: launch.cpu_affinity.unwrap_or_default(),
            stdin: inherited.stdin.as_ref().map(AsRawFd::as_raw_fd),
            stdout,
            stderr: inherited.stderr.as_ref().map_or(stdout, AsRawFd::as_raw_fd),
            has_terminal: launch.pty.is_some(),
            closed: sys::gaps_between(&kept),
            group: inherited.group.map(Group::path),
            cwd: CString::new(launch.cwd)
                .map_err(|_| failed(Stage::Cwd, Errno::EINVAL, "a directory with a NUL byte"))?,
            ids: launch.ids,
            no_new_privs: launch.no_new_privs,
            sandbox,
            programs: strings(programs).map_err(has_nul)?,
            searched,
            name,
            argv: Strings::new(strings(argv).map_err(has_nul)?),
            env: Strings::new(strings(env).map_err(has_nul)?),
            failpoints: Failpoints {
                recording: Failpoint::new("leader.recording"),
                recorded: Failpoint::new("leader.recorded"),
                confirmed: Failpoint::new("leader.confirmed"),
                executing: Failpoint::new("leader.executing"),
            },
        })
    }

    /// The nth program, as it was looked for.
    pub(super) fn program(&self, index: u32) -> &str {
        let program = usize::try_from(index)
            .ok()
            .and_then(|index| self.programs.get(index));
        program
            .and_then(|program| program.to_str().ok())
            .unwrap_or_default()
    }

    /// The nth limit in words.
    pub(super) fn limit(&self, index: u32) -> &str {
        let limit = usize::try_from(index)
            .ok()
            .and_then(|index| self.limits.get(index));
        limit.map_or("", |limit| &limit.text)
    }

    /// What a stage works on.
    pub(super) fn subject(&self, stage: Stage) -> String {
        let text = match stage {
            Stage::Fork => "the leader",
            Stage::Session => "setsid",
            Stage::Cgroup => self.group.as_deref().unwrap_or("the group"),
            Stage::Record => "the record",
            Stage::Rlimits => "setrlimit",
            Stage::Nice => return self.nice.unwrap_or(0).to_string(),
            Stage::IoPriority => "ioprio_set",
            Stage::OomScoreAdj => {
                let score = self.oom_score_adj.as_ref();
                score.and_then(|score| score.to_str().ok()).unwrap_or("0")
            }
            Stage::CpuAffinity => return format!("CPUs {:?}", self.affinity),
            Stage::Stdio => "standard input, output or error",
            Stage::CloseFds => "close_range",
            Stage::User => match &self.ids {
                Some(ids) => return format!("uid {}, gid {}", ids.uid, ids.gid),
                None => "the user",
            },
            Stage::Cwd => self.cwd.to_str().unwrap_or_default(),
            Stage::NoNewPrivs => "prctl",
            Stage::Sandbox => "landlock_restrict_self",
            Stage::Signals => "sigprocmask",
            Stage::Exec => &self.name,
        };
        text.to_owned()
    }

    /// Whose memory the leader uses: its own where it does what cannot be done in another's. A user of its own could
    /// reach for the monitor's, a filter for system calls is put in force by a library, an OOM score is one of all
    /// processes with this memory (`proc_pid_oom_score_adj(5)`), and a kill for want of memory ends all of them.
    pub(super) fn memory(&self) -> Memory {
        let has_own = self.ids.is_some()
            || self.sandbox.is_some()
            || self.oom_score_adj.is_some()
            || self.has_memory_limit;
        if has_own {
            Memory::Copied
        } else {
            Memory::Shared
        }
    }
}

fn strings(items: impl IntoIterator<Item = String>) -> Result<Vec<CString>, std::ffi::NulError> {
    items.into_iter().map(CString::new).collect()
}

fn path_of(launch: &Launch) -> String {
    let path = launch.env.iter().find(|(key, _)| key == "PATH");
    path.map_or(DEFAULT_PATH, |(_, value)| value.as_str())
        .to_owned()
}

fn join(directory: &str, name: &str) -> String {
    let directory = if directory.is_empty() { "." } else { directory };
    if directory.ends_with('/') {
        format!("{directory}{name}")
    } else {
        format!("{directory}/{name}")
    }
}

fn cpus(wanted: &[usize]) -> Result<[u64; CPU_WORDS], SpawnFailure> {
    let mut words = [0_u64; CPU_WORDS];
    for cpu in wanted {
        let word = words
            .get_mut(cpu / 64)
            .ok_or_else(|| failed(Stage::CpuAffinity, Errno::EINVAL, &format!("CPU {cpu}")))?;
        *word |= 1 << (cpu % 64);
    }
    Ok(words)
}

/// What is to be set: what the job asks for, the limit of open files as the service found it, and no core dumps
/// unless asked for.
fn limits(launch: &Launch, (soft, hard): (rlim_t, rlim_t)) -> Vec<Limit> {
    let mut limits: Vec<Limit> = launch
        .rlimits
        .iter()
        .map(|(resource, limit)| Limit {
            resource: resource_of(*resource),
            soft: value_of(limit.soft),
            hard: value_of(limit.hard),
            text: format!("{resource:?} {:?} {:?}", limit.soft, limit.hard).to_lowercase(),
        })
        .collect();
    let usual = [
        (RlimitResource::Nofile, soft, hard, "nofile"),
        (RlimitResource::Core, 0, 0, "core"),
    ];
    for (resource, soft, hard, text) in usual {
        let resource = resource_of(resource);
        if limits.iter().all(|limit| limit.resource != resource) {
            limits.push(Limit {
                resource,
                soft,
                hard,
                text: text.to_owned(),
            });
        }
    }
    limits
}

fn resource_of(resource: RlimitResource) -> i64 {
    i64::from(match resource {
        RlimitResource::Nofile => libc::RLIMIT_NOFILE,
        RlimitResource::Nproc => libc::RLIMIT_NPROC,
        RlimitResource::Cpu => libc::RLIMIT_CPU,
        RlimitResource::Fsize => libc::RLIMIT_FSIZE,
        RlimitResource::As => libc::RLIMIT_AS,
        RlimitResource::Core => libc::RLIMIT_CORE,
        RlimitResource::Stack => libc::RLIMIT_STACK,
        RlimitResource::Memlock => libc::RLIMIT_MEMLOCK,
        RlimitResource::Data => libc::RLIMIT_DATA,
    })
}

fn value_of(value: RlimitValue) -> u64 {
    match value {
        RlimitValue::Unlimited => libc::RLIM_INFINITY,
        RlimitValue::Value(value) => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_of_cpus_has_a_bit_for_each() {
        let words = cpus(&[0, 63, 64]).unwrap();
        assert_eq!(words[..3], [1 | 1 << 63, 1, 0]);
        let failure = cpus(&[1024]).unwrap_err();
        assert_eq!(
            (failure.stage, failure.errno),
            (Stage::CpuAffinity, libc::EINVAL)
        );
    }

    #[test]
    fn a_program_is_looked_for_in_every_directory_of_the_path() {
        assert_eq!(join("/bin", "true"), "/bin/true");
        assert_eq!(join("/", "true"), "/true");
        assert_eq!(join("", "true"), "./true");
    }
}
