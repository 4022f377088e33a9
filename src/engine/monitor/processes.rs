//! The processes of a job: who they are, who collects those that end, and how far the leader is.
//!
//! What an end means for the job is not known here.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signalfd::SignalFd;

use super::leader::Starting;
use super::{Awaited, Ready};
use job::outcome::{ExitStatus, Usage};
use job::spec::Scope;
use job::time::BootInstant;
use job::{Signal, Survivor};
use linux::cgroup::Group;
use linux::sys::child::Stack;
use linux::sys::{self, End, Pid, WaitTarget};
use linux::tree::{self, Delivery, Tree};
use protocol::wire::messages::FromReaper;
use protocol::wire::{self, Received};

/// How soon a kill is repeated while something is left, at first and at most.
const SWEEP_FIRST: Duration = Duration::from_millis(20);
const SWEEP_MOST: Duration = Duration::from_secs(1);

/// After so long a kill names those that it could not end.
const SURVIVORS_AFTER: Duration = Duration::from_secs(5);

/// The most survivors that are named.
const SURVIVORS_NAMED: usize = 16;

/// Who collects the job's processes when they end.
enum Reaper {
    /// This monitor: it is their subreaper.
    Own,
    /// The supervisor, since the monitor that was their subreaper is dead. It reports the leader's end
    /// over this socket; `None` when it is dead, too.
    Supervisor(Option<OwnedFd>),
}

/// A kill under way.
#[derive(Clone, Copy, Debug)]
struct Kill {
    since: BootInstant,
    next: BootInstant,
    pause: Duration,
}

impl Kill {
    fn new(now: BootInstant) -> Self {
        Self {
            since: now,
            next: now,
            pause: SWEEP_FIRST,
        }
    }
}

/// What a look at the children has shown.
#[derive(Clone, Copy, Debug)]
pub(super) enum Seen {
    /// No other has ended.
    Nothing,
    /// The leader has ended; its number is its own until it is collected.
    LeaderEnded(End),
    /// No child is left.
    NobodyLeft,
}

pub(super) struct Processes {
    pub(super) tree: Tree,
    reaper: Reaper,
    leader: Pid,
    /// Its number may be somebody else's by now.
    leader_reaped: bool,
    /// It has ended, as far as anybody can tell.
    leader_gone: bool,
    left_behind_counted: bool,
    /// What the processes have used that were reaped here.
    used: sys::Usage,
    /// The leader before it is the program.
    pub(super) starting: Option<Starting>,
    /// Where it began.
    stack: Option<Rc<Stack>>,
    kill: Option<Kill>,
}

impl Processes {
    /// Those of a job whose leader has just been started here.
    pub(super) fn launched(tree: Tree, starting: Starting, stack: Rc<Stack>) -> Self {
        Self {
            tree,
            reaper: Reaper::Own,
            leader: starting.pid(),
            leader_reaped: false,
            leader_gone: false,
            left_behind_counted: false,
            used: sys::Usage::default(),
            starting: Some(starting),
            stack: Some(stack),
            kill: None,
        }
    }

    /// Those of a job whose monitor died; `reaper` is where the supervisor reports the leader's end.
    pub(super) fn taken_over(tree: Tree, leader: Pid, reaper: OwnedFd, leader_gone: bool) -> Self {
        Self {
            tree,
            reaper: Reaper::Supervisor(Some(reaper)),
            leader,
            // Not our child: its number may be anybody's at any time.
            leader_reaped: true,
            leader_gone,
            left_behind_counted: false,
            used: sys::Usage::default(),
            starting: None,
            stack: None,
            kill: None,
        }
    }

    pub(super) fn awaited<'a>(&'a self, awaited: &mut Vec<Awaited<'a>>) {
        // Before what the program may have written already.
        if let Some(starting) = &self.starting {
            // Only that it hangs up is of interest, which needs no asking for (poll(2)).
            awaited.push((Ready::Status, starting.status(), PollFlags::empty()));
        }
        if let Reaper::Supervisor(Some(socket)) = &self.reaper {
            awaited.push((Ready::Reaper, socket.as_fd(), PollFlags::POLLIN));
        }
    }

    /// When the next sweep of a kill, or the next look, is due.
    pub(super) fn due(&self) -> Option<BootInstant> {
        self.kill.map(|kill| kill.next)
    }

    /// Gives back the memory that the start has used.
    pub(super) fn rest(&self) {
        if let Some(stack) = &self.stack {
            stack.give_back();
        }
    }

    pub(super) fn signal(&self, signal: Signal, scope: Scope) -> Delivery {
        self.tree
            .signal(signal, scope, self.leader, self.leader_reaped)
    }

    pub(super) fn terminate(&self, signal: Signal, scope: Scope) {
        self.tree
            .terminate(signal, scope, self.leader, self.leader_reaped);
    }

    pub(super) fn terminate_rest(&self, signal: Signal, reached: Scope) {
        self.tree.terminate_rest(signal, reached, self.leader);
    }

    /// Begins a kill; is the first sweep due now?
    pub(super) fn begin_kill(&mut self, now: BootInstant) -> bool {
        let mut kill = Kill::new(now);
        let is_struck = self.tree.kill_group();
        if is_struck {
            // The subreaper's own sweep follows only if this was not enough.
            kill.next = now.after(SWEEP_FIRST);
        }
        self.kill = Some(kill);
        !is_struck
    }

    /// A kill that a monitor before this one has begun continues.
    pub(super) fn resume_kill(&mut self, now: BootInstant) {
        self.kill = Some(Kill::new(now));
    }

    /// One sweep; whom the kill could not end, once it has tried for long enough.
    pub(super) fn sweep(&mut self, is_kill: bool, now: BootInstant) -> Option<Vec<Survivor>> {
        let kill = self.kill?;
        self.kill = Some(Kill {
            next: now.after(kill.pause),
            pause: (kill.pause * 2).min(SWEEP_MOST),
            ..kill
        });
        if !is_kill {
            return None;
        }
        self.tree.kill_group();
        let left = self.tree.kill();
        let is_long = kill.since.after(SURVIVORS_AFTER) <= now;
        is_long.then(|| tree::survivors(&left, SURVIVORS_NAMED))
    }

    /// Has a sweep come soon, though no signal announces anything.
    pub(super) fn look_again(&mut self, now: BootInstant) {
        let kill = self.kill.get_or_insert(Kill::new(now));
        kill.next = now.after(kill.pause);
    }

    pub(super) fn end_kill(&mut self) {
        self.kill = None;
    }

    /// Does this monitor reap?
    pub(super) fn is_reaper(&self) -> bool {
        matches!(self.reaper, Reaper::Own)
    }

    /// Collects whoever has ended, up to the leader.
    pub(super) fn look(&mut self) -> io::Result<Seen> {
        loop {
            match sys::wait(WaitTarget::Any, false) {
                Err(Errno::ECHILD) => return Ok(Seen::NobodyLeft),
                Err(errno) => return Err(errno.into()),
                Ok(None) => return Ok(Seen::Nothing),
                Ok(Some(ended)) if ended.pid == self.leader && !self.leader_reaped => {
                    return Ok(Seen::LeaderEnded(ended.end));
                }
                Ok(Some(ended)) => self.collect(ended.pid)?,
            }
        }
    }

    /// Reaps one that has ended; its number is free afterwards.
    fn collect(&mut self, ended: Pid) -> io::Result<()> {
        if let Some(reaped) = sys::wait(WaitTarget::Child(ended), true)? {
            self.used = self.used.and(reaped.usage);
        }
        Ok(())
    }

    /// Reaps the leader, whose end has been recorded.
    pub(super) fn collect_leader(&mut self) -> io::Result<()> {
        self.collect(self.leader)
    }

    /// The leader was collected.
    pub(super) fn leader_is_free(&mut self) {
        self.leader_reaped = true;
        self.leader_gone = true;
    }

    /// Waits for the end of a leader that has reported why it executes nothing. Whatever its exit code is, it is not
    /// the program's.
    pub(super) fn discard_leader(&mut self, signals: &SignalFd) {
        while matches!(sys::wait(WaitTarget::Child(self.leader), true), Ok(None)) {
            let mut child = [PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
            let _ = poll(&mut child, PollTimeout::from(100_u8));
        }
        self.leader_reaped = true;
    }

    pub(super) fn is_leader_reaped(&self) -> bool {
        self.leader_reaped
    }

    /// The next end of the leader that the supervisor reports.
    pub(super) fn hear(&mut self) -> io::Result<Option<ExitStatus>> {
        let Reaper::Supervisor(Some(socket)) = &self.reaper else {
            return Ok(None);
        };
        match wire::receive::<FromReaper>(socket.as_fd()) {
            Ok(Received::Message(FromReaper::LeaderEnded { status }, _)) => Ok(Some(status)),
            Ok(Received::Closed) => {
                self.reaper = Reaper::Supervisor(None);
                Ok(None)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn leader_has_ended(&mut self) {
        self.leader_gone = true;
    }

    pub(super) fn is_leader_gone(&self) -> bool {
        self.leader_gone
    }

    /// Nobody can report the leader's end any more.
    pub(super) fn is_unheard(&self) -> bool {
        !self.leader_gone && matches!(self.reaper, Reaper::Supervisor(None))
    }

    /// Once, after the leader's end: how many others are still there?
    pub(super) fn count_left_behind(&mut self) -> Option<u32> {
        if self.left_behind_counted {
            return None;
        }
        self.left_behind_counted = true;
        Some(u32::try_from(self.tree.members().len()).unwrap_or(u32::MAX))
    }

    pub(super) fn oom_killed(&self) -> Option<bool> {
        self.tree.group().and_then(Group::oom_killed)
    }

    /// What all of them have used; only the one that reaps learns it.
    pub(super) fn usage(&self) -> Option<Usage> {
        self.is_reaper().then_some(Usage {
            user_cpu_seconds: self.used.user.as_secs_f64(),
            system_cpu_seconds: self.used.system.as_secs_f64(),
            max_rss_bytes: self.used.max_rss_bytes,
            max_memory_bytes: self.tree.group().and_then(Group::memory_peak),
        })
    }
}

/// How a process ended, in the words of the domain.
pub(crate) fn exit_status(end: End) -> ExitStatus {
    match end {
        End::Code(code) => ExitStatus::Code(code),
        End::Signal {
            number,
            core_dumped,
        } => ExitStatus::Signal {
            signal: Signal::that_ended(number),
            core_dumped,
        },
    }
}
