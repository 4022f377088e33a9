//! What becomes of a warning that the monitor has given: an event, once, and the time in the job. That time is in the job
//! only once it is durable with the event, and so says whether it was told.

use super::{Runner, log};
use job::event::{Event, What};
use job::{Job, State};
use linux::failpoint;
use protocol::record::Record;

/// Has the monitor warned the job, and nobody was told?
pub(super) fn is_news(job: &Job, record: &Record) -> bool {
    let warned_at = record.life.warned_at();
    warned_at.is_some() && warned_at != job.warned_at
}

/// Makes it durable, then visible. If it cannot be stored, the next record is as good.
pub(super) async fn tell(runner: &mut Runner, record: &Record) {
    let mut job = runner.job.clone();
    let Some(event) = warned(&mut job, record) else {
        return;
    };
    job.version += 1;
    failpoint::hit("warning.storing");
    let event = Event {
        version: job.version,
        ..event
    };
    if let Err(error) = runner.shared.store.update(job.shown(), vec![event]).await {
        runner.shared.store_failed(&error);
        return;
    }
    failpoint::hit("warning.stored");
    log::warned(&job);
    runner.publish.send_replace(job.shown());
    runner.job = job;
}

/// The same of a job that has ended meanwhile: with its end.
pub(super) fn note(runner: &mut Runner, record: &Record) {
    if is_news(&runner.job, record)
        && let Some(event) = warned(&mut runner.job, record)
    {
        runner.untold.push(Event {
            // As it was then.
            state: Some(State::Running),
            ..event
        });
    }
}

fn warned(job: &mut Job, record: &Record) -> Option<Event> {
    let at = record.life.warned_at()?;
    job.warned_at = Some(at);
    let deadline_at = job.deadline_at;
    Some(Event::of(job, at, What::Warned { deadline_at }))
}
