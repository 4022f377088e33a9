//! The leader itself: from its first instruction to execve(2).
//!
//! It may be in its monitor's memory (`Memory::Shared`), with the monitor at work beside it, and be killed at any
//! point. So nothing here allocates, locks, panics, or calls the C library: system calls of `sys::raw`, and what is
//! read from the plan.

use nix::errno::Errno;
use nix::libc;

use super::plan::{CPU_WORDS, ExecPlan};
use super::report::{FailedStep, On, Report};
use job::outcome::Stage;
use job::time::Timestamp;
use linux::procfs;
use linux::procfs::ProcessIdentity;
use linux::sandbox::Step;
use linux::sys::{self, raw};
use protocol::record::{self, LastWord, LeaderNote};

/// As much of `/proc/self/stat` as there can be: 52 numbers and a name (proc_pid_stat(5)).
const STAT: usize = 2048;

/// Becomes the program, or says why not and ends.
pub(super) extern "C" fn run(plan: &ExecPlan) -> ! {
    let failure = match prepare(plan) {
        Ok(note) => execute(plan, note),
        Err(failure) => failure,
    };
    let FailedStep { stage, errno, .. } = failure;
    // No limit of the job's on files, and no end of its monitor's, may cut short what is to be said now.
    let _ = raw::block_signals();
    // For a rescuer: the report has no reader when the monitor is dead.
    let word = LastWord { stage, errno };
    let _ = raw::write_at(plan.record, &word.to_bytes(), record::LAST_WORD);
    let _ = raw::write(plan.report, &Report::Failed(failure).to_bytes());
    // Never seen as an exit code: the report comes first and decides.
    sys::exit_now(127)
}

fn failed(stage: Stage, on: On) -> impl Fn(Errno) -> FailedStep {
    move |errno| FailedStep {
        stage,
        errno: sys::errno_number(errno),
        on,
    }
}

/// All but the program, in the one order that works: what needs privilege before it is given up, what the job's
/// user must be able to reach after.
fn prepare(plan: &ExecPlan) -> Result<LeaderNote, FailedStep> {
    // One call makes session, group and leadership: setpgid would fail with EPERM after it.
    raw::setsid().map_err(failed(Stage::Session, On::Stage))?;
    if let Some(procs) = &plan.joins {
        raw::write_to(procs, c"0").map_err(failed(Stage::Cgroup, On::Stage))?;
    }
    let note = leave_note(plan).map_err(failed(Stage::Record, On::Stage))?;
    for (index, limit) in (0..).zip(&plan.limits) {
        raw::set_limit(limit.resource, limit.soft, limit.hard)
            .map_err(failed(Stage::Rlimits, On::Limit(index)))?;
    }
    raw::umask(plan.umask);
    set_priorities(plan)?;
    set_stdio(plan)?;
    for (first, last) in &plan.closed {
        raw::close_range(*first, *last).map_err(failed(Stage::CloseFds, On::Stage))?;
    }
    if let Some(ids) = &plan.ids {
        raw::become_user(ids.uid, ids.gid, &ids.groups).map_err(failed(Stage::User, On::Stage))?;
    }
    raw::chdir(&plan.cwd).map_err(failed(Stage::Cwd, On::Stage))?;
    if plan.no_new_privs {
        raw::set_no_new_privs().map_err(failed(Stage::NoNewPrivs, On::Stage))?;
    }
    // The last step: it would stand in the way of the others.
    if let Some(sandbox) = &plan.sandbox {
        sandbox.enter().map_err(|(step, errno)| {
            let on = match step {
                Step::Ruleset => On::Stage,
                Step::Filter => On::Filter,
            };
            failed(Stage::Sandbox, on)(errno)
        })?;
    }
    Ok(note)
}

/// From here on the record that the monitor has written ahead counts, so that a program never runs without one.
fn leave_note(plan: &ExecPlan) -> nix::Result<LeaderNote> {
    let mut stat = [0; STAT];
    let file = raw::open(c"/proc/self/stat", libc::O_RDONLY)?;
    let length = raw::read(file, &mut stat);
    raw::close(file);
    let start_ticks = procfs::start_ticks(stat.get(..length?).unwrap_or_default());
    let note = LeaderNote {
        identity: ProcessIdentity {
            pid: raw::getpid(),
            start_ticks: start_ticks.ok_or(Errno::EINVAL)?,
        },
        started_at: Timestamp::from_micros(raw::wall_micros()),
    };
    plan.failpoints.recording.hit();
    raw::write_at(plan.record, &note.to_bytes(plan.tag), record::LEADER_NOTE)?;
    plan.failpoints.recorded.hit();
    // A monitor that was killed before this note was there cannot be rescued: do not run without one.
    if raw::getppid() != plan.monitor {
        return Err(Errno::from_raw(record::ORPHANED.errno));
    }
    plan.failpoints.confirmed.hit();
    Ok(note)
}

/// Nice value, OOM score, affinity, and what else processes hand on. The service's own values do not leak into a job: if
/// the job asks for nothing its nice value is 0, it may use every CPU, its scheduling is the default one, where this
/// process may set that, and its OOM score is its monitor's.
fn set_priorities(plan: &ExecPlan) -> Result<(), FailedStep> {
    raw::set_back_heritage();
    let nice = raw::set_nice(plan.nice.unwrap_or(0));
    if plan.nice.is_some() {
        nice.map_err(failed(Stage::Nice, On::Stage))?;
    }
    if let Some(priority) = plan.io_priority {
        raw::set_io_priority(priority).map_err(failed(Stage::IoPriority, On::Stage))?;
    }
    if let Some(score) = &plan.oom_score_adj {
        raw::write_to(c"/proc/self/oom_score_adj", score)
            .map_err(failed(Stage::OomScoreAdj, On::Stage))?;
    }
    match &plan.cpus {
        Some(cpus) => {
            raw::set_affinity(cpus).map_err(failed(Stage::CpuAffinity, On::Stage))?;
        }
        // Those that its cpuset has.
        None => {
            let _ = raw::set_affinity(&[u64::MAX; CPU_WORDS]);
        }
    }
    Ok(())
}

fn set_stdio(plan: &ExecPlan) -> Result<(), FailedStep> {
    let stdin = match plan.stdin {
        Some(stdin) => stdin,
        None => raw::open(c"/dev/null", libc::O_RDONLY).map_err(failed(Stage::Stdio, On::Null))?,
    };
    for (source, target) in [(stdin, 0), (plan.stdout, 1), (plan.stderr, 2)] {
        // No source has a number below three: those are open in every role.
        raw::duplicate(source, target).map_err(failed(Stage::Stdio, On::Stage))?;
    }
    if plan.has_terminal {
        let fail = failed(Stage::Stdio, On::Terminal);
        raw::make_controlling(0).map_err(&fail)?;
        // The job's user may open it by name.
        if let Some(ids) = &plan.ids {
            raw::set_owner(0, ids.uid).map_err(&fail)?;
        }
    }
    Ok(())
}

/// Looks the program up, as the job's user, and executes it.
fn execute(plan: &ExecPlan, note: LeaderNote) -> FailedStep {
    let program = match look_up(plan) {
        Ok(program) => program,
        Err(failure) => return failure,
    };
    let nowhere = failed(Stage::Exec, On::Nowhere);
    let path = usize::try_from(program)
        .ok()
        .and_then(|program| plan.programs.get(program));
    let Some(path) = path else {
        return nowhere(Errno::ENOENT);
    };
    let note = LeaderNote {
        started_at: Timestamp::from_micros(raw::wall_micros()),
        ..note
    };
    match raw::write(plan.report, &Report::Executing { note, program }.to_bytes()) {
        Ok(()) => {}
        // The monitor is dead. The note was there before, so a rescuer has the job by now.
        Err(Errno::EPIPE) => {}
        Err(errno) => return failed(Stage::Exec, On::Pipe)(errno),
    }
    // As late as this: the monitor's death must not send SIGPIPE, which it ignores. Every role begins with the default
    // actions, so this and the mask are all.
    raw::default_action(libc::SIGPIPE);
    if let Err(errno) = raw::unblock_signals() {
        return failed(Stage::Signals, On::Stage)(errno);
    }
    plan.failpoints.executing.hit();
    let errno = raw::execve(path, &plan.argv, &plan.env);
    // One errno of execve(2) has several causes; this tells them apart.
    let on = match raw::kind_of(path) {
        Ok(libc::S_IFDIR) => On::Directory(program),
        Ok(_) => On::Program(program),
        Err(_) => On::NoProgram(program),
    };
    failed(Stage::Exec, on)(errno)
}

/// Which of the plan's programs is one.
fn look_up(plan: &ExecPlan) -> Result<u32, FailedStep> {
    if plan.searched.is_none() {
        return Ok(0);
    }
    let mut denied = None;
    for (index, candidate) in (0..).zip(&plan.programs) {
        if raw::kind_of(candidate) != Ok(libc::S_IFREG) {
            continue;
        }
        if raw::is_executable(candidate) {
            return Ok(index);
        }
        denied = Some(index);
    }
    Err(match denied {
        Some(index) => failed(Stage::Exec, On::Program(index))(Errno::EACCES),
        None => failed(Stage::Exec, On::Nowhere)(Errno::ENOENT),
    })
}
