//! A monitor that replaces one that was killed: same record, same pipes, same timers.
//!
//! The job's processes are the supervisor's children by now, so the supervisor reaps them and tells of
//! the leader's end. Without the subreaper's proof, emptiness is what the cgroup and `/proc` say.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use nix::poll::{PollTimeout, poll};

use super::conversation::Conversation;
use super::descriptors::inodes;
use super::input::Stdin;
use super::launch::detach;
use super::processes::Processes;
use super::pump::Pump;
use super::terminal::{self, Terminal};
use super::{Host, Monitor, STRAYS_NAMED};
use job::JobId;
use job::life::Phase;
use linux::cgroup::Group;
use linux::clock;
use linux::failpoint;
use linux::procfs;
use linux::procfs::ProcessIdentity;
use linux::sys::{self, Pid};
use linux::tree::{Reach, Traces, Tree};
use protocol::output;
use protocol::record::{self, Record};

/// How long a rescue that failed waits before the next one.
const RETRY_MILLIS: u16 = 1000;

/// What a dead monitor leaves.
#[derive(Debug)]
pub(crate) struct Remains {
    pub(crate) job: JobId,
    pub(crate) supervisor: i32,
    /// Where the supervisor tells of the leader's end.
    pub(crate) reaper: OwnedFd,
    /// The write end of standard input, if that is open.
    pub(crate) stdin: Option<OwnedFd>,
    /// The read ends of the pipes.
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: Option<OwnedFd>,
    /// The master of the job's terminal, if it has one.
    pub(crate) terminal: Option<OwnedFd>,
    /// Processes that are certainly the job's.
    pub(crate) strays: Vec<ProcessIdentity>,
}

/// Runs a rescue monitor in the process that has just been forked for it.
pub(crate) fn run(host: &Host, remains: Remains) -> ! {
    let job = remains.job;
    let code = match take_over(host, remains).and_then(|mut monitor| monitor.serve()) {
        Ok(()) => 0,
        Err(error) => {
            tracing::error!(job.id = %job, %error, "job {job} could not be rescued: {error}");
            // The supervisor tries again at once; a disk that fails does not get better that fast.
            let _ = poll(&mut [], PollTimeout::from(RETRY_MILLIS));
            1
        }
    };
    sys::exit_now(code)
}

fn take_over(host: &Host, remains: Remains) -> io::Result<Monitor> {
    let mut keep = vec![&host.jobs, &remains.reaper, &remains.stdout];
    keep.extend(&remains.stdin);
    keep.extend(&remains.stderr);
    keep.extend(&remains.terminal);
    let signals = detach(&keep)?;
    let directory = record::open_directory(host.jobs.as_fd(), remains.job)?;
    let (record, mut facts) = record::Writer::resume(directory.as_fd(), remains.job)?;
    let (tree, leader) = find_processes(&remains, &mut facts)?;
    let Remains {
        reaper,
        stdin,
        stdout,
        stderr,
        terminal,
        ..
    } = remains;
    let terminal = terminal
        .map(|master| Terminal::taken_over(master, &stdout))
        .transpose()?;
    let input = match &terminal {
        Some(terminal) => Some(terminal.keyboard()?),
        None => stdin,
    };
    let input = input.filter(|_| !facts.stdin_closed);
    let me = procfs::own_stat()?;
    facts.monitor = ProcessIdentity {
        pid: me.pid,
        start_ticks: me.start_ticks,
    };
    let output = output::Writer::resume(directory.try_clone()?, facts.life.plan().output)?;
    let leader_gone = facts.life.exit().is_some();
    let mut monitor = Monitor {
        processes: Processes::taken_over(tree, leader, reaper, leader_gone),
        pump: Pump::new(stdout, stderr, terminal, output),
        stdin: Stdin::taken_over(input, record.noted_input()),
        server: Conversation::default(),
        signals: Rc::new(signals),
        timer: None,
        is_at_rest: false,
        keeps_short: false,
        facts,
        record,
        directory,
    };
    go_on(&mut monitor)?;
    Ok(monitor)
}

/// The job's processes by their traces, and its leader. The record names from now on what only this monitor knows.
fn find_processes(remains: &Remains, facts: &mut Record) -> io::Result<(Tree, Pid)> {
    let leader = facts.leader.as_ref().map(|leader| leader.identity);
    let leader = leader.ok_or_else(|| io::Error::other("its record names no leader"))?;
    let pid = Pid::new(leader.pid).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
    let group = facts.cgroup.as_deref().and_then(Group::at);
    facts.pipes = inodes([Some(&remains.stdout), remains.stderr.as_ref()]);
    facts.rescued = true;
    facts.strays.extend(&remains.strays);
    let known = facts.strays.iter().copied();
    let mut traces = Traces::new(remains.job, leader, facts.pipes.clone(), known);
    traces.terminal = remains.terminal.as_ref().and_then(terminal::device);
    let reach = Reach::Traces {
        traces: RefCell::new(traces),
        supervisor: Some(remains.supervisor),
    };
    let tree = Tree::new(reach, group);
    // A rescuer after this one, or a server, has to be told only of those that it could not find.
    facts.strays = tree.traceless(&facts.strays);
    facts.strays.truncate(STRAYS_NAMED);
    Ok((tree, pid))
}

/// Records the new monitor, and does what the old one may not have come to.
fn go_on(monitor: &mut Monitor) -> io::Result<()> {
    let now = clock::now();
    failpoint::hit("rescue.recording");
    monitor.write_record()?;
    failpoint::hit("rescue.recorded");
    let job = monitor.facts.job;
    monitor.server.server_gone(job, &monitor.directory);
    match monitor.facts.life.phase() {
        Phase::Killing => monitor.processes.resume_kill(now.boot),
        Phase::Terminating { .. } => {
            // The predecessor may have died between writing that down and doing it.
            let stop = monitor.facts.life.plan().stop;
            monitor.processes.terminate(stop.signal, stop.scope);
        }
        Phase::Starting
        | Phase::Running { .. }
        | Phase::Paused { .. }
        | Phase::Draining { .. }
        | Phase::Ended => {}
    }
    // Whoever is seen now is known for good, whatever it becomes.
    let _ = monitor.processes.tree.members();
    monitor.reap(now)
}
