//! How a submission becomes a job.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::api::{LookupError, Submission, SubmitError, Submitted};
use super::chains;
use super::inputs::Part;
use super::runner::Acceptance;
use super::shared::Shared;
use job::event::{Event, What};
use job::queue::OnConflict;
use job::schedule::{Occurrence, Record};
use job::spec::Secrets;
use job::time::Timestamp;
use job::{Idempotency, Job, JobId, Spec};
use linux::clock;
use store::{Inserted, Insertion, StoreError};

/// How long an answer waits for a job's start: a program on a file system that hangs may take for ever.
const START_PATIENCE: Duration = Duration::from_secs(5);

/// What a job is of a schedule.
pub(super) struct Planned {
    /// The schedule, and if it is due, as it is after that.
    pub(super) schedule: Record,
    /// When the job was due; nothing if somebody asked for it.
    pub(super) due_at: Option<Timestamp>,
}

/// See [`Manager::submit`](super::Manager::submit).
pub(super) async fn submit(
    shared: &Arc<Shared>,
    submission: Submission,
) -> Result<Submitted, SubmitError> {
    submit_planned(shared, submission, None).await
}

/// The same for a job of a schedule.
pub(super) async fn submit_planned(
    shared: &Arc<Shared>,
    submission: Submission,
    mut planned: Option<Planned>,
) -> Result<Submitted, SubmitError> {
    shared.takes_own()?;
    shared.resolver.check_apart(&submission.spec).await?;
    shared.ready().map_err(SubmitError::from)?;
    shared.has_nodes(&submission.spec)?;
    let Submission {
        name,
        labels,
        mut spec,
        actor,
        rerun_of,
        trace,
        run_at,
        hold,
        idempotency,
        has_priority,
        depends_on,
        parts,
    } = submission;
    let is_full = shared.workspaces.all_bytes() >= shared.limits.max_workspaces_bytes;
    if is_full && spec.workspace.is_some() {
        return Err(SubmitError::NoRoom);
    }
    if !has_priority {
        let queue = shared.room.look(|it| it.settings(&spec.queue));
        spec.priority = queue.default_priority;
    }
    let policy = spec.concurrency.as_ref().map(|it| it.policy);
    let is_alone = policy == Some(OnConflict::Reject);
    let secrets = spec.secret_env.clone();
    for value in spec.secret_env.0.values_mut() {
        value.clear();
    }
    let id = JobId::generate();
    let created_at = id.made_about(clock::wall());
    let schedule = planned.as_ref().map(|it| Occurrence {
        name: it.schedule.name.clone(),
        due_at: it.due_at,
    });
    if let Some(planned) = &mut planned
        && let Some(last) = &mut planned.schedule.progress.last
    {
        last.job_id = Some(id);
    }
    let job = Job {
        uploads: (!parts.is_empty()).then(|| shared.uploads()).flatten(),
        name,
        labels,
        rerun_of,
        trace,
        run_at,
        hold,
        depends_on,
        schedule,
        ..Job::accepted(id, actor, Arc::new(spec), created_at)
    };
    let newcomer = Newcomer {
        job,
        secrets,
        idempotency,
        planned,
        parts,
        is_alone,
    };
    accept(shared, newcomer).await
}

/// Could a job with this spec be accepted here now?
pub(super) async fn check(shared: &Shared, spec: &Spec) -> Result<(), SubmitError> {
    shared.resolver.check_apart(spec).await?;
    Ok(shared.ready()?)
}

/// A job that is about to be accepted.
pub(super) struct Newcomer {
    pub(super) job: Job,
    pub(super) secrets: Secrets,
    pub(super) idempotency: Option<Idempotency>,
    pub(super) planned: Option<Planned>,
    /// What its inputs name of the form that it came in.
    pub(super) parts: BTreeMap<String, Part>,
    /// It does not want to wait for its key.
    pub(super) is_alone: bool,
}

/// Accepts a job that has been checked: durable when this returns.
pub(super) async fn accept(
    shared: &Arc<Shared>,
    newcomer: Newcomer,
) -> Result<Submitted, SubmitError> {
    let Newcomer {
        job,
        secrets,
        idempotency,
        planned,
        parts,
        is_alone,
    } = newcomer;
    let id = job.id;
    let link = chains::link(shared, &job).await?;
    shared.room.promise(shared.room.ticket_of(&job), is_alone)?;
    link.and_then(chains::Link::keep);
    let (answer, mut answered) = oneshot::channel();
    let runner = shared.enlist(job, false, None);
    let acceptance = Acceptance {
        secrets,
        idempotency,
        planned,
        parts,
        answer,
    };
    // A thread is handed over for it, which a release build does not do.
    #[cfg(debug_assertions)]
    tokio::task::block_in_place(|| linux::failpoint::hit("job.enlisted"));
    shared.spawn(acceptance.take_in(runner));
    loop {
        match timeout(START_PATIENCE, &mut answered).await {
            Ok(Ok(answer)) => return answer,
            // The service ends. What is stored is accepted: the next server starts it. What is not has never been taken in.
            Ok(Err(_)) => {
                let replayed = false;
                let found = shared.get(id).await;
                if found.is_err() {
                    shared.room.take_back(id);
                    shared.chains.account().remove(id);
                }
                return match found {
                    Ok(job) => Ok(Submitted { job, replayed }),
                    Err(LookupError::NoSuchJob) => Err(SubmitError::Draining),
                    Err(LookupError::Store(error)) => Err(SubmitError::Store(error)),
                };
            }
            Err(_) => {
                // It can be seen as soon as it is accepted.
                if let Ok(job) = shared.present(id).await {
                    let replayed = false;
                    return Ok(Submitted { job, replayed });
                }
            }
        }
    }
}

/// A new job with what belongs to it, as it is stored.
pub(super) fn insertion(
    job: &Job,
    created: Event,
    secrets: &Secrets,
    idempotency: Option<Idempotency>,
    planned: Option<&Planned>,
) -> Result<Insertion, StoreError> {
    let mut insertion = Insertion::default();
    insertion.add(job, secrets, vec![created])?;
    if let Some(idempotency) = idempotency {
        insertion.keyed(&job.created_by, idempotency, job.id);
    }
    if let Some(Planned { schedule, due_at }) = planned {
        let what = What::ScheduleStarted {
            due_at: *due_at,
            job: job.id,
        };
        insertion.tell(Event::of_schedule(schedule, job.created_at, what))?;
        if due_at.is_some() {
            insertion.step(schedule)?;
        }
    }
    Ok(insertion)
}

/// See [`Manager::submitted`](super::Manager::submitted).
pub(super) async fn submitted(
    shared: &Shared,
    actor: &str,
    idempotency: &Idempotency,
) -> Result<Option<Submitted>, SubmitError> {
    let id = match shared.store.submitted(actor, idempotency).await? {
        None | Some(Inserted::New) => return Ok(None),
        Some(Inserted::KeyReused) => return Err(SubmitError::KeyReused),
        Some(Inserted::Replay(id)) => id,
    };
    let found = shared.get_any(id).await;
    Ok(found.ok().map(|job| Submitted {
        job,
        replayed: true,
    }))
}
