//! The monitors that were forked here, what must outlive them, and the rescue of a job whose monitor died.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use super::MANY;
use super::fork_among_many::{Forked, LowDescriptors};
use super::handover::{HandedMonitor, give_fd, take_fd};
use super::idle_monitors::IdleMonitors;
use super::pipes::{self, Wanted};
use crate::monitor::{self, Descriptors, Host, Note, Pipes, Remains};
use job::time::BootInstant;
use job::{JobId, Signal};
use linux::cgroup::Group;
use linux::clock;
use linux::failpoint;
use linux::procfs;
use linux::procfs::ProcessIdentity;
use linux::sys::{self, End, Fork, Pid};
use protocol::record::{self, Found};
use protocol::wire;
use protocol::wire::messages::FromReaper;

/// How many ends of other people's processes are remembered: a leader can be reaped before its monitor,
/// whose death made it ours.
const ORPHANS_KEPT: usize = 1024;

/// Every live monitor.
#[derive(Debug, Default)]
pub(super) struct Monitors {
    live: HashMap<Pid, Monitor>,
    /// Those of them that have no job and could take one.
    idle: IdleMonitors,
    /// The jobs whose monitors were killed in this round of reaping, and how they were.
    dead: Vec<(Watched, End)>,
    /// Ends of processes that are neither monitors nor the server, newest last.
    orphans: VecDeque<(Pid, End)>,
    /// How monitors are forked beside many others.
    low_descriptors: Option<LowDescriptors>,
}

#[derive(Debug)]
struct Monitor {
    /// Where it is given its next job; closed, it ends instead. `None` for a rescuer, which has none after its own.
    channel: Option<OwnedFd>,
    /// `None` while it is idle.
    job: Option<Watched>,
}

/// A job under a monitor, and what must outlive that.
#[derive(Debug)]
struct Watched {
    job: JobId,
    /// The spare write end of standard input, as long as that is open.
    stdin: Option<OwnedFd>,
    /// The spare read ends of the job's pipes.
    stdout: OwnedFd,
    stderr: Option<OwnedFd>,
    /// The spare master of the job's terminal, if it has one.
    terminal: Option<OwnedFd>,
    /// Of a rescue monitor: the leader, and where to tell how it ended.
    leader: Option<(Pid, OwnedFd)>,
    is_rescuer: bool,
}

impl Monitors {
    /// Prepares for many; to be called while few descriptors are open.
    pub(super) fn prepare(&mut self) {
        // Without it, launches beside many others take longer, and nothing else.
        self.low_descriptors = LowDescriptors::new().ok();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.live.is_empty()
    }

    pub(super) fn contains(&self, monitor: Pid) -> bool {
        self.live.contains_key(&monitor)
    }

    pub(super) fn len(&self) -> usize {
        self.live.len()
    }

    /// How many of them have a job.
    pub(super) fn jobs(&self) -> usize {
        self.watched().count()
    }

    /// Takes in that a monitor's job is over.
    pub(super) fn on_idle(&mut self, note: Note) {
        let Some(monitor) = self.live.get_mut(&note.monitor) else {
            return;
        };
        if monitor.job.as_ref().map(|watched| watched.job) != Some(note.job) {
            return;
        }
        monitor.job = None;
        if let Some(leaving) = self.idle.put(note.monitor, clock::now().boot) {
            self.dismiss(leaving);
        }
    }

    /// When an idle monitor has been kept for long enough.
    pub(super) fn idle_due(&self) -> Option<BootInstant> {
        self.idle.due()
    }

    /// Has those leave that nobody has needed.
    pub(super) fn dismiss_overdue(&mut self, now: BootInstant) {
        while let Some(monitor) = self.idle.overdue(now) {
            self.dismiss(monitor);
        }
    }

    /// Has every idle monitor leave.
    pub(super) fn dismiss_idle(&mut self) {
        while let Some(monitor) = self.idle.take() {
            self.dismiss(monitor);
        }
    }

    /// It sees its channel closed, and ends.
    fn dismiss(&mut self, monitor: Pid) {
        if let Some(monitor) = self.live.get_mut(&monitor) {
            monitor.channel = None;
        }
    }

    /// Gives the launch to an idle monitor; `None` if there is none that takes it.
    fn employ(&mut self, descriptors: &Descriptors) -> Option<(Pid, OwnedFd)> {
        while let Some(pid) = self.idle.take() {
            let Some(channel) = self.live.get_mut(&pid).and_then(|idle| idle.channel.take()) else {
                continue;
            };
            let (next, fds) = descriptors.to_send();
            let fds: Vec<_> = fds.into_iter().map(AsFd::as_fd).collect();
            // One that was killed a moment ago takes nothing.
            if wire::send(channel.as_fd(), &next, &fds).is_ok() {
                return Some((pid, channel));
            }
        }
        None
    }

    /// Every job under a monitor, and the monitor.
    fn watched(&self) -> impl Iterator<Item = (Pid, &Watched)> {
        let monitors = self.live.iter();
        monitors.filter_map(|(pid, monitor)| Some((*pid, monitor.job.as_ref()?)))
    }

    fn watched_mut(&mut self) -> impl Iterator<Item = &mut Watched> {
        self.live
            .values_mut()
            .filter_map(|monitor| monitor.job.as_mut())
    }

    /// Every monitor with a job as the next program in this process finds it. After its job it ends.
    pub(super) fn hand_over(&mut self) -> io::Result<Vec<HandedMonitor>> {
        self.dismiss_idle();
        self.watched()
            .map(|(pid, monitor)| {
                let leader = monitor.leader.as_ref();
                Ok(HandedMonitor {
                    pid: pid.as_i32(),
                    is_rescuer: monitor.is_rescuer,
                    job: monitor.job,
                    stdin: monitor
                        .stdin
                        .as_ref()
                        .map(|pipe| give_fd(pipe.as_fd()))
                        .transpose()?,
                    stdout: give_fd(monitor.stdout.as_fd())?,
                    stderr: monitor
                        .stderr
                        .as_ref()
                        .map(|pipe| give_fd(pipe.as_fd()))
                        .transpose()?,
                    terminal: monitor
                        .terminal
                        .as_ref()
                        .map(|master| give_fd(master.as_fd()))
                        .transpose()?,
                    leader: leader
                        .map(|(leader, socket)| {
                            Ok::<_, io::Error>((leader.as_i32(), give_fd(socket.as_fd())?))
                        })
                        .transpose()?,
                })
            })
            .collect()
    }

    /// The monitors of the program before this one in the same process.
    pub(super) fn take_over(handed: Vec<HandedMonitor>) -> io::Result<Self> {
        let mut monitors = Self::default();
        for handed in handed {
            let job = Watched {
                job: handed.job,
                is_rescuer: handed.is_rescuer,
                stdin: handed.stdin.map(take_fd).transpose()?,
                stdout: take_fd(handed.stdout)?,
                stderr: handed.stderr.map(take_fd).transpose()?,
                terminal: handed.terminal.map(take_fd).transpose()?,
                leader: match handed.leader {
                    Some((pid, socket)) => Pid::new(pid).zip(Some(take_fd(socket)?)),
                    None => None,
                },
            };
            let pid =
                Pid::new(handed.pid).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
            let monitor = Monitor {
                channel: None,
                job: Some(job),
            };
            monitors.live.insert(pid, monitor);
        }
        Ok(monitors)
    }

    /// Asks every monitor to end its job; the second time, at once.
    pub(super) fn terminate(&self) {
        for (pid, _) in self.watched() {
            let _ = sys::signal_process(pid, Signal::TERM);
        }
    }

    /// Gives a new job to an idle monitor, or forks one for it. The pipes are made here, so that a read end stays.
    pub(super) fn launch(
        &mut self,
        host: &Host,
        job: JobId,
        wanted: Wanted,
        control: OwnedFd,
    ) -> Result<(), (io::Error, OwnedFd)> {
        let pipes = match pipes::make(wanted) {
            Ok(pipes) => pipes,
            Err(errno) => return Err((errno.into(), control)),
        };
        let descriptors = Descriptors { control, pipes };
        failpoint::hit("monitor.forking");
        let employed = if wanted.pty {
            None
        } else {
            self.employ(&descriptors)
        };
        let (pid, channel, descriptors) = match employed {
            Some((pid, channel)) => (pid, channel, descriptors),
            None => match self.fork_for(host, descriptors) {
                Ok(forked) => forked,
                Err((error, descriptors)) => return Err((error, descriptors.control)),
            },
        };
        failpoint::hit("monitor.forked");
        let Pipes {
            stdin,
            stdout,
            stderr,
            terminal,
        } = descriptors.pipes;
        let job = Watched {
            job,
            stdin: stdin.map(|pipe| pipe.1),
            stdout: stdout.0,
            stderr: stderr.map(|pipe| pipe.0),
            terminal: terminal.and_then(Result::ok).map(|pair| pair.0),
            leader: None,
            is_rescuer: false,
        };
        let monitor = Monitor {
            channel: Some(channel),
            job: Some(job),
        };
        self.live.insert(pid, monitor);
        Ok(())
    }

    /// Forks a monitor for this launch; its PID, and where it is given its next job.
    fn fork_for(
        &mut self,
        host: &Host,
        descriptors: Descriptors,
    ) -> Result<(Pid, OwnedFd, Descriptors), (io::Error, Descriptors)> {
        let (ours, theirs) = match wire::pair() {
            Ok(pair) => pair,
            Err(error) => return Err((error, descriptors)),
        };
        let many = self.live.len() >= MANY;
        let forked = match self.low_descriptors.as_mut().filter(|_| many) {
            Some(low_descriptors) => low_descriptors.fork(host, &theirs, &descriptors),
            None => None,
        };
        let pid = match forked {
            Some(Forked::Child(channel, low)) => monitor::run(host, channel, low),
            Some(Forked::Parent(pid)) => pid,
            None => match sys::fork() {
                Ok(Fork::Child) => monitor::run(host, theirs, descriptors),
                Ok(Fork::Parent(pid)) => pid,
                Err(errno) => return Err((errno.into(), descriptors)),
            },
        };
        Ok((pid, ours, descriptors))
    }

    /// Lets go of a job's standard input, so that the job sees its end.
    pub(super) fn close_stdin(&mut self, job: JobId) {
        for watched in self.watched_mut().filter(|watched| watched.job == job) {
            watched.stdin = None;
        }
    }

    /// Takes in that a process other than the server has been reaped.
    pub(super) fn reaped(&mut self, pid: Pid, end: End) {
        if let Some(monitor) = self.live.remove(&pid) {
            match monitor.job {
                // One that ended by itself has seen its job's end.
                Some(job) if end != End::Code(0) => self.dead.push((job, end)),
                Some(_) => {}
                None => self.idle.forget(pid),
            }
            return;
        }
        if self.orphans.len() == ORPHANS_KEPT {
            self.orphans.pop_front();
        }
        self.orphans.push_back((pid, end));
    }

    /// After a round of reaping: rescues the jobs of monitors that were killed, and tells the rescuers how
    /// their leaders ended.
    pub(super) fn settle(&mut self, host: &Host, server: Option<Pid>) {
        let dead = std::mem::take(&mut self.dead);
        let strays = match dead.as_slice() {
            [_] => self.strays(server),
            // Nobody can tell which of them is whose, or nobody asks.
            _ => Vec::new(),
        };
        for (watched, end) in dead {
            let job = watched.job;
            tracing::error!(job.id = %job, "the monitor of job {job} ended unasked: {end:?}");
            if let Err(error) = self.rescue(host, watched, strays.clone()) {
                tracing::error!(job.id = %job, %error, "job {job} cannot be rescued: {error}");
            }
        }
        self.tell_leaders_ends();
    }

    /// The processes that the death of the only dead monitor has made children of this one. None if
    /// some of them could be of another job: then a rescuer goes by their traces alone.
    fn strays(&self, server: Option<Pid>) -> Vec<ProcessIdentity> {
        if self.watched().any(|(_, watched)| watched.is_rescuer) {
            return Vec::new();
        }
        let Ok(me) = procfs::own_stat() else {
            return Vec::new();
        };
        let children = procfs::children_of(me.pid);
        // Looked at after the children: one that died before has left its own among them.
        let is_dead = |pid: &Pid| procfs::stat(pid.as_i32()).is_ok_and(|stat| stat.is_zombie());
        if self.live.keys().any(is_dead) {
            return Vec::new();
        }
        let is_stray = |stat: &procfs::Stat| {
            Pid::new(stat.pid)
                .is_some_and(|pid| Some(pid) != server && !self.live.contains_key(&pid))
        };
        let strays = children.into_iter().filter(is_stray);
        strays
            .map(|stat| ProcessIdentity {
                pid: stat.pid,
                start_ticks: stat.start_ticks,
            })
            .collect()
    }

    fn rescue(
        &mut self,
        host: &Host,
        dead: Watched,
        strays: Vec<ProcessIdentity>,
    ) -> io::Result<()> {
        let Watched {
            job,
            stdin,
            stdout,
            stderr,
            terminal,
            ..
        } = dead;
        let directory = match record::open_directory(host.jobs.as_fd(), job) {
            Ok(directory) => directory,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        // Without a leader in the record no program runs: the leader writes it before it executes one,
        // and gives up where its monitor is dead by then.
        let Some(Found {
            record: Some(record),
            last_word,
            ..
        }) = record::read(directory.as_fd(), job)?
        else {
            return Ok(());
        };
        let identity = record.leader.as_ref().map(|leader| leader.identity);
        let Some((leader, identity)) =
            identity.and_then(|identity| Some((Pid::new(identity.pid)?, identity)))
        else {
            return Ok(());
        };
        if record.life.ended_at().is_some() {
            if let Some(group) = record.cgroup.as_deref().and_then(Group::at) {
                let _ = group.remove();
            }
            return Ok(());
        }
        if last_word.as_ref().is_some_and(record::is_orphaned) {
            return Ok(());
        }
        if procfs::is_same_process(leader, identity.start_ticks) {
            // It is there, so whoever had its number before it was somebody else.
            self.orphans.retain(|(pid, _)| *pid != leader);
        }
        let (ours, theirs) = wire::pair()?;
        let remains = Remains {
            job,
            supervisor: i32::try_from(std::process::id()).map_err(io::Error::other)?,
            reaper: theirs,
            strays,
            stdin: stdin.as_ref().map(OwnedFd::try_clone).transpose()?,
            stdout: stdout.try_clone()?,
            stderr: stderr.as_ref().map(OwnedFd::try_clone).transpose()?,
            terminal: terminal.as_ref().map(OwnedFd::try_clone).transpose()?,
        };
        match sys::fork()? {
            Fork::Child => monitor::rescue(host, remains),
            Fork::Parent(pid) => {
                let job = Watched {
                    job,
                    stdin,
                    stdout,
                    stderr,
                    terminal,
                    leader: Some((leader, ours)),
                    is_rescuer: true,
                };
                let monitor = Monitor {
                    channel: None,
                    job: Some(job),
                };
                self.live.insert(pid, monitor);
                Ok(())
            }
        }
    }

    fn tell_leaders_ends(&mut self) {
        if self.orphans.is_empty() {
            return;
        }
        let orphans = &self.orphans;
        let jobs = self
            .live
            .values_mut()
            .filter_map(|monitor| monitor.job.as_mut());
        for monitor in jobs {
            let Some((leader, socket)) = &monitor.leader else {
                continue;
            };
            let end = orphans.iter().rev().find(|(pid, _)| pid == leader);
            if let Some((_, end)) = end {
                let status = monitor::exit_status(*end);
                let told = wire::send(socket.as_fd(), &FromReaper::LeaderEnded { status }, &[]);
                if let Err(error) = told {
                    tracing::error!(job.id = %monitor.job, %error, "the exit of job {} could not be told: {error}", monitor.job);
                }
                // Told once; the closed socket says that nothing more comes.
                monitor.leader = None;
            }
        }
    }
}
