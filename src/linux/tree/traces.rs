//! What tells the processes of a job from others where its monitor is not above them. It only reads `/proc`.

use std::collections::HashSet;

use crate::procfs::ProcessIdentity;
use crate::procfs::{self, Stat};
use job::JobId;

/// The variable in every job's environment that says whose it is, to the job and to a rescuer.
pub const JOB_VARIABLE: &str = "PROCESSION_JOB_ID";

/// What a job's processes bear, wherever they are.
#[derive(Debug)]
pub struct Traces {
    leader: ProcessIdentity,
    /// What stands in the environment that they were started with.
    mark: String,
    /// The inodes of the job's pipes.
    pipes: Vec<u64>,
    /// The device number of the job's terminal, where the supervisor holds it: after that, it is reused.
    pub terminal: Option<u64>,
    /// Number and start time of those that were found before, whatever they have become.
    known: HashSet<(i32, u64)>,
}

impl Traces {
    pub fn new(
        job: JobId,
        leader: ProcessIdentity,
        pipes: Vec<u64>,
        known: impl IntoIterator<Item = ProcessIdentity>,
    ) -> Self {
        let known = known
            .into_iter()
            .map(|process| (process.pid, process.start_ticks));
        Self {
            leader,
            mark: format!("{JOB_VARIABLE}={job}"),
            pipes,
            terminal: None,
            known: known.collect(),
        }
    }

    pub fn leader(&self) -> ProcessIdentity {
        self.leader
    }

    /// The children of the supervisor that bear a trace of the job, and all that is beneath them. What is
    /// there was some job's, so any trace will do.
    pub(super) fn beneath(&mut self, supervisor: i32) -> Vec<Stat> {
        let all = everybody();
        let members = grow(&all, |stat, found| {
            found.pids.contains(&stat.ppid)
                || (stat.ppid == supervisor && (self.is_certain(stat) || self.bears_a_trace(stat)))
        });
        self.remember(&members);
        members
    }

    /// The processes anywhere on the machine that are certainly the job's. Who has the session's number may
    /// be a stranger, for whom it was reused; who has the mark alone may have got it handed over, as
    /// at(1) does: each is believed together with another trace.
    pub(super) fn anywhere(&mut self) -> Vec<Stat> {
        let mut all = everybody();
        all.retain(|stat| stat.start_ticks >= self.leader.start_ticks);
        let has_leader = all.iter().any(|stat| self.is_leader(stat));
        // A session's number is not reused while the session has members: one of them speaks for all.
        let is_ours = has_leader
            || all.iter().any(|stat| {
                self.is_of_session(stat) && (self.is_marked(stat) || self.writes_output(stat))
            });
        let members = grow(&all, |stat, found| {
            found.pids.contains(&stat.ppid)
                // A job's process is in a session that the job has made.
                || found.sessions.contains(&stat.sid)
                || self.is_certain(stat)
                || (is_ours && self.is_of_session(stat))
                || (self.is_marked(stat) && self.writes_output(stat))
        });
        self.remember(&members);
        members
    }

    /// Does it bear a trace that a rescuer finds by itself?
    pub(super) fn bears_a_trace(&self, stat: &Stat) -> bool {
        self.is_of_session(stat)
            || self.writes_output(stat)
            || self.has_terminal(stat)
            || self.is_marked(stat)
    }

    fn is_certain(&self, stat: &Stat) -> bool {
        self.is_leader(stat) || self.known.contains(&(stat.pid, stat.start_ticks))
    }

    pub(super) fn is_leader(&self, stat: &Stat) -> bool {
        (stat.pid, stat.start_ticks) == (self.leader.pid, self.leader.start_ticks)
    }

    fn is_of_session(&self, stat: &Stat) -> bool {
        stat.sid == self.leader.pid || stat.pgid == self.leader.pid
    }

    fn is_marked(&self, stat: &Stat) -> bool {
        procfs::was_started_with(stat.pid, &self.mark)
    }

    fn writes_output(&self, stat: &Stat) -> bool {
        procfs::writes_to_pipe(stat.pid, &self.pipes)
    }

    fn has_terminal(&self, stat: &Stat) -> bool {
        self.terminal.is_some_and(|terminal| {
            stat.terminal == Some(terminal) || procfs::has_device_open(stat.pid, terminal)
        })
    }

    fn remember(&mut self, members: &[Stat]) {
        let members = members.iter();
        self.known
            .extend(members.map(|stat| (stat.pid, stat.start_ticks)));
    }
}

/// Every process but this one: a monitor is the supervisor's child and holds the job's pipes, too.
fn everybody() -> Vec<Stat> {
    let mut all = procfs::all_processes().unwrap_or_default();
    let me = i64::from(std::process::id());
    all.retain(|stat| i64::from(stat.pid) != me);
    all
}

/// Those who have been found up to now.
#[derive(Default)]
struct Known {
    pids: HashSet<i32>,
    sessions: HashSet<i32>,
}

/// Takes in who belongs, until nobody new does.
fn grow(all: &[Stat], belongs: impl Fn(&Stat, &Known) -> bool) -> Vec<Stat> {
    let mut members: Vec<Stat> = Vec::new();
    let mut known = Known::default();
    loop {
        let before = members.len();
        for stat in all {
            if !known.pids.contains(&stat.pid) && belongs(stat, &known) {
                known.pids.insert(stat.pid);
                known.sessions.insert(stat.sid);
                members.push(stat.clone());
            }
        }
        if members.len() == before {
            return members;
        }
    }
}
