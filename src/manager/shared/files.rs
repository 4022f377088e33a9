//! What a job has on disk besides its row: its record and its output. What is in them is not known here.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Shared;
use crate::RequestError;
use job::{Job, JobId, OutputTotals};
use protocol::output;
use protocol::record;

impl Shared {
    /// The job with the output that it has written up to now; its monitor tells only at changes.
    pub(crate) async fn with_present_output(&self, job: Arc<Job>) -> Arc<Job> {
        let Some(mut reader) = self.output(job.id).await else {
            return job;
        };
        let totals = tokio::task::spawn_blocking(move || reader.totals()).await;
        match totals {
            Ok(Ok(totals))
                if !job.output.complete && totals.next_offset >= job.output.next_offset =>
            {
                let mut job = (*job).clone();
                job.output = OutputTotals {
                    complete: false,
                    ..totals
                };
                Arc::new(job)
            }
            Ok(Ok(_) | Err(_)) | Err(_) => job,
        }
    }

    pub(crate) async fn output(&self, id: JobId) -> Option<output::Reader> {
        let jobs = self.jobs.try_clone().ok()?;
        let opened = tokio::task::spawn_blocking(move || {
            let directory = record::open_directory(jobs.as_fd(), id)?;
            output::Reader::open(directory)
        });
        opened.await.ok()?.ok()
    }

    /// Removes finished jobs: what is on disk first, then their rows, so that nothing is left that no
    /// row leads to.
    pub(crate) async fn purge(self: &Arc<Self>, ids: Vec<JobId>) -> Result<(), RequestError> {
        let ids = self.chains.begin_removal(ids);
        if ids.is_empty() {
            return Err(RequestError::DependedOn);
        }
        // Their tasks are over, even where the last of them is still on its way out.
        for id in &ids {
            self.room.forget(*id);
        }
        let shared = self.clone();
        let doomed = ids.clone();
        let removed = tokio::task::spawn_blocking(move || {
            for id in doomed {
                let Ok(directory) = record::open_directory(shared.jobs.as_fd(), id) else {
                    continue;
                };
                if let Err(error) = output::remove(&directory)
                    .and_then(|()| record::remove_damaged(&directory))
                    .and_then(|()| record::remove(shared.jobs.as_fd(), id))
                {
                    tracing::warn!(job.id = %id, %error, "the output of job {id} could not be removed: {error}");
                }
            }
        });
        let _ = removed.await;
        let deleted = self.store.delete(ids.clone()).await;
        self.chains.removed(&ids);
        Ok(deleted?)
    }

    /// Puts a damaged record aside and counts it.
    pub(crate) fn quarantine(&self, id: JobId) {
        self.damaged_records.fetch_add(1, Ordering::Relaxed);
        tracing::error!(job.id = %id, "the record of job {id} is damaged and was put aside as record.damaged");
        if let Err(error) = record::quarantine(self.jobs.as_fd(), id) {
            tracing::error!(job.id = %id, %error, "the damaged record of job {id} could not be put aside: {error}");
        }
    }

    /// Removes a job's record, and its directory where nothing else is in it.
    pub(crate) async fn remove_record(self: &Arc<Self>, id: JobId) {
        let shared = self.clone();
        let removed =
            tokio::task::spawn_blocking(move || record::remove(shared.jobs.as_fd(), id)).await;
        if let Ok(Err(error)) = removed {
            tracing::warn!(job.id = %id, %error, "the record of job {id} could not be removed: {error}");
        }
    }
}
