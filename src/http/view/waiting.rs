//! Why a job is in its state, in a word and in a sentence.

use std::borrow::Cow;

use job::{Job, State};
use manager::{Hub, Manager, Reason};

/// One word: why it waits, or how it ended.
pub(super) fn state_reason(job: &Job, why: Option<&Reason>) -> Option<&'static str> {
    match job.state {
        // One that has its slot and no process yet waits for nothing that has a name.
        State::Queued if why.is_none() && job.next_attempt_at.is_some() => {
            // Its node has it, and tries it again.
            Some("waiting_for_retry")
        }
        State::Queued => Some(why.map_or("waiting_for_slot", wait_word)),
        State::Starting | State::Running | State::Paused | State::Stopping => None,
        State::Succeeded | State::Failed | State::Canceled | State::TimedOut | State::Lost => job
            .termination
            .as_ref()
            .map(|termination| termination.cause.as_str()),
    }
}

/// The node of the job is not heard.
pub(super) fn unheard(job: &Job, hub: &Hub) -> Option<(&'static str, String)> {
    let (since, lost_at) = hub.unheard(job)?;
    let node = hub.node_of(job)?;
    let is_stopped = job.claim.as_ref().is_some_and(|it| it.stop.is_some());
    let and = if is_stopped {
        ", and is stopped if it does"
    } else {
        ""
    };
    let message = format!(
        "node {node} has not been heard since {since}; unless it comes back, the job is lost at {lost_at}{and}"
    );
    Some(("node_unreachable", message))
}

/// What a queued job waits for at this moment.
pub(super) fn waits_for(job: &Job, manager: &Manager) -> Option<Reason> {
    (job.state == State::Queued).then(|| manager.why(job.id))?
}

/// One sentence for people: what went wrong, or why it waits.
pub(super) fn state_message<'a>(job: &'a Job, why: Option<&Reason>) -> Option<Cow<'a, str>> {
    match (&job.message, why) {
        (Some(message), Some(Reason::NoNode(why))) => Some(format!("{message}; {why}").into()),
        (Some(message), _) => Some(message.into()),
        (None, Some(why)) => Some(wait_message(job, why).into()),
        (None, None) => None,
    }
}

fn wait_word(why: &Reason) -> &'static str {
    match why {
        Reason::Held => "held",
        Reason::Dependencies(_) => "waiting_for_dependencies",
        Reason::Time(_) => "waiting_for_time",
        Reason::Retry(_) => "waiting_for_retry",
        Reason::Key(claim, _) if claim.is_of_batch() => "waiting_for_batch",
        Reason::Key(..) => "waiting_for_key",
        Reason::NeverFits(_) => "never_fits",
        Reason::QueuePaused(_) => "queue_paused",
        Reason::Rate(_) => "waiting_for_rate",
        Reason::Queue(_) => "waiting_for_queue",
        Reason::NoNode(_) => "no_matching_node",
        Reason::Slot => "waiting_for_slot",
    }
}

fn wait_message(job: &Job, why: &Reason) -> String {
    let queue = &job.spec.queue;
    match why {
        Reason::Held => "it is held until somebody releases it".to_owned(),
        Reason::Dependencies(1) => "one of those that it depends on has not ended".to_owned(),
        Reason::Dependencies(count) => {
            format!("{count} of those that it depends on have not ended")
        }
        Reason::Time(at) => format!("it is not to start before {at}"),
        Reason::Retry(at) => format!("it is tried again at {at}"),
        Reason::Key(claim, _) if claim.is_of_batch() && claim.limit == 1 => {
            "one job of its batch runs, which is the most".to_owned()
        }
        Reason::Key(claim, _) if claim.is_of_batch() => {
            format!("{} jobs of its batch run, which is the most", claim.limit)
        }
        Reason::Key(claim, Some(holder)) => format!("job {holder} runs with the key {}", claim.key),
        Reason::Key(claim, None) => format!("others run with the key {}", claim.key),
        Reason::NeverFits(weight) => {
            format!("its weight of {weight} is more than the limit of queue {queue}")
        }
        Reason::QueuePaused(Some(reason)) => format!("queue {queue} is paused: {reason}"),
        Reason::QueuePaused(None) => format!("queue {queue} is paused"),
        Reason::Rate(at) => format!("the rate of queue {queue} lets the next job start at {at}"),
        Reason::Queue(Some(first)) => {
            format!("queue {queue} has no room for job {first}, which comes first")
        }
        Reason::Queue(None) => format!("queue {queue} runs as much as it may"),
        Reason::NoNode(why) => why.clone(),
        Reason::Slot => "the service runs as much as it may".to_owned(),
    }
}
