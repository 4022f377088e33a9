//! How a new job comes in: durable first, then queued or started.

use std::collections::BTreeMap;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{Next, Runner, workspace};
use crate::api::LookupError;
use crate::room::Superseded;
use crate::submit::Planned;
use crate::{Part, SubmitError, Submitted, chains};
use job::Idempotency;
use job::spec::Secrets;
use linux::failpoint;
use store::Inserted;

/// How a new job comes in.
pub(crate) struct Acceptance {
    pub(crate) secrets: Secrets,
    pub(crate) idempotency: Option<Idempotency>,
    /// What it is of a schedule.
    pub(crate) planned: Option<Planned>,
    /// The parts of the form that it came in.
    pub(crate) parts: BTreeMap<String, Part>,
    pub(crate) answer: oneshot::Sender<Result<Submitted, SubmitError>>,
}

impl Acceptance {
    /// A new job: durable first, then queued or started.
    pub(crate) async fn take_in(self, mut runner: Box<Runner>) {
        let Self {
            secrets,
            idempotency,
            planned,
            parts,
            answer,
        } = self;
        failpoint::hit("job.accepting");
        let insertion =
            crate::submit::insertion(&runner.job, &secrets, idempotency, planned.as_ref());
        let inserted = workspace::insert(&runner.shared, &runner.job, (insertion, parts)).await;
        let refusal = match inserted {
            Ok(Inserted::New) => {
                failpoint::hit("job.accepted");
                let queue = runner.shared.queue_label(&runner.job.spec.queue);
                runner.shared.metrics.accepted(queue);
                runner.shared.stats.created();
                runner.answer = Some(answer);
                let (slot, has_slot) = oneshot::channel();
                let ticket = runner.shared.room.ticket_of(&runner.job);
                runner.shared.room.enter(ticket, Some(slot));
                chains::linked(&runner.shared, runner.job.id);
                if let Some(key) = &runner.job.spec.concurrency {
                    let room = &runner.shared.room;
                    let doomed = room.supersede(runner.job.id, key, Superseded::Others);
                    runner.shared.end_superseded(doomed, &runner.job);
                }
                runner.shared.grant();
                let next = Next::Wait(has_slot, None);
                return runner.go_on(secrets, next, Instant::now()).await;
            }
            Ok(Inserted::Replay(id)) => {
                runner.shared.room.take_back(runner.job.id);
                runner
                    .shared
                    .get_any(id)
                    .await
                    .map(|job| Submitted {
                        job,
                        replayed: true,
                    })
                    .map_err(|error| match error {
                        LookupError::Store(error) => SubmitError::Store(error),
                        // It expired in this very moment.
                        LookupError::NoSuchJob => SubmitError::KeyReused,
                    })
            }
            Ok(Inserted::KeyReused) => {
                runner.shared.room.take_back(runner.job.id);
                Err(SubmitError::KeyReused)
            }
            Err(error) => {
                runner.shared.room.take_back(runner.job.id);
                Err(error)
            }
        };
        runner.shared.chains.account().remove(runner.job.id);
        let _ = answer.send(refusal);
    }
}
