//! Processes of a job: what is kept of its leader, and those that live now.

use serde::Serialize;

use job::Process;
use job::sandbox::InForce;
use job::time::Timestamp;
use manager::ProcessInfo;

/// The leader of a job.
#[derive(Debug, Serialize)]
pub(super) struct ProcessView<'a> {
    pid: i32,
    pgid: i32,
    sid: i32,
    started_at: Timestamp,
    containment: &'static str,
    executable: Option<&'a str>,
    sandbox: Option<&'a InForce>,
}

impl<'a> From<&'a Process> for ProcessView<'a> {
    fn from(process: &'a Process) -> Self {
        Self {
            pid: process.pid,
            pgid: process.pid,
            sid: process.pid,
            started_at: process.started_at,
            containment: match process.cgroup {
                Some(_) => "cgroup+subreaper",
                None => "subreaper",
            },
            executable: process.executable.as_deref(),
            sandbox: process.sandbox.as_ref(),
        }
    }
}

/// The live processes of a job.
#[derive(Debug, Serialize)]
pub(crate) struct ProcessList {
    processes: Vec<ProcessInfoView>,
}

impl From<Vec<ProcessInfo>> for ProcessList {
    fn from(processes: Vec<ProcessInfo>) -> Self {
        Self {
            processes: processes.into_iter().map(ProcessInfoView::from).collect(),
        }
    }
}

#[derive(Debug, Serialize)]
struct ProcessInfoView {
    pid: i32,
    ppid: i32,
    pgid: i32,
    sid: i32,
    state: char,
    uid: u32,
    user: Option<String>,
    threads: u64,
    read_bytes: Option<u64>,
    written_bytes: Option<u64>,
    command: Vec<String>,
    user_cpu_seconds: f64,
    system_cpu_seconds: f64,
    rss_bytes: u64,
    started_at: Timestamp,
}

impl From<ProcessInfo> for ProcessInfoView {
    fn from(info: ProcessInfo) -> Self {
        Self {
            pid: info.pid,
            ppid: info.ppid,
            pgid: info.pgid,
            sid: info.sid,
            state: info.state,
            uid: info.uid,
            user: info.user,
            threads: info.threads,
            read_bytes: info.read_bytes,
            written_bytes: info.written_bytes,
            command: info.command,
            user_cpu_seconds: info.user_cpu_seconds,
            system_cpu_seconds: info.system_cpu_seconds,
            rss_bytes: info.rss_bytes,
            started_at: info.started_at,
        }
    }
}
