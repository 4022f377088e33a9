//! What the machine shows of a service: `/proc` and the cgroup file system.

use std::fs;
use std::path::{Path, PathBuf};

/// A process as `/proc` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    pub(crate) ppid: i32,
    pub(crate) pgid: i32,
    pub(crate) sid: i32,
    pub(crate) state: char,
    pub(crate) name: String,
    pub(crate) argv: Vec<String>,
}

impl Process {
    /// The process with this number, where it is there.
    pub(crate) fn read(pid: i32) -> Option<Self> {
        let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
        let stat = String::from_utf8_lossy(&stat);
        let (open, close) = (stat.find('(')?, stat.rfind(')')?);
        let mut fields = stat.get(close + 1..)?.split_ascii_whitespace();
        let state = fields.next()?.chars().next()?;
        let mut number = || fields.next()?.parse().ok();
        let (ppid, pgid, sid) = (number()?, number()?, number()?);
        let argv = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let argv = String::from_utf8_lossy(&argv);
        Some(Self {
            pid,
            ppid,
            pgid,
            sid,
            state,
            name: stat.get(open + 1..close)?.to_owned(),
            argv: argv.split_terminator('\0').map(str::to_owned).collect(),
        })
    }

    /// Has it ended, and only its parent has not noticed?
    pub(crate) fn is_zombie(&self) -> bool {
        matches!(self.state, 'Z' | 'X')
    }
}

fn pids() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Every process on the machine.
pub(crate) fn processes() -> Vec<Process> {
    pids().filter_map(Process::read).collect()
}

/// The live processes with this text in an argument.
pub(crate) fn processes_with(text: &str) -> Vec<Process> {
    let is_one = |process: &Process| {
        !process.is_zombie() && process.argv.iter().any(|argument| argument.contains(text))
    };
    processes().into_iter().filter(is_one).collect()
}

/// The live processes with this assignment in the environment that they were started with.
pub(super) fn processes_marked(assignment: &str) -> Vec<Process> {
    let is_one = |pid: &i32| {
        let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environ
            .split(|byte| *byte == 0)
            .any(|one| one == assignment.as_bytes())
    };
    pids()
        .filter(is_one)
        .filter_map(Process::read)
        .filter(|process| !process.is_zombie())
        .collect()
}

/// The cgroup directories that a service with this state directory has made.
pub(crate) fn cgroup_homes(state_dir: &Path) -> Vec<PathBuf> {
    let Ok(instance) = fs::read_to_string(state_dir.join("instance")) else {
        return Vec::new();
    };
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let own = own
        .lines()
        .find_map(|line| line.strip_prefix("0::/"))
        .unwrap_or_default();
    let roots = mounts
        .lines()
        .filter(|line| line.contains(" - cgroup2 "))
        .filter_map(|line| line.split(' ').nth(4));
    roots
        .map(|root| {
            Path::new(root)
                .join(own)
                .join(format!("procession-{}", instance.trim()))
        })
        .filter(|home| home.is_dir())
        .collect()
}

/// Is this the directory of a job that is over, kept for another?
pub(crate) fn is_spare(entry: &fs::DirEntry) -> bool {
    entry.file_name().to_string_lossy().starts_with("spare-")
}

/// The cgroups of jobs that a service has not removed.
pub(crate) fn job_cgroups(state_dir: &Path) -> Vec<PathBuf> {
    let homes = cgroup_homes(state_dir);
    let entries = homes
        .iter()
        .flat_map(|home| fs::read_dir(home.join("jobs")));
    let directories = entries
        .flatten()
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    directories.map(|entry| entry.path()).collect()
}

/// Removes what a service that has ended has left in the cgroup file system, and says what that was:
/// nothing, except its home if the group above has controllers and so may hold no process, or if a monitor of a service
/// before it may have been in it at the end (`may_stay`).
pub(super) fn remove_cgroups(state_dir: &Path, may_stay: bool) -> Vec<String> {
    let mut wrong = job_cgroups(state_dir);
    for home in cgroup_homes(state_dir) {
        let above = home.join("../cgroup.subtree_control");
        if !may_stay && fs::read_to_string(above).is_ok_and(|text| text.trim().is_empty()) {
            wrong.push(home.clone());
        }
        for group in &wrong {
            let _ = fs::remove_dir(group);
        }
        for group in ["jobs", "self", ""] {
            let _ = fs::remove_dir(home.join(group));
        }
    }
    wrong
        .iter()
        .map(|group| format!("left behind: cgroup {}", group.display()))
        .collect()
}
