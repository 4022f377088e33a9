//! The leader: from fork to execve(2), every step reported by name where it fails.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SealFlag, fcntl, open};
use nix::libc;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::prctl;
use nix::sys::resource::{RLIM_INFINITY, Resource, rlim_t, setrlimit};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{AccessFlags, access, chdir, pipe2, setsid};
use serde::{Deserialize, Serialize};

use super::launch;
use super::terminal;
use crate::cgroup::Group;
use crate::clock::{Now, Timestamp};
use crate::failpoint;
use crate::job::life::Event;
use crate::job::outcome::{SpawnFailure, Stage};
use crate::job::spec::{RlimitResource, RlimitValue};
use crate::procfs;
use crate::record::{self, Leader, ProcessIdentity, Record};
use crate::sandbox::{self, Prepared};
use crate::sys::{self, Fork, Pid};
use crate::wire::{self, messages::Launch};

/// Where `execvp` looks when the job has no `PATH` (see exec(3)).
const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// The longest text of a user that goes into a message: it must fit into a record.
const SHOWN: usize = 512;

/// What the child writes into the status pipe before it is gone or has become the program.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Report {
    /// About to execute this file. The end of the pipe right after it means that it worked.
    Executing(Leader),
    /// A step failed.
    Failed(SpawnFailure),
}

/// What the leader takes over from the monitor.
#[derive(Debug)]
pub(super) struct Inherited<'a> {
    pub(super) stdin: Option<OwnedFd>,
    pub(super) stdout: OwnedFd,
    /// `None`: standard error goes where standard output goes.
    pub(super) stderr: Option<OwnedFd>,
    /// The group to be in; in the child, the one that it still has to join.
    pub(super) group: Option<&'a Group>,
    /// The limit of open files that the service was started with.
    pub(super) original_nofile: (rlim_t, rlim_t),
    pub(super) sandbox: Option<Prepared>,
}

/// A leader that has been forked, and the pipe on which it reports.
#[derive(Debug)]
pub(super) struct Forked {
    pub(super) pid: Pid,
    pub(super) status: OwnedFd,
}

/// Forks the leader. It writes `record` with its own identity before it executes anything, so that a
/// program never runs without a record of it.
pub(super) fn fork(
    launch: &Launch,
    inherited: Inherited<'_>,
    record: &mut record::Writer,
    facts: &Record,
) -> Result<Forked, SpawnFailure> {
    let (status, report) =
        pipe2(OFlag::O_CLOEXEC).map_err(|errno| failed(Stage::Fork, errno, "a pipe"))?;
    // Where the group refuses to be forked into, the leader joins it and reports why it cannot.
    let inside = inherited.group.and_then(|group| group.fork().ok());
    let joins = inherited.group.filter(|_| inside.is_none());
    let forked = match inside {
        Some(forked) => forked,
        None => sys::fork().map_err(|errno| failed(Stage::Fork, errno, "the leader"))?,
    };
    match forked {
        Fork::Parent(pid) => {
            record.skip_one();
            Ok(Forked { pid, status })
        }
        Fork::Child => {
            drop(status);
            let inherited = Inherited {
                group: joins,
                ..inherited
            };
            let mut report = File::from(report);
            let failure = become_leader(launch, &inherited, record, facts, &mut report);
            // For a rescuer: the report has no reader when the monitor is dead.
            let _ = record.write_last_word(&failure);
            let _ = send_report(&mut report, &Report::Failed(failure));
            // Never seen as an exit code: the report comes first and decides.
            sys::exit_now(127)
        }
    }
}

/// Reads what the leader reported. `None`: it was killed before it could say anything.
pub(super) fn read_report(status: OwnedFd) -> Option<Report> {
    // Room enough for one read to take it all.
    let mut bytes = Vec::with_capacity(1024);
    File::from(status).read_to_end(&mut bytes).ok()?;
    let mut last = None;
    let mut rest = bytes.as_slice();
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
        last = Some(wire::decode(after.get(..length)?).ok()?);
        rest = after.get(length..)?;
    }
    last
}

fn send_report(pipe: &mut File, report: &Report) -> io::Result<()> {
    let bytes = wire::encode(report)?;
    let mut framed = u32::try_from(bytes.len())
        .unwrap_or(u32::MAX)
        .to_le_bytes()
        .to_vec();
    framed.extend_from_slice(&bytes);
    pipe.write_all(&framed)
}

pub(super) fn failed(stage: Stage, errno: Errno, on: &str) -> SpawnFailure {
    let on: String = on.chars().take(SHOWN).collect();
    SpawnFailure {
        stage,
        errno: sys::errno_number(errno),
        message: format!(
            "failed to {}: {on}: {} ({errno:?})",
            stage.describe(),
            errno.desc()
        ),
    }
}

pub(super) fn no_sandbox(failure: sandbox::Failure) -> SpawnFailure {
    failed(Stage::Sandbox, failure.errno, &failure.on)
}

fn errno_of(error: &io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}

/// Everything between fork and exec, in the one order that works: what needs privilege before it is
/// given up, what the job's user must be able to reach after. Returns only on failure.
fn become_leader(
    launch: &Launch,
    inherited: &Inherited<'_>,
    record: &mut record::Writer,
    facts: &Record,
    report: &mut File,
) -> SpawnFailure {
    match prepare(launch, inherited, record, facts, report) {
        Ok(leader) => execute(launch, leader, report),
        Err(failure) => failure,
    }
}

fn prepare(
    launch: &Launch,
    inherited: &Inherited<'_>,
    record: &mut record::Writer,
    facts: &Record,
    report: &mut File,
) -> Result<Leader, SpawnFailure> {
    // One call makes session, group and leadership: setpgid would fail with EPERM after it.
    setsid().map_err(|errno| failed(Stage::Session, errno, "setsid"))?;
    if let Some(group) = inherited.group {
        group
            .join()
            .map_err(|error| failed(Stage::Cgroup, errno_of(&error), &group.path()))?;
    }
    let mut leader = write_own_record(record, facts).map_err(|error| {
        let errno = errno_of(&error);
        if errno == Errno::ECHILD {
            record::orphaned()
        } else {
            failed(Stage::Record, errno, "the record")
        }
    })?;
    set_rlimits(launch, inherited.original_nofile)?;
    umask(Mode::from_bits_truncate(launch.umask));
    set_priorities(launch)?;
    set_stdio(inherited)?;
    terminal::make_controlling(launch)?;
    let ruleset = inherited.sandbox.as_ref().and_then(Prepared::descriptor);
    keep_only(report, record.file_mut(), ruleset)
        .map_err(|errno| failed(Stage::CloseFds, errno, "close_range"))?;
    if let Some(ids) = &launch.ids {
        let whom = format!("uid {}, gid {}", ids.uid, ids.gid);
        sys::become_user(ids.uid, ids.gid, &ids.groups)
            .map_err(|errno| failed(Stage::User, errno, &whom))?;
    }
    chdir(launch.cwd.as_str()).map_err(|errno| failed(Stage::Cwd, errno, &launch.cwd))?;
    if launch.no_new_privs {
        prctl::set_no_new_privs().map_err(|errno| failed(Stage::NoNewPrivs, errno, "prctl"))?;
    }
    // The last step: it would stand in the way of the others.
    if let Some(sandbox) = &inherited.sandbox {
        leader.sandbox = Some(sandbox.enter().map_err(no_sandbox)?);
    }
    Ok(leader)
}

fn write_own_record(record: &mut record::Writer, facts: &Record) -> io::Result<Leader> {
    let stat = procfs::own_stat()?;
    let now = Now::read();
    let leader = Leader {
        identity: ProcessIdentity {
            pid: stat.pid,
            start_ticks: stat.start_ticks,
        },
        started_at: now.wall,
        executable: String::new(),
        sandbox: None,
    };
    let mut facts = facts.clone();
    facts.leader = Some(leader.clone());
    // From here on the timeout counts, whatever happens to the monitor.
    let _ = facts.life.on(Event::Started, now);
    facts.deadline_at = facts.life.timeout_at().map(|at| now.wall_of(at));
    failpoint::hit("leader.recording");
    record.write(&facts)?;
    failpoint::hit("leader.recorded");
    // A monitor that was killed before this record was there cannot be rescued: do not run without one.
    if nix::unistd::getppid().as_raw() != facts.monitor.pid {
        return Err(io::Error::from(Errno::ECHILD)); // See `record::orphaned`.
    }
    failpoint::hit("leader.confirmed");
    Ok(leader)
}

fn set_rlimits(launch: &Launch, (soft, hard): (rlim_t, rlim_t)) -> Result<(), SpawnFailure> {
    for (resource, limit) in &launch.rlimits {
        setrlimit(
            resource_of(*resource),
            value_of(limit.soft),
            value_of(limit.hard),
        )
        .map_err(|errno| {
            failed(
                Stage::Rlimits,
                errno,
                &format!("{resource:?} {:?} {:?}", limit.soft, limit.hard).to_lowercase(),
            )
        })?;
    }
    let chosen: Vec<Resource> = launch
        .rlimits
        .iter()
        .map(|(resource, _)| resource_of(*resource))
        .collect();
    if !chosen.contains(&Resource::RLIMIT_NOFILE) {
        setrlimit(Resource::RLIMIT_NOFILE, soft, hard)
            .map_err(|errno| failed(Stage::Rlimits, errno, "nofile"))?;
    }
    // No core dumps unless asked for.
    if !chosen.contains(&Resource::RLIMIT_CORE) {
        setrlimit(Resource::RLIMIT_CORE, 0, 0)
            .map_err(|errno| failed(Stage::Rlimits, errno, "core"))?;
    }
    Ok(())
}

fn resource_of(resource: RlimitResource) -> Resource {
    match resource {
        RlimitResource::Nofile => Resource::RLIMIT_NOFILE,
        RlimitResource::Nproc => Resource::RLIMIT_NPROC,
        RlimitResource::Cpu => Resource::RLIMIT_CPU,
        RlimitResource::Fsize => Resource::RLIMIT_FSIZE,
        RlimitResource::As => Resource::RLIMIT_AS,
        RlimitResource::Core => Resource::RLIMIT_CORE,
        RlimitResource::Stack => Resource::RLIMIT_STACK,
        RlimitResource::Memlock => Resource::RLIMIT_MEMLOCK,
        RlimitResource::Data => Resource::RLIMIT_DATA,
    }
}

fn value_of(value: RlimitValue) -> rlim_t {
    match value {
        RlimitValue::Unlimited => RLIM_INFINITY,
        RlimitValue::Value(value) => value,
    }
}

/// Nice value, OOM score and affinity. The service's own values do not leak into a job: without a wish
/// of the job's it gets 0, where this process may set that.
fn set_priorities(launch: &Launch) -> Result<(), SpawnFailure> {
    let nice = sys::set_nice(launch.nice.unwrap_or(0));
    if let (Err(errno), Some(wish)) = (nice, launch.nice) {
        return Err(failed(Stage::Nice, errno, &wish.to_string()));
    }
    let score = launch.oom_score_adj.unwrap_or(0).to_string();
    let written = fs::write("/proc/self/oom_score_adj", &score);
    if let (Err(error), Some(_)) = (written, launch.oom_score_adj) {
        return Err(failed(Stage::OomScoreAdj, errno_of(&error), &score));
    }
    if let Some(cpus) = &launch.cpu_affinity {
        let mut set = CpuSet::new();
        for cpu in cpus {
            set.set(*cpu)
                .map_err(|errno| failed(Stage::CpuAffinity, errno, &format!("CPU {cpu}")))?;
        }
        sched_setaffinity(nix::unistd::Pid::from_raw(0), &set)
            .map_err(|errno| failed(Stage::CpuAffinity, errno, &format!("CPUs {cpus:?}")))?;
    }
    Ok(())
}

fn set_stdio(inherited: &Inherited<'_>) -> Result<(), SpawnFailure> {
    let fail = |errno| failed(Stage::Stdio, errno, "standard input, output or error");
    let null = open(
        "/dev/null",
        OFlag::O_RDONLY | OFlag::O_CLOEXEC,
        Mode::empty(),
    )
    .map_err(|errno| failed(Stage::Stdio, errno, "/dev/null"))?;
    let stdin = inherited.stdin.as_ref().unwrap_or(&null);
    let stderr = inherited.stderr.as_ref().unwrap_or(&inherited.stdout);
    for (source, target) in [(stdin, 0), (&inherited.stdout, 1), (stderr, 2)] {
        // No source has a number below three: those are open in every role.
        sys::duplicate_to(source.as_fd(), target, false).map_err(fail)?;
    }
    Ok(())
}

/// Closes every descriptor but 0, 1, 2 and those that execve closes: the report pipe, the record, the
/// sandbox's rules.
fn keep_only(report: &mut File, record: &mut File, ruleset: Option<RawFd>) -> nix::Result<()> {
    let keep = [report.as_raw_fd(), record.as_raw_fd()];
    let keep: Vec<RawFd> = keep.into_iter().chain(ruleset).collect();
    sys::close_fds_except(&keep)
}

/// Looks the program up in the job's `PATH`, as the job's user, and executes it.
fn execute(launch: &Launch, mut leader: Leader, report: &mut File) -> SpawnFailure {
    let name = launch.argv.first().map(String::as_str).unwrap_or_default();
    let path = match look_up(name, launch) {
        Ok(path) => path,
        Err(failure) => return failure,
    };
    leader.executable.clone_from(&path);
    leader.started_at = Timestamp::now();
    let strings = |items: Vec<String>| {
        items
            .into_iter()
            .map(CString::new)
            .collect::<Result<Vec<_>, _>>()
    };
    let argv = strings(launch.argv.clone());
    let env = strings(
        launch
            .env
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect(),
    );
    let (Ok(file), Ok(argv), Ok(env)) = (CString::new(path.as_str()), argv, env) else {
        return failed(Stage::Exec, Errno::EINVAL, "an argument with a NUL byte");
    };
    if leader.executable.len() > 2048 {
        leader.executable.clear();
    }
    match send_report(report, &Report::Executing(leader)) {
        Ok(()) => {}
        // The monitor is dead. The record was there before, so a rescuer has the job by now.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        Err(error) => return failed(Stage::Exec, errno_of(&error), "the report pipe"),
    }
    // As late as this: the monitor's death must not send SIGPIPE, which it ignores.
    // execve(2) keeps what is ignored. Every role begins with the default actions, so this is all.
    launch::ignored().for_each(sys::default_action);
    if let Err(errno) = sys::unblock_signals() {
        return failed(Stage::Signals, errno, "sigprocmask");
    }
    failpoint::hit("leader.executing");
    explain(sys::execve(&file, &argv, &env), &path)
}

fn look_up(name: &str, launch: &Launch) -> Result<String, SpawnFailure> {
    if name.contains('/') {
        return Ok(name.to_owned());
    }
    let path = launch
        .env
        .iter()
        .find(|(key, _)| key == "PATH")
        .map_or(DEFAULT_PATH, |(_, value)| value.as_str());
    let mut denied = None;
    for directory in path.split(':') {
        let candidate = Path::new(if directory.is_empty() { "." } else { directory }).join(name);
        if !candidate.is_file() {
            continue;
        }
        match access(&candidate, AccessFlags::X_OK) {
            Ok(()) => return Ok(candidate.to_string_lossy().into_owned()),
            Err(_) => denied = Some(candidate),
        }
    }
    match denied {
        Some(candidate) => Err(failed(
            Stage::Exec,
            Errno::EACCES,
            &candidate.to_string_lossy(),
        )),
        None => Err(failed(
            Stage::Exec,
            Errno::ENOENT,
            &format!("program `{name}` is in no directory of PATH={path}"),
        )),
    }
}

/// One errno of execve(2) has several causes; this tells them apart.
fn explain(errno: Errno, path: &str) -> SpawnFailure {
    let exists = Path::new(path).exists();
    let on = if errno == Errno::ENOENT && exists {
        format!("the interpreter named in {path}")
    } else if errno == Errno::ENOENT {
        format!("program {path}")
    } else if errno == Errno::ENOEXEC {
        format!(
            "{path} is neither a binary for this machine nor a script with a #! line; use `script` for a shell text"
        )
    } else if errno == Errno::EACCES && Path::new(path).is_dir() {
        format!("{path} is a directory")
    } else {
        path.to_owned()
    };
    failed(Stage::Exec, errno, &on)
}

/// A job's standard input as a sealed file in memory, opened for reading at its start. It needs nobody
/// to pump it and outlives every role.
pub(super) fn stdin_file(bytes: &[u8]) -> io::Result<OwnedFd> {
    let memory = memfd_create(
        c"stdin",
        MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING,
    )?;
    let mut file = File::from(memory);
    file.write_all(bytes)?;
    let seals = SealFlag::F_SEAL_WRITE
        | SealFlag::F_SEAL_GROW
        | SealFlag::F_SEAL_SHRINK
        | SealFlag::F_SEAL_SEAL;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok(open(
        path.as_str(),
        OFlag::O_RDONLY | OFlag::O_CLOEXEC,
        Mode::empty(),
    )?)
}
