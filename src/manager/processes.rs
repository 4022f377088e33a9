//! What `/proc` says about the processes of a job. Reading only.

use std::collections::HashMap;
use std::fs;
use std::sync::OnceLock;
use std::time::Duration;

use nix::unistd::{SysconfVar, Uid, User, sysconf};

use super::shared::Shared;
use super::{LookupError, lost_jobs};
use job::time::Timestamp;
use job::{Job, JobId, Process};
use linux::cgroup::{Group, GroupUse};
use linux::ports::{self, Ports};
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
    /// The name of that user, where the machine knows one.
    pub user: Option<String>,
    /// Threads.
    pub threads: u64,
    /// Bytes that it has had read from disks; `None` if the service may not know.
    pub read_bytes: Option<u64>,
    /// Bytes that it has had written to disks.
    pub written_bytes: Option<u64>,
    /// Arguments; the command name in brackets if there are none.
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

/// What the live processes of a job have used together, with what is known of those that have ended.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Use {
    /// How many there are.
    pub processes: usize,
    /// CPU time in user mode, with that of processes that have ended. Without a cgroup, those that ended before a
    /// monitor was replaced are left out.
    pub user_cpu_seconds: f64,
    /// CPU time in the kernel; the same.
    pub system_cpu_seconds: f64,
    /// Resident sets.
    pub rss_bytes: u64,
    /// The largest of them.
    pub max_rss_bytes: u64,
    /// The memory that the kernel counts for all of them, if the job has a cgroup that does.
    pub memory_bytes: Option<u64>,
    /// The most of it up to now.
    pub max_memory_bytes: Option<u64>,
    /// Read from and written to disks, if the job has a cgroup that counts it.
    pub disk_bytes: Option<(u64, u64)>,
    /// The job has a cgroup, so that nothing is left out.
    pub is_of_group: bool,
}

/// The processes of a job that may be there.
fn tree(shared: &Shared, job: &Job) -> Option<Tree> {
    // What its processes are called there is somebody else here.
    if shared.is_there(job) {
        return None;
    }
    match &job.process {
        Some(process) if !job.state.is_terminal() => {
            let supervisor = i32::try_from(shared.host.supervisor_pid).unwrap_or_default();
            Some(watched(job.id, process, supervisor))
        }
        Some(_) | None => shared.lost_jobs.left_by(job),
    }
}

/// See [`Manager::processes`](super::Manager::processes).
pub(super) async fn of(shared: &Shared, id: JobId) -> Result<Vec<ProcessInfo>, LookupError> {
    let job = shared.get(id).await?;
    Ok(match tree(shared, &job) {
        Some(tree) => described(tree).await,
        None => Vec::new(),
    })
}

/// See [`Manager::ports`](super::Manager::ports).
pub(super) async fn ports(shared: &Shared, id: JobId) -> Result<Ports, LookupError> {
    let job = shared.get(id).await?;
    Ok(match tree(shared, &job) {
        Some(tree) => listening(tree).await,
        None => Ports {
            complete: true,
            ..Ports::default()
        },
    })
}

/// See [`Manager::used`](super::Manager::used).
pub(super) async fn used(shared: &Shared, id: JobId) -> Result<Use, LookupError> {
    let job = shared.get(id).await?;
    Ok(match tree(shared, &job) {
        Some(tree) => use_of(tree, reaper(&job)).await,
        None => Use::default(),
    })
}

/// Who collects the job's processes that have no parent any more, and what it had collected before this job.
fn reaper(job: &Job) -> Option<(i32, (u64, u64))> {
    let process = job.process.as_ref()?;
    let is_reaper = !job.state.is_terminal() && process.unwatched.is_none();
    is_reaper.then_some((process.monitor_pid, process.used_before))
}

/// What the processes of this tree have used.
async fn use_of(tree: Tree, reaper: Option<(i32, (u64, u64))>) -> Use {
    let look = move || {
        // Before the others: what ends meanwhile is left out of this look, and not counted twice.
        let reaped = reaper.and_then(|(monitor, before)| reaped_by(monitor, before));
        let members = tree.members();
        let of_group = tree.group().and_then(Group::used);
        summed(&members, reaped.unwrap_or_default(), of_group)
    };
    tokio::task::spawn_blocking(look).await.unwrap_or_default()
}

/// Microseconds in user mode and in the kernel that this process's children had used which it has waited for since it
/// had waited for so many.
fn reaped_by(monitor: i32, before: (u64, u64)) -> Option<(u64, u64)> {
    let (user, system) = procfs::stat(monitor).ok()?.waited_for_ticks;
    Some((
        micros(user).saturating_sub(before.0),
        micros(system).saturating_sub(before.1),
    ))
}

fn summed(members: &[Stat], reaped: (u64, u64), of_group: Option<GroupUse>) -> Use {
    let sum = |of: fn(&Stat) -> u64| members.iter().map(of).fold(0, u64::saturating_add);
    let page = system(SysconfVar::PAGE_SIZE);
    let largest = members.iter().map(|stat| stat.rss_pages).max();
    let with_reaped =
        |ticks: u64, reaped: u64| Duration::from_micros(micros(ticks).saturating_add(reaped));
    let user = with_reaped(
        sum(|stat| stat.user_ticks + stat.waited_for_ticks.0),
        reaped.0,
    );
    let system = with_reaped(
        sum(|stat| stat.system_ticks + stat.waited_for_ticks.1),
        reaped.1,
    );
    Use {
        processes: members.len(),
        user_cpu_seconds: of_group.map_or(user, |it| it.user).as_secs_f64(),
        system_cpu_seconds: of_group.map_or(system, |it| it.system).as_secs_f64(),
        rss_bytes: sum(|stat| stat.rss_pages).saturating_mul(page),
        max_rss_bytes: largest.unwrap_or_default().saturating_mul(page),
        memory_bytes: of_group.and_then(|it| it.memory_bytes),
        max_memory_bytes: of_group.and_then(|it| it.memory_peak),
        disk_bytes: of_group.and_then(|it| it.disk_bytes),
        is_of_group: of_group.is_some(),
    }
}

/// The live processes of this tree.
async fn described(tree: Tree) -> Vec<ProcessInfo> {
    tokio::task::spawn_blocking(move || {
        let mut names = HashMap::new();
        let members = tree.members();
        members
            .iter()
            .map(|stat| describe(stat, &mut names))
            .collect()
    })
    .await
    .unwrap_or_default()
}

/// The ports that the live processes of this tree listen on.
async fn listening(tree: Tree) -> Ports {
    let looked = tokio::task::spawn_blocking(move || {
        let pids: Vec<i32> = tree.members().iter().map(|stat| stat.pid).collect();
        ports::of(&pids)
    });
    looked.await.unwrap_or_default()
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

/// `names`: users that were looked up.
fn describe(stat: &Stat, names: &mut HashMap<u32, Option<String>>) -> ProcessInfo {
    let mut command = procfs::command_line(stat.pid);
    if command.is_empty() {
        command.push(format!("[{}]", stat.name));
    }
    let uid = procfs::euid(stat.pid);
    let user = uid.and_then(|uid| names.entry(uid).or_insert_with(|| name_of(uid)).clone());
    let disk = procfs::disk_bytes(stat.pid);
    ProcessInfo {
        pid: stat.pid,
        ppid: stat.ppid,
        pgid: stat.pgid,
        sid: stat.sid,
        state: stat.state,
        uid: uid.unwrap_or(u32::MAX),
        user,
        threads: stat.threads,
        read_bytes: disk.map(|(read, _)| read),
        written_bytes: disk.map(|(_, written)| written),
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

fn name_of(uid: u32) -> Option<String> {
    let user = User::from_uid(Uid::from_raw(uid)).ok().flatten();
    user.map(|user| user.name)
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
