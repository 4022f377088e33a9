//! What `/proc` says about the processes of a job. Reading only.

use std::fs;
use std::sync::OnceLock;

use nix::unistd::{SysconfVar, sysconf};

use super::lost_jobs;
use job::time::Timestamp;
use job::{JobId, Process};
use linux::cgroup::Group;
use linux::procfs::{self, Stat};
use linux::tree::{Reach, Tree};

/// A live process of a job.
#[derive(Clone, Debug, PartialEq)]
pub struct ProcessInfo {
    /// Process id.
    pub pid: i32,
    /// Parent.
    pub ppid: i32,
    /// Process group.
    pub pgid: i32,
    /// Session.
    pub sid: i32,
    /// State letter of proc_pid_stat(5).
    pub state: char,
    /// Effective uid.
    pub uid: u32,
    /// Arguments; the command name in brackets where there are none.
    pub command: Vec<String>,
    /// CPU time in user mode.
    pub user_cpu_seconds: f64,
    /// CPU time in the kernel.
    pub system_cpu_seconds: f64,
    /// Resident set.
    pub rss_bytes: u64,
    /// When it started.
    pub started_at: Timestamp,
}

/// The live processes of this tree.
pub(super) async fn of(tree: Tree) -> Vec<ProcessInfo> {
    tokio::task::spawn_blocking(move || tree.members().iter().map(describe).collect())
        .await
        .unwrap_or_default()
}

/// The tree of a job that has a monitor: beneath it, or beneath its supervisor where it is a rescuer.
pub(super) fn watched(id: JobId, process: &Process, supervisor: i32) -> Tree {
    // A rescuer that has outlived its supervisor has the job's processes anywhere.
    let is_ours = procfs::stat(process.monitor_pid).is_ok_and(|stat| stat.ppid == supervisor);
    lost_jobs::tree(id, process, is_ours.then_some(supervisor)).unwrap_or_else(|| {
        let group = process.cgroup.as_deref().and_then(Group::at);
        Tree::new(Reach::Subreaper(process.monitor_pid), group)
    })
}

fn describe(stat: &Stat) -> ProcessInfo {
    let mut command = procfs::command_line(stat.pid);
    if command.is_empty() {
        command.push(format!("[{}]", stat.name));
    }
    ProcessInfo {
        pid: stat.pid,
        ppid: stat.ppid,
        pgid: stat.pgid,
        sid: stat.sid,
        state: stat.state,
        uid: procfs::euid(stat.pid).unwrap_or(u32::MAX),
        command,
        user_cpu_seconds: seconds(stat.user_ticks),
        system_cpu_seconds: seconds(stat.system_ticks),
        rss_bytes: stat.rss_pages.saturating_mul(system(SysconfVar::PAGE_SIZE)),
        started_at: Timestamp::from_micros(
            i64::try_from(boot_time().saturating_mul(1_000_000))
                .unwrap_or_default()
                .saturating_add(i64::try_from(micros(stat.start_ticks)).unwrap_or_default()),
        ),
    }
}

fn system(variable: SysconfVar) -> u64 {
    sysconf(variable)
        .ok()
        .flatten()
        .and_then(|value| u64::try_from(value).ok())
        .unwrap_or(1)
}

fn micros(ticks: u64) -> u64 {
    ticks.saturating_mul(1_000_000) / system(SysconfVar::CLK_TCK).max(1)
}

fn seconds(ticks: u64) -> f64 {
    std::time::Duration::from_micros(micros(ticks)).as_secs_f64()
}

/// Seconds since the epoch at which the machine booted (proc_stat(5), `btime`).
fn boot_time() -> u64 {
    static BOOT: OnceLock<u64> = OnceLock::new();
    *BOOT.get_or_init(|| {
        let text = fs::read_to_string("/proc/stat").unwrap_or_default();
        text.lines()
            .find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok())
            .unwrap_or_default()
    })
}
