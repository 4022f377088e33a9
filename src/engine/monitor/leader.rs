//! The leader: planned, started, and heard of. Every step up to execve(2) is reported by name if it fails.

mod exec;
mod plan;
mod report;

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::resource::rlim_t;
use nix::unistd::pipe2;

use super::BetweenJobs;
use job::life::Event;
use job::outcome::{SpawnFailure, Stage};
use linux::cgroup::Group;
use linux::clock;
use linux::sandbox::{self, Prepared};
use linux::sys::child::{self, Child, Memory};
use linux::sys::{self, Pid};
use plan::ExecPlan;
use protocol::record::{self, Leader, Record};
use protocol::wire::messages::Launch;
use report::{FailedStep, On, Report};

/// The longest text of a user that goes into a message: it must fit into a record.
const SHOWN: usize = 512;

/// The longest path of a program that goes into a record.
const RECORDED: usize = 2048;

/// What the leader takes over from the monitor.
#[derive(Debug)]
pub(super) struct Inherited<'a> {
    pub(super) stdin: Option<OwnedFd>,
    pub(super) stdout: OwnedFd,
    /// `None`: standard error goes where standard output goes.
    pub(super) stderr: Option<OwnedFd>,
    /// The group to be in.
    pub(super) group: Option<&'a Group>,
    /// The limit of open files that the service was started with.
    pub(super) original_nofile: (rlim_t, rlim_t),
    pub(super) sandbox: Option<Prepared>,
}

/// A leader that has not executed its program yet, so far as is known.
pub(super) struct Starting {
    child: Child<ExecPlan>,
}

/// What became of it.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It is the program now.
    Executed(Leader),
    /// A step failed.
    Failed(SpawnFailure),
    /// It was killed before it could say anything.
    Killed,
}

/// Starts the leader. Its record is written ahead, and counts from the moment at which it says who it is: a
/// program never runs without a record of it.
pub(super) fn start(
    launch: Launch,
    mut inherited: Inherited<'_>,
    idle: &BetweenJobs,
    record: &mut record::Writer,
    facts: &Record,
) -> Result<Starting, SpawnFailure> {
    let (status, report) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)
        .map_err(|errno| failed(Stage::Fork, errno, "a pipe"))?;
    let descriptors = (record.file().as_raw_fd(), report.as_raw_fd());
    let sandbox = inherited.sandbox.take();
    let plan = ExecPlan::new(launch, &inherited, sandbox, idle, descriptors)?;
    write_ahead(record, facts).map_err(|error| {
        let errno = Errno::from_raw(error.raw_os_error().unwrap_or(nix::libc::EIO));
        failed(Stage::Record, errno, "the record")
    })?;
    let child = start_child(idle, inherited.group, Box::new(plan), status)
        .map_err(|errno| failed(Stage::Fork, errno, "the leader"))?;
    Ok(Starting { child })
}

/// A record as it is once there is a leader, before there is one.
pub(super) fn write_ahead(record: &mut record::Writer, facts: &Record) -> std::io::Result<()> {
    let now = clock::now();
    let mut ahead = facts.clone();
    ahead.is_ahead = true;
    // From here on the timeout counts, whatever happens to the monitor.
    let _ = ahead.life.on(Event::Started, now);
    ahead.deadline_at = ahead.life.timeout_at().map(|at| now.wall_of(at));
    record.write(&ahead)
}

fn start_child(
    idle: &BetweenJobs,
    group: Option<&Group>,
    mut plan: Box<ExecPlan>,
    mut status: OwnedFd,
) -> nix::Result<Child<ExecPlan>> {
    idle.forget_peak();
    let directory = group.and_then(|group| group.open().ok());
    // A container's filter may refuse clone3(2), and an emulator of another machine's programs to share memory.
    let attempts = [
        (plan.memory(), directory.as_ref()),
        (plan.memory(), None),
        (Memory::Copied, None),
    ];
    let mut refusal = Errno::UnknownErrno;
    for (memory, inside) in attempts {
        if inside.is_none() {
            // It joins its group by itself, and reports why it cannot.
            let procs = group.map(|group| group.procs().into_os_string().into_encoded_bytes());
            plan.joins = procs.and_then(|procs| CString::new(procs).ok());
        }
        let inside = inside.map(AsFd::as_fd);
        match child::start(&idle.stack, memory, inside, exec::run, plan, status) {
            Ok(child) => return Ok(child),
            Err(refused) => {
                (plan, status) = (refused.plan, refused.status);
                refusal = refused.errno;
            }
        }
    }
    Err(refusal)
}

impl Starting {
    pub(super) fn pid(&self) -> Pid {
        self.child.pid
    }

    /// What hangs up when there is an outcome.
    pub(super) fn status(&self) -> BorrowedFd<'_> {
        self.child.status()
    }

    /// What became of it; itself, if that is still open.
    pub(super) fn outcome(self) -> Result<Outcome, Self> {
        let (said, plan) = self.child.ended().map_err(|child| Self { child })?;
        Ok(match Report::last_of(&said) {
            Some(Report::Executing { note, program }) => {
                let mut leader = note.leader();
                leader.executable = plan.program(program).to_owned();
                if leader.executable.len() > RECORDED {
                    leader.executable.clear();
                }
                leader.sandbox = plan.sandbox.as_ref().map(Prepared::in_force).cloned();
                Outcome::Executed(leader)
            }
            Some(Report::Failed(failure)) => Outcome::Failed(explain(&plan, failure)),
            None => Outcome::Killed,
        })
    }
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

/// A failure as people read it: what failed, on what, and why.
fn explain(plan: &ExecPlan, failure: FailedStep) -> SpawnFailure {
    let FailedStep { stage, errno, on } = failure;
    let errno = Errno::from_raw(errno);
    let on = match on {
        On::Stage => plan.subject(stage),
        On::Limit(index) => plan.limit(index).to_owned(),
        On::Null => "/dev/null".to_owned(),
        On::Terminal => "the terminal".to_owned(),
        On::Filter => "the seccomp filter".to_owned(),
        On::Pipe => "the report pipe".to_owned(),
        On::Nowhere => format!(
            "program `{}` is in no directory of PATH={}",
            plan.name,
            plan.searched.as_deref().unwrap_or_default()
        ),
        On::NoProgram(index) if errno == Errno::ENOENT => {
            format!("program {}", plan.program(index))
        }
        On::Directory(index) if errno == Errno::EACCES => {
            format!("{} is a directory", plan.program(index))
        }
        On::Program(index) if errno == Errno::ENOENT => {
            format!("the interpreter named in {}", plan.program(index))
        }
        On::Program(index) if errno == Errno::ENOEXEC => format!(
            "{} is neither a binary for this machine nor a script with a #! line; use `script` for a shell text",
            plan.program(index)
        ),
        On::NoProgram(index) | On::Directory(index) | On::Program(index) => {
            plan.program(index).to_owned()
        }
    };
    failed(stage, errno, &on)
}
