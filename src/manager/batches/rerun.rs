//! A batch again: what its jobs were, and which of them are wanted once more.

use std::collections::HashSet;

use super::{BatchError, BatchJob, BatchSubmission, Batches};
use crate::Actor;
use job::batch::{On, Target};
use job::dependency::{Awaited, Dependency};
use job::{Job, JobId, State};

impl Batches {
    /// A submission of the jobs of a finished batch, or of those that have not succeeded. Those that have count as done
    /// for those that depend on them.
    ///
    /// # Errors
    /// If the batch is not there, has not finished, or is not known well enough any more.
    pub async fn again(
        &self,
        id: JobId,
        only_failed: bool,
        actor: Actor,
    ) -> Result<BatchSubmission, BatchError> {
        let batch = self.get(id).await?.batch;
        if !batch.state.is_terminal() {
            return Err(BatchError::NotFinished);
        }
        let jobs = self.jobs(id, false).await?;
        if u32::try_from(jobs.len()) != Ok(batch.total) {
            return Err(BatchError::Expired);
        }
        let is_wanted = |job: &Job| !only_failed || job.state != State::Succeeded;
        let has_secrets = |job: &Job| {
            let mut webhooks = job.spec.webhooks.iter();
            !job.spec.secret_env.0.is_empty() || webhooks.any(|it| it.secret.is_some())
        };
        if batch.webhooks.iter().any(|it| it.secret.is_some())
            || jobs.iter().any(|job| is_wanted(job) && has_secrets(job))
        {
            return Err(BatchError::Secrets);
        }
        let key_of = |job: &Job| {
            job.batch
                .as_ref()
                .map(|it| it.key.clone())
                .unwrap_or_default()
        };
        let wanted: Vec<&Job> = jobs
            .iter()
            .map(|job| &**job)
            .filter(|job| is_wanted(job))
            .collect();
        let again: HashSet<String> = wanted.iter().map(|job| key_of(job)).collect();
        let done = |key: &str| jobs.iter().find(|job| key_of(job) == key).map(|job| job.id);
        let mut keys: Vec<String> = Vec::new();
        let mut new = Vec::with_capacity(wanted.len());
        for job in wanted {
            let key = key_of(job);
            if keys.last() != Some(&key) {
                keys.push(key);
            }
            let needs = job
                .depends_on
                .iter()
                .filter_map(|it| need(it, &again, done));
            let (index, count) = job.batch.as_ref().map_or((0, 1), |it| (it.index, it.count));
            new.push(BatchJob {
                group: u32::try_from(keys.len())
                    .unwrap_or(u32::MAX)
                    .saturating_sub(1),
                index,
                count,
                name: job.name.clone(),
                labels: job.labels.clone(),
                spec: job.spec.clone(),
                has_priority: true,
                depends_on: needs.collect(),
                run_at: None,
                hold: false,
                rerun_of: Some(job.id),
            });
        }
        Ok(BatchSubmission {
            name: batch.name,
            labels: batch.labels,
            actor,
            rerun_of: Some(id),
            max_running: batch.max_running,
            on_failure: batch.on_failure,
            webhooks: batch.webhooks,
            ttl_after_finished: batch.ttl_after_finished,
            idempotency: None,
            keys,
            jobs: new,
        })
    }
}

/// What is left of a dependency, if the entries with these keys run again.
fn need(
    dependency: &Dependency,
    again: &HashSet<String>,
    done: impl Fn(&str) -> Option<JobId>,
) -> Option<(Target, On)> {
    let Dependency { awaited, on } = dependency;
    match awaited {
        Awaited::Group { key, .. } if again.contains(key) => Some((Target::Key(key.clone()), *on)),
        // It has succeeded, which does, or never will.
        Awaited::Group { key, .. } => match on {
            On::Succeeded | On::Finished => None,
            On::Failed => done(key).map(|job| (Target::Job(job), *on)),
        },
        Awaited::Job { job } => Some((Target::Job(*job), *on)),
        Awaited::Batch { batch } => Some((Target::Batch(*batch), *on)),
    }
}
