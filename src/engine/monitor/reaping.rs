//! How a monitor learns that processes have ended: which one, how, and that none is left.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::leader::Outcome;
use super::{Kill, Monitor, Reaper, SWEEP_FIRST};
use job::Signal;
use job::life::{Event, Life, Phase};
use job::outcome::{Exit, ExitStatus, SpawnFailure, Stage};
use job::time::Now;
use linux::cgroup::Group;
use linux::failpoint;
use linux::sys::{self, End, Pid, WaitTarget};
use protocol::output::Stream;
use protocol::record;
use protocol::wire::messages::FromReaper;
use protocol::wire::{self, Received};

impl Monitor {
    /// The socket on which the supervisor tells of the leader's end.
    pub(super) fn reaper_socket(&self) -> Option<&OwnedFd> {
        match &self.reaper {
            Reaper::Own => None,
            Reaper::Supervisor(socket) => socket.as_ref(),
        }
    }

    /// The leader has become the program, or it has ended.
    pub(super) fn on_status(&mut self, now: Now) -> io::Result<()> {
        let Some(starting) = self.starting.take() else {
            return Ok(());
        };
        match starting.outcome() {
            Err(starting) => {
                self.starting = Some(starting);
                Ok(())
            }
            Ok(Outcome::Executed(leader)) => {
                failpoint::hit("start.recording");
                self.facts.leader = Some(leader);
                let applied = self.apply(Event::Started, now);
                failpoint::hit("start.recorded");
                applied
            }
            Ok(Outcome::Failed(failure)) => self.not_spawned(failure, now),
            Ok(Outcome::Killed) if self.facts.life.phase() == Phase::Starting => {
                let message =
                    "failed to execute the program: the new process was killed before it could"
                        .to_owned();
                self.not_spawned(
                    SpawnFailure {
                        stage: Stage::Exec,
                        errno: 0,
                        message,
                    },
                    now,
                )
            }
            Ok(Outcome::Killed) => Ok(()),
        }
    }

    pub(super) fn not_spawned(&mut self, failure: SpawnFailure, now: Now) -> io::Result<()> {
        // It has reported and is on its way out; whatever its exit code is, it is not the program's.
        while matches!(sys::wait(WaitTarget::Child(self.leader), true), Ok(None)) {
            let mut child = [PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
            let _ = poll(&mut child, PollTimeout::from(100_u8));
        }
        self.leader_reaped = true;
        self.stdout = None;
        self.stderr = None;
        self.apply(Event::SpawnFailed(failure), now)
    }

    /// Takes in which processes have ended.
    pub(super) fn reap(&mut self, now: Now) -> io::Result<()> {
        if self.facts.life.phase() == Phase::Ended {
            return Ok(());
        }
        match self.reaper {
            Reaper::Own => self.reap_own(now),
            Reaper::Supervisor(_) => self.hear_of_ends(now),
        }
    }

    /// Collects every process that has ended. The leader's end is recorded before its number is free.
    fn reap_own(&mut self, now: Now) -> io::Result<()> {
        loop {
            match sys::wait(WaitTarget::Any, false) {
                Err(Errno::ECHILD) => return self.on_no_children(now),
                Err(errno) => return Err(errno.into()),
                Ok(None) => break,
                Ok(Some(ended)) if ended.pid == self.leader && !self.leader_reaped => {
                    if self.starting.is_some() {
                        self.on_status(now)?;
                        if self.leader_reaped {
                            return Ok(());
                        }
                    }
                    let oom_killed = self.tree.group().and_then(Group::oom_killed);
                    let exit = Exit {
                        status: exit_status(ended.end),
                        at: now.wall,
                        oom_killed,
                    };
                    failpoint::hit("exit.recording");
                    self.apply(Event::LeaderExited(exit), now)?;
                    failpoint::hit("exit.recorded");
                    self.collect(ended.pid)?;
                    failpoint::hit("leader.reaped");
                    self.leader_reaped = true;
                    self.leader_gone = true;
                }
                Ok(Some(ended)) => self.collect(ended.pid)?,
            }
        }
        if self.leader_reaped {
            self.tell_left_behind(now)?;
        }
        Ok(())
    }

    /// Reaps one that has ended; its number is free afterwards.
    fn collect(&mut self, ended: Pid) -> io::Result<()> {
        if let Some(reaped) = sys::wait(WaitTarget::Child(ended), true)? {
            self.used = self.used.and(reaped.usage);
        }
        Ok(())
    }

    /// Once, after the leader's end: how many others are still there?
    fn tell_left_behind(&mut self, now: Now) -> io::Result<()> {
        if !self.left_behind_told {
            self.left_behind_told = true;
            let remaining = u32::try_from(self.tree.members().len()).unwrap_or(u32::MAX);
            self.apply(Event::LeftBehind(remaining), now)?;
        }
        Ok(())
    }

    /// The supervisor reaps: it says how the leader ended, and `/proc` says what is left.
    fn hear_of_ends(&mut self, now: Now) -> io::Result<()> {
        while let Reaper::Supervisor(Some(socket)) = &self.reaper {
            match wire::receive::<FromReaper>(socket.as_fd()) {
                Ok(Received::Message(FromReaper::LeaderEnded { status }, _)) => {
                    if self.never_ran(now)? {
                        return Ok(());
                    }
                    let oom_killed = self.tree.group().and_then(Group::oom_killed);
                    self.apply(
                        Event::LeaderExited(Exit {
                            status,
                            at: now.wall,
                            oom_killed,
                        }),
                        now,
                    )?;
                    self.leader_gone = true;
                }
                Ok(Received::Closed) => self.reaper = Reaper::Supervisor(None),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        if !self.leader_gone && self.reaper_socket().is_none() {
            // Nobody can say any more how it will end; that it has ended can still be seen.
            self.leader_gone = !self.tree.has_leader();
            if self.leader_gone && self.never_ran(now)? {
                return Ok(());
            }
            self.look_again(now);
        }
        if !self.leader_gone {
            return Ok(());
        }
        if self.tree.members().is_empty() {
            return self.on_no_children(now);
        }
        self.tell_left_behind(now)?;
        // Nobody announces the end of a process that is not ours: look again.
        self.look_again(now);
        Ok(())
    }

    /// Has the leader, which has ended, said that it executed nothing? Then its exit code is not the
    /// program's. The one who should have heard it is dead.
    fn never_ran(&mut self, now: Now) -> io::Result<bool> {
        let Some(failure) = self.record.last_word() else {
            return Ok(false);
        };
        if record::is_orphaned(&failure) {
            // The server finds the word, and launches the job again.
            return Err(io::Error::other("its leader gave up without its monitor"));
        }
        self.stdout = None;
        self.stderr = None;
        self.facts.leader = None;
        self.facts.life = Life::new(self.facts.life.plan().clone());
        self.apply(Event::SpawnFailed(failure), now)?;
        Ok(true)
    }

    /// Has `reap` called again soon, though no signal announces anything.
    fn look_again(&mut self, now: Now) {
        let kill = self.kill.get_or_insert(Kill {
            since: now.boot,
            next: now.boot,
            pause: SWEEP_FIRST,
        });
        kill.next = now.boot.after(kill.pause);
    }

    /// `ECHILD`: nothing is left beneath the monitor. With a cgroup, it must agree.
    pub(super) fn on_no_children(&mut self, now: Now) -> io::Result<()> {
        if self.tree.is_group_populated() {
            self.tell_left_behind(now)?;
            self.look_again(now);
            return Ok(());
        }
        self.kill = None;
        self.apply(Event::Emptied, now)?;
        // What the job wrote last is in the pipes by now, and usually their end as well.
        for stream in [Stream::Stdout, Stream::Stderr] {
            while self.pipe(stream).is_some() && self.pump_once(stream, now)? {}
        }
        self.tell_output_closed(now)
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
            signal: Signal::from_number(number).unwrap_or(Signal::KILL),
            core_dumped,
        },
    }
}
