//! The processes of a job, and signals to them. Why they are signalled is not known here.
//!
//! The monitor is a subreaper: everything the job starts stays beneath it, whatever groups and sessions
//! it makes. Direct children cannot be recycled before the monitor reaps them; deeper ones are held by a
//! pidfd and looked at again before they are signalled.

mod traces;

use std::cell::RefCell;
use std::collections::HashSet;
use std::os::fd::AsFd;

use nix::errno::Errno;

use crate::cgroup::Group;
use crate::procfs::ProcessIdentity;
use crate::procfs::{self, Stat};
use crate::sys::{self, Pid};
use job::spec::Scope;
use job::{Signal, Survivor};
pub use traces::{JOB_VARIABLE, Traces};

/// How often a kill looks for new processes before it strikes at those it has.
const MOST_PASSES: usize = 64;

/// The processes of one job as its monitor, or whoever looks for them without one, can reach them.
#[derive(Debug)]
pub struct Tree {
    reach: Reach,
    group: Option<Group>,
}

/// How the job's processes are found.
#[derive(Debug)]
pub enum Reach {
    /// They are all beneath this monitor, which is their subreaper.
    Subreaper(i32),
    /// The subreaper is dead: they are found by their traces.
    Traces {
        traces: RefCell<Traces>,
        /// They are beneath this supervisor among others, for as long as it is the parent of who asks;
        /// after that, and where it is not known, they are anywhere.
        supervisor: Option<i32>,
    },
}

/// Who was signalled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delivery {
    pub delivered: u32,
    /// The last refusal, such as EPERM for a process that changed its user.
    pub refused: Option<Errno>,
}

impl Tree {
    pub fn new(reach: Reach, group: Option<Group>) -> Self {
        Self { reach, group }
    }

    /// Is the leader, as it was recorded, still there and no zombie? Asked only if it is not our child.
    pub fn has_leader(&self) -> bool {
        match &self.reach {
            Reach::Subreaper(_) => true,
            Reach::Traces { traces, .. } => {
                let leader = traces.borrow().leader();
                procfs::stat(leader.pid)
                    .is_ok_and(|stat| stat.start_ticks == leader.start_ticks && !stat.is_zombie())
            }
        }
    }

    /// Is this the leader that was recorded? For a monitor that never could reap it.
    fn is_recorded_leader(&self, stat: &Stat) -> bool {
        match &self.reach {
            Reach::Subreaper(_) => false,
            Reach::Traces { traces, .. } => traces.borrow().is_leader(stat),
        }
    }

    /// Those of these processes that bear no trace, which another rescuer would not find by itself.
    pub fn traceless(&self, processes: &[ProcessIdentity]) -> Vec<ProcessIdentity> {
        let Reach::Traces { traces, .. } = &self.reach else {
            return Vec::new();
        };
        let traces = traces.borrow();
        let is_traceless = |process: &&ProcessIdentity| {
            procfs::stat(process.pid).is_ok_and(|stat| {
                stat.start_ticks == process.start_ticks
                    && !stat.is_zombie()
                    && !traces.bears_a_trace(&stat)
            })
        };
        processes.iter().filter(is_traceless).copied().collect()
    }

    pub fn group(&self) -> Option<&Group> {
        self.group.as_ref()
    }

    /// Every live process of the job: beneath the monitor, or in the job's cgroup.
    pub fn members(&self) -> Vec<Stat> {
        let mut members = match &self.reach {
            Reach::Subreaper(monitor) => procfs::descendants(*monitor),
            Reach::Traces { traces, supervisor } => {
                let mut traces = traces.borrow_mut();
                let parent = nix::unistd::getppid().as_raw();
                match supervisor.filter(|supervisor| *supervisor == parent) {
                    Some(supervisor) => traces.beneath(supervisor),
                    None => traces.anywhere(),
                }
            }
        };
        if let Some(group) = &self.group {
            let known: HashSet<i32> = members.iter().map(|stat| stat.pid).collect();
            let beside = group
                .members()
                .into_iter()
                .filter(|pid| !known.contains(pid));
            members.extend(beside.filter_map(|pid| procfs::stat(pid).ok()));
        }
        members.retain(|stat| !stat.is_zombie());
        members
    }

    /// Is anything in the job's cgroup? Without a cgroup the subreaper alone decides.
    pub fn is_group_populated(&self) -> bool {
        self.group.as_ref().is_some_and(Group::is_populated)
    }

    /// Signals the processes in scope. While the leader is unreaped its group's number is safe to use.
    pub fn signal(
        &self,
        signal: Signal,
        scope: Scope,
        leader: Pid,
        leader_reaped: bool,
    ) -> Delivery {
        let in_scope = |stat: &Stat| match scope {
            Scope::Leader => {
                stat.pid == leader.as_i32() && (!leader_reaped || self.is_recorded_leader(stat))
            }
            Scope::Group => stat.pgid == leader.as_i32(),
            Scope::All => true,
        };
        let members: Vec<Stat> = self.members().into_iter().filter(in_scope).collect();
        if scope == Scope::Group && !leader_reaped {
            return match sys::signal_group(leader, signal) {
                Ok(()) => Delivery {
                    delivered: u32::try_from(members.len()).unwrap_or(u32::MAX),
                    refused: None,
                },
                Err(Errno::ESRCH) => Delivery::default(),
                // None of them is this user's, who may be able to become theirs.
                Err(_) => self.signal_each(&members, signal),
            };
        }
        self.signal_each(&members, signal)
    }

    /// The polite signal of a stop. A stopped process would not see it, so SIGCONT follows.
    pub fn terminate(&self, signal: Signal, scope: Scope, leader: Pid, leader_reaped: bool) {
        if scope == Scope::Group && !leader_reaped {
            // Without a look at /proc: this is the way of nearly every stop.
            let sent = sys::signal_group(leader, signal);
            let _ = sys::signal_group(leader, Signal::CONT);
            if sent != Err(Errno::EPERM) {
                return;
            }
        }
        let _ = self.signal(signal, scope, leader, leader_reaped);
        let _ = self.signal(Signal::CONT, scope, leader, leader_reaped);
    }

    /// The polite signal to those that a stop with this scope has not reached.
    pub fn terminate_rest(&self, signal: Signal, reached: Scope, leader: Pid) {
        let rest: Vec<Stat> = self
            .members()
            .into_iter()
            .filter(|stat| match reached {
                Scope::All => false,
                Scope::Group => stat.pgid != leader.as_i32(),
                Scope::Leader => true,
            })
            .collect();
        self.signal_each(&rest, signal);
        self.signal_each(&rest, Signal::CONT);
    }

    /// Stops every process: again and again, until a pass finds none that is new.
    pub fn freeze(&self) -> Delivery {
        let mut stopped = HashSet::new();
        let mut delivery = Delivery::default();
        for _ in 0..MOST_PASSES {
            let new: Vec<Stat> = self
                .members()
                .into_iter()
                .filter(|stat| stopped.insert((stat.pid, stat.start_ticks)))
                .collect();
            if new.is_empty() {
                break;
            }
            let pass = self.signal_each(&new, Signal::STOP);
            delivery.delivered += pass.delivered;
            delivery.refused = pass.refused.or(delivery.refused);
        }
        delivery
    }

    /// Wakes every process.
    pub fn thaw(&self) -> Delivery {
        self.signal_each(&self.members(), Signal::CONT)
    }

    /// SIGKILL through the cgroup: one write, and no process can outrun it. `false` without a cgroup.
    pub fn kill_group(&self) -> bool {
        self.group
            .as_ref()
            .is_some_and(|group| group.kill().is_ok())
    }

    /// SIGKILL to every process beneath the monitor. They are stopped first, so that none of them can
    /// fork away while the others die. What is left afterwards is returned.
    pub fn kill(&self) -> Vec<Stat> {
        let _ = self.freeze();
        let members = self.members();
        self.signal_each(&members, Signal::KILL);
        members
    }

    fn signal_each(&self, members: &[Stat], signal: Signal) -> Delivery {
        let mut delivery = Delivery::default();
        for stat in members {
            let sent = match self.signal_member(stat, signal) {
                Err(Errno::EPERM) => signal_as_its_user(stat, signal),
                sent => sent,
            };
            match sent {
                Ok(()) => delivery.delivered += 1,
                Err(Errno::ESRCH) => {}
                Err(errno) => delivery.refused = Some(errno),
            }
        }
        delivery
    }

    fn signal_member(&self, stat: &Stat, signal: Signal) -> nix::Result<()> {
        let pid = Pid::new(stat.pid).ok_or(Errno::ESRCH)?;
        match self.reach {
            // A child of ours: nobody else can reap it, so its number is its own.
            Reach::Subreaper(monitor) if stat.ppid == monitor => {
                return sys::signal_process(pid, signal);
            }
            Reach::Subreaper(_) | Reach::Traces { .. } => {}
        }
        match sys::pidfd_open(pid) {
            Ok(held) => {
                if !procfs::is_same_process(pid, stat.start_ticks) {
                    return Err(Errno::ESRCH);
                }
                sys::pidfd_signal(held.as_fd(), signal)
            }
            Err(Errno::ENOSYS | Errno::EPERM) if procfs::is_same_process(pid, stat.start_ticks) => {
                // A container's seccomp filter without pidfds: the window for a recycled number is microseconds.
                sys::signal_process(pid, signal)
            }
            Err(errno) => Err(errno),
        }
    }
}

/// Without the right to signal another user's process: as that user, whom this process may be able to become.
fn signal_as_its_user(stat: &Stat, signal: Signal) -> nix::Result<()> {
    let pid = Pid::new(stat.pid).ok_or(Errno::ESRCH)?;
    let uid = procfs::real_uid(stat.pid).ok_or(Errno::ESRCH)?;
    if !procfs::is_same_process(pid, stat.start_ticks) {
        return Err(Errno::ESRCH);
    }
    sys::signal_as(uid, pid, signal).map_err(|_| Errno::EPERM)
}

/// Who blocks a stop, for people.
pub fn survivors(members: &[Stat], most: usize) -> Vec<Survivor> {
    members
        .iter()
        .take(most)
        .map(|stat| Survivor {
            pid: stat.pid,
            state: stat.state,
            uid: procfs::euid(stat.pid).unwrap_or(u32::MAX),
            name: stat.name.chars().take(32).collect(),
        })
        .collect()
}
