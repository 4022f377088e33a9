//! From a submission to jobs that are stored and wait, and what becomes of all jobs of a batch at once.

use std::sync::Arc;

use futures_util::{StreamExt, stream};

use super::{BatchError, BatchJob, BatchSubmission, MOST_TOLD, PURGED, left};
use crate::chains::{self, Link, Tally, Target, Unlinked};
use crate::room::Superseded;
use crate::shared::Shared;
use crate::{Manager, SubmitError};
use job::batch::{self, Batch, Ends, Group, Membership, OnFailure};
use job::dependency::{Awaited, Dependency};
use job::event::Event;
use job::life::Stop;
use job::query::Filter;
use job::queue::OnConflict;
use job::spec::Secrets;
use job::{Cause, Idempotency, Job, JobId, Spec, State};
use linux::clock;
use store::{Inserted, Insertion, StoreError};

/// How many jobs of a batch are stopped at the same time: as many as have room in a transaction of the store.
const STOPPED_AT_ONCE: usize = 512;

pub(super) async fn accept(
    shared: &Arc<Shared>,
    submission: BatchSubmission,
) -> Result<(Batch, bool), BatchError> {
    let (batch, groups, mut jobs, idempotency) = planned(shared, submission);
    let tickets = jobs.iter().map(|(job, _)| {
        let key = job.spec.concurrency.as_ref();
        let is_alone = key.is_some_and(|it| it.policy == OnConflict::Reject);
        (shared.room.ticket_of(job), is_alone)
    });
    let promised = shared.room.promise_all(tickets.collect());
    promised.map_err(|(place, why)| {
        let error = SubmitError::from(why);
        if matches!(error, SubmitError::QueueFull) {
            error.into()
        } else {
            BatchError::Job(place, error)
        }
    })?;
    let entries = groups.iter().map(|group| {
        let left = group.count;
        let tally = Tally {
            left,
            ..Tally::default()
        };
        (group.key.clone(), tally)
    });
    let entries = entries.collect();
    (shared.chains.account()).add_batch(batch.id, batch.on_failure, entries);
    let accepted = store(shared, &batch, groups, &jobs, idempotency).await;
    let links = match accepted {
        Ok((Inserted::New, links)) => links,
        other => {
            for (job, _) in &jobs {
                shared.room.take_back(job.id);
            }
            shared.chains.account().remove_batch(batch.id);
            return match other? {
                (Inserted::Replay(id), _) => {
                    let earlier = shared.store.batches().get(id).await?;
                    let earlier = earlier.ok_or(SubmitError::KeyReused)?;
                    Ok((earlier, true))
                }
                (_, _) => Err(SubmitError::KeyReused.into()),
            };
        }
    };
    let waiting = jobs.iter().map(|(job, _)| {
        shared.metrics.accepted(shared.queue_label(&job.spec.queue));
        (shared.room.ticket_of(job), job.start_deadline_at())
    });
    let waiting: Vec<_> = waiting.collect();
    // What stays of those that wait lies close together if all that goes has gone by then.
    jobs.retain(|(job, _)| job.spec.concurrency.is_some());
    for (ticket, deadline) in waiting {
        shared.room.enter_asleep(ticket, deadline);
    }
    for id in links.into_iter().filter_map(Link::keep) {
        chains::linked(shared, id);
    }
    for (job, _) in &jobs {
        if let Some(key) = &job.spec.concurrency {
            let doomed = shared.room.supersede(job.id, key, Superseded::Older);
            shared.end_superseded(doomed, job);
        }
    }
    shared.grant();
    Ok((batch, false))
}

/// The batch and its jobs as they are to be stored.
#[expect(clippy::type_complexity, reason = "the parts of one submission")]
fn planned(
    shared: &Shared,
    submission: BatchSubmission,
) -> (Batch, Vec<Group>, Vec<(Job, Secrets)>, Option<Idempotency>) {
    let now = clock::wall();
    let batch = Batch {
        id: JobId::generate(),
        name: submission.name,
        labels: submission.labels,
        created_by: submission.actor,
        rerun_of: submission.rerun_of,
        max_running: submission.max_running,
        on_failure: submission.on_failure,
        webhooks: submission.webhooks,
        ttl_after_finished: submission.ttl_after_finished,
        stop: None,
        created_at: now,
        state: State::Running,
        finished_at: None,
        expires_at: None,
        total: u32::try_from(submission.jobs.len()).unwrap_or(u32::MAX),
        ends: Ends::default(),
    };
    let mut groups: Vec<Group> = Vec::with_capacity(submission.keys.len());
    let mut jobs = Vec::with_capacity(submission.jobs.len());
    for new in submission.jobs {
        let place = usize::try_from(new.group).unwrap_or_default();
        let key = submission.keys.get(place).cloned().unwrap_or_default();
        let (spec, secrets) = stored_spec(shared, &new);
        let depends_on = new.depends_on.iter().map(|(target, on)| Dependency {
            awaited: match target {
                batch::Target::Key(key) => Awaited::Group {
                    batch: batch.id,
                    key: key.clone(),
                },
                batch::Target::Job(job) => Awaited::Job { job: *job },
                batch::Target::Batch(batch) => Awaited::Batch { batch: *batch },
            },
            on: *on,
        });
        let actor = batch.created_by.clone();
        let id = JobId::generate();
        let job = Job {
            name: new.name,
            labels: new.labels,
            rerun_of: new.rerun_of,
            run_at: new.run_at,
            hold: new.hold,
            depends_on: depends_on.collect(),
            batch: Some(Membership {
                id: batch.id,
                key: key.clone(),
                group: new.group,
                index: new.index,
                count: new.count,
                max_running: batch.max_running,
            }),
            ..Job::accepted(id, actor, spec, id.made_about(now))
        };
        match groups.get_mut(place) {
            Some(group) => group.count += 1,
            None => groups.push(Group {
                key,
                first: job.id,
                count: 1,
            }),
        }
        jobs.push((job, secrets));
    }
    (batch, groups, jobs, submission.idempotency)
}

/// The spec as it is stored, and the values of its secrets.
fn stored_spec(shared: &Shared, new: &BatchJob) -> (Arc<Spec>, Secrets) {
    let mut spec = new.spec.clone();
    if !new.has_priority {
        let queue = shared.room.look(|it| it.settings(&spec.queue));
        if queue.default_priority != spec.priority {
            Arc::make_mut(&mut spec).priority = queue.default_priority;
        }
    }
    let secrets = spec.secret_env.clone();
    if !secrets.0.is_empty() {
        for value in Arc::make_mut(&mut spec).secret_env.0.values_mut() {
            value.clear();
        }
    }
    (spec, secrets)
}

async fn store(
    shared: &Arc<Shared>,
    batch: &Batch,
    groups: Vec<Group>,
    jobs: &[(Job, Secrets)],
    idempotency: Option<Idempotency>,
) -> Result<(Inserted, Vec<Link>), BatchError> {
    let linked = chains::link_all(shared, jobs.iter().map(|(job, _)| job)).await;
    let links = linked.map_err(|(place, unlinked)| match unlinked {
        Unlinked::Unknown(number) => BatchError::Job(place, SubmitError::NoSuchDependency(number)),
        Unlinked::Store(error) => error.into(),
    })?;
    let mut insertion = Insertion::default();
    for (job, secrets) in jobs {
        let created = Event::created(job);
        let is_told = jobs.len() <= MOST_TOLD || !created.webhooks.is_empty();
        let events = is_told.then_some(created).into_iter().collect();
        insertion.add(job, secrets, events)?;
    }
    linux::failpoint::hit("batch.accepting");
    let stored = shared
        .store
        .batches()
        .insert(batch, groups, idempotency, insertion)
        .await?;
    linux::failpoint::hit("batch.accepted");
    Ok((stored, links))
}

/// Ends all of a batch for a client: also what lost jobs of it have left, which nobody ends unasked.
pub(super) async fn stop_all(shared: &Arc<Shared>, id: JobId, how: Stop) -> Result<(), StoreError> {
    stop(shared, id, how.clone(), OnFailure::StopAll).await?;
    left::end(shared, id, &how).await.map(drop)
}

/// Stops the jobs of a batch that have not ended: all of them, or those that wait.
pub(crate) async fn stop(
    shared: &Arc<Shared>,
    id: JobId,
    how: Stop,
    which: OnFailure,
) -> Result<(), StoreError> {
    let manager = Manager {
        shared: shared.clone(),
    };
    let filter = Filter {
        batch: Some(id),
        ..Filter::default()
    };
    let mut ids = manager.unfinished(filter).await?;
    // None of them may start because another one has ended.
    let waits = |id: &JobId| shared.room.amend(*id, |ticket| ticket.held = true);
    let waiting: Vec<JobId> = ids.iter().copied().filter(waits).collect();
    match which {
        OnFailure::Continue => return Ok(()),
        OnFailure::CancelQueued => ids.clone_from(&waiting),
        OnFailure::StopAll => {}
    }
    // They end for this reason, not since the others do.
    shared.chains.give_up(&waiting);
    // Thousands take a while; who wants to know waits for the batch.
    let stopping = shared.clone();
    shared.spawn(async move {
        let stops = stream::iter(ids);
        stops
            .for_each_concurrent(STOPPED_AT_ONCE, |job| {
                stopping.see_stopped(job, how.clone())
            })
            .await;
    });
    Ok(())
}

/// At a server's start, once its jobs wait again and before the first of them may start: stops the batches that were to
/// end and have not.
pub(crate) async fn stop_again(shared: &Arc<Shared>) -> Result<(), StoreError> {
    for batch in shared.store.batches().running().await? {
        if let Some(how) = batch.stop {
            stop(shared, batch.id, how, OnFailure::StopAll).await?;
        }
    }
    Ok(())
}

/// A job of a batch has failed, and the batch says what becomes of the others.
pub(crate) fn fail(shared: &Arc<Shared>, id: JobId, which: OnFailure, why: String) {
    let how = Stop {
        reason: Some(why),
        ..Stop::for_cause(Cause::Canceled)
    };
    let failing = shared.clone();
    shared.spawn(async move {
        if let Err(error) = stop(&failing, id, how, which).await {
            tracing::error!(batch.id = %id, %error, "batch {id} could not be stopped: {error}");
        }
    });
}

/// At a server's start, before its jobs are read: the batches that have not finished.
pub(crate) async fn recall(shared: &Arc<Shared>) -> Result<(), StoreError> {
    for batch in shared.store.batches().running().await? {
        let groups = shared.store.batches().groups(batch.id).await?;
        let entries = groups.into_iter().map(|it| {
            let ended = it.succeeded + it.failed + it.canceled;
            let tally = Tally {
                left: it.group.count.saturating_sub(ended),
                succeeded: it.succeeded,
                failed: it.failed,
                canceled: it.canceled,
            };
            (it.group.key, tally)
        });
        let entries = entries.collect();
        (shared.chains.account()).add_batch(batch.id, batch.on_failure, entries);
    }
    Ok(())
}

/// Removes the record of a batch, unless jobs depend on it that have not ended.
pub(super) async fn remove(shared: &Shared, id: JobId) -> Result<bool, StoreError> {
    let target = Target::Batch(id);
    if !shared.chains.account().leave(target) {
        return Ok(false);
    }
    let removed = shared.store.batches().delete(id).await;
    shared.chains.account().gone(target);
    removed.map(|()| true)
}

/// Removes the records of batches whose time is up.
pub(crate) async fn remove_expired(shared: &Shared) {
    let limit = PURGED + shared.chains.wanted();
    let expired = shared.store.batches().expired(clock::wall(), limit).await;
    for id in expired.unwrap_or_else(|error| {
        shared.store_failed(&error);
        Vec::new()
    }) {
        if let Err(error) = remove(shared, id).await {
            shared.store_failed(&error);
        }
    }
}

/// What the job finds in its environment of the batch that it belongs to; its own variables win.
pub(crate) fn with_batch(job: &Job, mut spec: Spec) -> Spec {
    if let Some(batch) = &job.batch {
        for (name, value) in [
            ("PROCESSION_BATCH_ID", batch.id.to_string()),
            ("PROCESSION_JOB_KEY", batch.key.clone()),
            ("PROCESSION_INDEX", batch.index.to_string()),
            ("PROCESSION_COUNT", batch.count.to_string()),
        ] {
            spec.env.entry(name.to_owned()).or_insert(value);
        }
    }
    spec
}
