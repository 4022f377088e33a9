//! What follows the end of an attempt: the end of the job, or another attempt.

use std::future::pending;

use tokio::sync::oneshot;

use super::{Next, Runner, SURVIVORS_PATIENCE, ready};
use crate::chains;
use crate::time::chance;
use job::event;
use job::life::Stop;
use job::outcome::Cause;
use job::retry::Decision;
use job::{Job, State};
use linux::clock;
use linux::failpoint;
use protocol::record::Record;

/// An attempt has ended as the job says now, and as this record says if it has one: the job is over, or another attempt
/// follows.
pub(super) async fn settle(runner: &mut Runner, record: Option<&Record>) -> Next {
    ready::last_look(runner).await;
    let decision = match record {
        Some(record) if record.life.is_last() => Decision::Over,
        Some(_) | None => runner.job.retry_decision(clock::wall(), chance()),
    };
    runner
        .job
        .keep_attempt(record.and_then(|record| record.usage));
    if let (Some(node), Some(last)) = (runner.refused_by.take(), runner.job.attempts.last_mut()) {
        last.refused_by = Some(node);
    }
    let Decision::Again(at) = decision else {
        runner.commit_end().await;
        runner.shared.metrics.attempt_ended(runner.job.state);
        return Next::Over;
    };
    if runner.short.take().is_some() {
        runner.shared.job_dirs.sync_output(runner.job.id).await;
    }
    // No two attempts at a time. The next server finds the same end and does the same.
    if !clear_away(runner).await {
        return Next::Over;
    }
    let ended = runner.job.clone();
    runner.job.wait_again(at);
    runner.job.version += 1;
    let job = runner.job.shown();
    let events = event::between(runner.told, &ended, &job);
    let events = ready::with_untold(runner, events);
    runner.told = State::Queued;
    runner.is_counted = false;
    failpoint::hit("settle.storing");
    let shared = &runner.shared;
    let update = || shared.store.update(job.clone(), events.clone());
    let next = (job.id, "the next attempt");
    shared.until_stored(next, update, pending::<()>()).await;
    failpoint::hit("settle.stored");
    runner.shared.count_attempt(&ended);
    runner.shared.job_dirs.remove_record(job.id).await;
    failpoint::hit("settle.removed");
    let (slot, has_slot) = oneshot::channel();
    let ticket = runner.shared.room.ticket_of(&job);
    runner.shared.room.enter(ticket, Some(slot));
    // What it depends on has ended before its first attempt.
    chains::linked(&runner.shared, job.id);
    // Its monitor may have ended before it reported the last of it.
    runner.feed.send_replace(job.output.next_offset);
    runner.publish.send_replace(job);
    runner.answer();
    runner.shared.grant();
    Next::Wait(has_slot, None)
}

/// Ends what a lost attempt has left running, and waits until it is gone; `false` if the service ends first.
async fn clear_away(runner: &mut Runner) -> bool {
    let stop = Stop {
        requested_by: Some("the next attempt".to_owned()),
        ..Stop::for_cause(Cause::MonitorLost)
    };
    loop {
        runner.shared.lost_jobs.end(&runner.job, &stop).await;
        let are_gone = runner
            .shared
            .lost_jobs
            .ended(&runner.job, SURVIVORS_PATIENCE);
        tokio::select! {
            are_gone = are_gone => if are_gone {
                return true;
            },
            _ = runner.shutdown.wait_for(Option::is_some) => return false,
        }
    }
}

/// The job as it ends if it waits for another attempt and there is to be none any more.
pub(super) fn given_up(runner: &Runner) -> Option<Job> {
    runner.job.next_attempt_at?;
    if runner.job.attempts.last()?.lost_with.is_some() {
        // It was not its failure.
        return None;
    }
    let ended = runner.job.as_ended_last(clock::wall())?;
    // As it was asked when the attempt ended.
    let asked_at = runner.job.attempts.last()?.finished_at;
    (ended.retry_decision(asked_at, 0.0) == Decision::Over).then_some(ended)
}
