//! What a job has used; while it runs, up to the moment of the look.

use serde::Serialize;

use job::{Job, Usage};
use manager::Use;

#[derive(Debug, Serialize)]
pub(super) struct UsageView {
    #[serde(flatten)]
    used: Usage,
    #[serde(flatten)]
    now: Option<Now>,
}

/// What only a job has that runs.
#[derive(Debug, Serialize)]
struct Now {
    processes: usize,
    memory_bytes: u64,
    read_bytes: Option<u64>,
    written_bytes: Option<u64>,
    source: &'static str,
}

impl From<Usage> for UsageView {
    fn from(used: Usage) -> Self {
        Self { used, now: None }
    }
}

impl UsageView {
    /// Of a job whose present attempt has used this up to now.
    pub(super) fn now(job: &Job, used: &Use) -> Option<Self> {
        let present = Usage {
            user_cpu_seconds: used.user_cpu_seconds,
            system_cpu_seconds: used.system_cpu_seconds,
            max_rss_bytes: used.max_rss_bytes,
            max_memory_bytes: used.max_memory_bytes,
        };
        let (read_bytes, written_bytes) = used.disk_bytes.unzip();
        Some(Self {
            used: job.usage_with(Some(present))?,
            now: Some(Now {
                processes: used.processes,
                memory_bytes: used.memory_bytes.unwrap_or(used.rss_bytes),
                read_bytes,
                written_bytes,
                source: if used.is_of_group {
                    "cgroup"
                } else {
                    "processes"
                },
            }),
        })
    }
}
