//! How a new job comes in: durable first, then queued or started.

use std::collections::BTreeMap;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::ahead::{self, Ahead};
use super::{Next, Runner, workspace};
use crate::api::LookupError;
use crate::room::Superseded;
use crate::submit::Planned;
use crate::{Part, SubmitError, Submitted, chains};
use job::Idempotency;
use job::event::Event;
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
    pub(crate) async fn take_in(self, runner: Box<Runner>) {
        // In a box of its own, which is gone once the job runs.
        if let Some((runner, secrets, next)) = Box::pin(self.store(runner)).await {
            runner.go_on(secrets, next, Instant::now()).await;
        }
    }

    /// Makes the job durable, and answers where it is not: `None`.
    async fn store(self, mut runner: Box<Runner>) -> Option<(Box<Runner>, Secrets, Next)> {
        let Self {
            secrets,
            idempotency,
            planned,
            parts,
            answer,
        } = self;
        failpoint::hit("job.accepting");
        let shared = runner.shared.clone();
        let (arrival, is_alone) = shared.arrivals.come();
        let is_plain = ahead::is_plain(&runner.job);
        let created = Event::created(&runner.job);
        let claimed = match &shared.nodes {
            Some(nodes) if is_plain => Some(ahead::claim(&mut runner, nodes)),
            Some(_) | None => None,
        };
        let planned = planned.as_ref();
        let insertion =
            crate::submit::insertion(&runner.job, created, &secrets, idempotency, planned);
        if claimed.as_ref().is_some_and(|it| it.is_claimed) {
            failpoint::hit("claim.storing");
        }
        let insert = workspace::insert(&runner.shared, &runner.job, (insertion, parts));
        let (inserted, ahead) = if is_plain && is_alone && shared.nodes.is_none() {
            // The first is on its way when the second begins.
            let (inserted, ahead) = tokio::join!(insert, ahead::launch(&runner, &secrets));
            (inserted, Some(ahead))
        } else {
            (insert.await, claimed)
        };
        drop(arrival);
        let refusal = match inserted {
            Ok(Inserted::New) => {
                failpoint::hit("job.accepted");
                let next = Self::enter(&mut runner, ahead);
                let queue = runner.shared.queue_label(&runner.job.spec.queue);
                runner.shared.metrics.accepted(queue);
                runner.shared.stats.created();
                runner.answer = Some(answer);
                return Some((runner, secrets, next));
            }
            Ok(Inserted::Replay(id)) => {
                Self::turn_away(&runner, ahead);
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
                Self::turn_away(&runner, ahead);
                Err(SubmitError::KeyReused)
            }
            Err(error) => {
                Self::turn_away(&runner, ahead);
                Err(error)
            }
        };
        runner.shared.chains.account().remove(runner.job.id);
        let _ = answer.send(refusal);
        None
    }

    /// The job is durable: it waits from now on, or starts if it has its slot by now.
    fn enter(runner: &mut Runner, ahead: Option<Ahead>) -> Next {
        let shared = &runner.shared;
        if let Some(ahead) = ahead {
            ahead.keep(shared);
            runner.ahead = ahead.link;
            if ahead.is_claimed {
                failpoint::hit("claim.stored");
            }
            return match (ahead.is_claimed, ahead.is_granted) {
                (true, _) => Next::HandOver,
                (false, true) => Next::Start(None),
                (false, false) => Next::Wait(ahead.has_slot, None),
            };
        }
        let (slot, has_slot) = oneshot::channel();
        let ticket = shared.room.ticket_of(&runner.job);
        shared.room.enter(ticket, Some(slot));
        chains::linked(shared, runner.job.id);
        if let Some(key) = &runner.job.spec.concurrency {
            let doomed = shared
                .room
                .supersede(runner.job.id, key, Superseded::Others);
            shared.end_superseded(doomed, &runner.job);
        }
        shared.grant();
        Next::Wait(has_slot, None)
    }

    fn turn_away(runner: &Runner, ahead: Option<Ahead>) {
        match ahead {
            Some(ahead) => ahead.undo(&runner.shared),
            None => runner.shared.room.take_back(runner.job.id),
        }
    }
}
