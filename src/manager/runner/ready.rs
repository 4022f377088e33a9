//! What becomes of a job that is ready, or is not in time.

use super::{Runner, log};
use crate::readiness::{self, Found, Seen, Watch};
use crate::shared::STORE_RETRY;
use job::State;
use job::event::{Event, Kind, What};
use job::life::Stop;
use job::outcome::Cause;
use job::ready::{OnTimeout, Sign};
use linux::notify::NotifySocket;
use linux::{clock, failpoint};
use protocol::wire::messages::Request;

/// Makes the socket that the job is to report to, if it is. Without it the job starts all the same, and is not ready.
pub(super) fn listen(runner: &mut Runner) {
    let job = &runner.job;
    let reports = job.spec.ready.as_ref().map(|ready| &ready.sign);
    if !matches!(reports, Some(Sign::Notify { .. })) || runner.notify.is_some() {
        return;
    }
    match NotifySocket::bind(&readiness::socket_name(job.id)) {
        Ok(socket) => runner.notify = Some(socket),
        Err(error) => {
            tracing::warn!(job.id = %job.id, %error, "job {} cannot report that it is ready: {error}", job.id);
        }
    }
}

/// Begins to look whether the job is ready, once it has a process.
pub(super) fn begin(runner: &mut Runner, watch: &mut Option<Watch>) {
    let job = &runner.job;
    let Some(ready) = &job.spec.ready else { return };
    if watch.is_some() || job.process.is_none() || job.state.is_terminal() {
        return;
    }
    if job.awaits_ready() || matches!(ready.sign, Sign::Notify { .. }) {
        *watch = Watch::begin(
            &runner.shared,
            runner.publish.subscribe(),
            runner.feed.subscribe(),
            runner.notify.take(),
        );
    }
}

/// The stop of a job that was not ready in time, if that is to stop it.
pub(super) fn stop_of_late(runner: &Runner) -> Option<Request> {
    let job = &runner.job;
    let ready = job.spec.ready.as_ref()?;
    let is_late = job.not_ready_at.is_some() && job.ready_at.is_none();
    let stops = is_late && ready.on_timeout == OnTimeout::Stop && job.state != State::Stopping;
    stops.then(|| Request::Stop(Stop::for_cause(Cause::NotReady)))
}

/// Makes durable what was seen, then visible; what the monitor is to be asked then.
pub(super) async fn take(runner: &mut Runner, watch: &mut Watch, seen: Seen) -> Option<Request> {
    let mut job = runner.job.clone();
    let event = match &seen {
        Seen::Ready(found) => ready(&mut job, found),
        // It is being ended.
        Seen::Late(_) if job.state == State::Stopping => return None,
        Seen::Late(why) => {
            let at = clock::wall();
            job.not_ready_at = Some(at);
            job.ready_message.clone_from(why);
            job.version += 1;
            let message = why.clone();
            Event::of(&job, at, What::NotReady { message })
        }
    };
    failpoint::hit("ready.storing");
    if let Err(error) = runner.shared.store.update(job.shown(), vec![event]).await {
        runner.shared.store_failed(&error);
        watch.again(seen, STORE_RETRY);
        return None;
    }
    failpoint::hit("ready.stored");
    log::ready(&job);
    runner.publish.send_replace(job.shown());
    runner.job = job;
    stop_of_late(runner)
}

fn ready(job: &mut job::Job, found: &Found) -> Event {
    job.ready_at = Some(found.at);
    job.ready_message.clone_from(&found.message);
    job.version += 1;
    let message = found.message.clone();
    Event::of(job, found.at, What::Ready { message })
}

/// An attempt has ended that was not seen to be ready: its last lines may say so.
pub(super) async fn last_look(runner: &mut Runner) {
    if !runner.job.awaits_ready() || runner.job.attempt_started_at().is_none() {
        return;
    }
    if let Some(found) = readiness::found_in(&runner.shared, &runner.job).await {
        let event = ready(&mut runner.job, &found);
        runner.untold.push(Event {
            // As it was then.
            state: Some(State::Running),
            ..event
        });
    }
}

/// The events with those that have not been told yet, which were after the start.
pub(super) fn with_untold(runner: &mut Runner, mut events: Vec<Event>) -> Vec<Event> {
    let is_start = |event: &Event| event.what.kind() == Kind::Started;
    let at = events.iter().take_while(|event| is_start(event)).count();
    let untold = std::mem::take(&mut runner.untold);
    events.splice(at..at, untold);
    events
}
