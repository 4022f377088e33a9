//! What is done when a schedule is due: a job is made, or it is noted why not.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Entry, Maker, unfinished};
use crate::api::{SubmitError, Submitted};
use crate::shared::Shared;
use crate::submit::{self, Planned};
use crate::time::{pause_until, until};
use job::Cause;
use job::event::{Event, What};
use job::life::Stop;
use job::schedule::{Last, Overlap, Record, Skipped};
use job::time::Timestamp;
use linux::clock;

/// How soon what could not be done is tried again.
const AGAIN: Duration = Duration::from_secs(5);

/// How often the log is told that a schedule makes no job.
const WARNED: Duration = Duration::from_hours(1);

/// Starts the task that looks which schedules are due, until the service ends.
pub(super) fn start(shared: &Arc<Shared>, maker: Maker) {
    let mut shutdown = shared.shutdown.subscribe();
    let task = shared.clone();
    shared.spawn(async move {
        loop {
            let pause = pause_until(task.schedules.next_look(), clock::wall());
            tokio::select! {
                _ = shutdown.changed() => return,
                () = task.schedules.changed.notified() => continue,
                () = until(Some(Instant::now() + pause)) => {}
            }
            for entry in task.schedules.take_due(clock::wall()) {
                let run = Run {
                    shared: task.clone(),
                    maker: maker.clone(),
                    entry,
                };
                task.spawn(run.run());
            }
        }
    });
}

impl super::Registry {
    fn next_look(&self) -> Option<Timestamp> {
        let entries = self.entries();
        let looks = entries.values().filter_map(|entry| {
            let known = entry.known();
            known.look_at.filter(|_| !known.is_busy)
        });
        looks.min()
    }

    fn take_due(&self, now: Timestamp) -> Vec<Arc<Entry>> {
        let entries = self.entries();
        let due = entries.values().filter(|entry| {
            let mut known = entry.known();
            let is_due = !known.is_busy && known.look_at.is_some_and(|at| at <= now);
            known.is_busy |= is_due;
            is_due
        });
        due.cloned().collect()
    }
}

/// What became of a due time.
enum Done {
    /// It is settled.
    Settled,
    /// It is to be tried again.
    Again(Skipped),
}

/// One look at one schedule.
struct Run {
    shared: Arc<Shared>,
    maker: Maker,
    entry: Arc<Entry>,
}

impl Run {
    async fn run(self) {
        let turn = self.entry.turn.lock().await;
        let again = self.look().await;
        {
            let mut known = self.entry.known();
            known.is_busy = false;
            if known.record.version > 0 {
                known.plan();
                let now = clock::wall();
                if again {
                    let soon = now.after(AGAIN);
                    // What is due next may be earlier.
                    let next = known.look_at.filter(|it| *it > now);
                    known.look_at = Some(next.map_or(soon, |it| it.min(soon)));
                } else if known.record.progress.waiting.is_some() && !known.is_watched {
                    // What it waited for has ended meanwhile.
                    known.look_at = Some(now);
                }
            }
        }
        drop(turn);
        self.shared.schedules.changed.notify_one();
    }

    /// `true`: it has to be looked again soon.
    async fn look(&self) -> bool {
        let record = self.entry.record();
        if record.version == 0 {
            return false;
        }
        if let Some(at) = record.progress.waiting {
            match self.go_on(at).await {
                Ok(Done::Settled) => {}
                Ok(Done::Again(_)) | Err(()) => return true,
            }
        }
        let record = self.entry.record();
        if record.definition.paused {
            return false;
        }
        let now = clock::wall();
        let due = {
            let known = self.entry.known();
            let definition = &record.definition;
            let (missed, within) = (definition.missed, definition.within());
            known.schedule.due(record.seen, now, missed, within)
        };
        if let Some(at) = due.skipped {
            // Nothing before what runs is looked at again.
            let before = |run: &Timestamp| Timestamp::from_micros(run.as_micros() - 1);
            let seen = due.run.first().map_or(due.seen, before);
            let refused = self.entry.known().refused;
            let why = refused.unwrap_or(Skipped::Missed);
            if self.skip(at, seen, why).await.is_err() {
                return true;
            }
        }
        for at in due.run {
            match self.occur(at).await {
                Ok(Done::Settled) => {}
                Ok(Done::Again(reason)) => {
                    tracing::debug!(schedule = %record.name, ?reason, "a due time is tried again");
                    return true;
                }
                Err(()) => return true,
            }
        }
        false
    }

    /// What waits for the end of an earlier job, at last.
    async fn go_on(&self, at: Timestamp) -> Result<Done, ()> {
        let record = self.entry.record();
        let before = self.unfinished(&record).await?;
        if before.is_empty() {
            return self.make(at).await;
        }
        self.watch(before);
        Ok(Done::Settled)
    }

    /// A due time has come.
    async fn occur(&self, at: Timestamp) -> Result<Done, ()> {
        let record = self.entry.record();
        let overlap = record.definition.overlap;
        if overlap == Overlap::Allow {
            return self.make(at).await;
        }
        let before = self.unfinished(&record).await?;
        let is_free = before.is_empty() && record.progress.waiting.is_none();
        match overlap {
            _ if is_free => self.make(at).await,
            Overlap::Queue if record.progress.waiting.is_none() => {
                self.wait_with(at, &record).await?;
                self.watch(before);
                Ok(Done::Settled)
            }
            Overlap::Replace => {
                self.wait_with(at, &record).await?;
                self.stop(&record, &before);
                self.watch(before);
                Ok(Done::Settled)
            }
            Overlap::Allow | Overlap::Skip | Overlap::Queue => {
                self.skip(at, at, Skipped::Overlap).await?;
                Ok(Done::Settled)
            }
        }
    }

    async fn unfinished(&self, record: &Record) -> Result<Vec<Arc<job::Job>>, ()> {
        unfinished(&self.shared, &record.name).await.map_err(|error| {
            tracing::error!(%error, "the jobs of schedule {} cannot be read: {error}", record.name);
        })
    }

    /// Makes the job of a due time.
    async fn make(&self, at: Timestamp) -> Result<Done, ()> {
        let record = self.entry.record();
        let mut submission = match (self.maker)(record.definition.job.clone()).await {
            Ok(submission) => submission,
            Err(why) => {
                self.warn(&record, &why.to_string());
                self.skip(at, at, Skipped::PolicyForbids).await?;
                return Ok(Done::Settled);
            }
        };
        submission.actor = format!("schedule:{}", record.name);
        submission.idempotency = None;
        let next = record.stepped(at, |progress| {
            progress.waiting = None;
            progress.runs += 1;
            progress.last = Some(Last {
                due_at: at,
                job_id: None,
                skipped: None,
            });
        });
        let planned = Planned {
            schedule: next.clone(),
            due_at: Some(at),
        };
        match submit::submit_planned(&self.shared, submission, Some(planned)).await {
            Ok(Submitted { job, .. }) => {
                let mut next = next;
                if let Some(last) = &mut next.progress.last {
                    last.job_id = Some(job.id);
                }
                {
                    let mut known = self.entry.known();
                    known.record = next;
                    known.refused = None;
                }
                self.shared.metrics.schedule_ran(&record.name);
                Ok(Done::Settled)
            }
            Err(SubmitError::QueueFull) => self.later(at, Skipped::QueueFull).await,
            Err(SubmitError::Draining) => self.later(at, Skipped::Draining).await,
            Err(SubmitError::NoRoom) => self.later(at, Skipped::NoRoom).await,
            Err(SubmitError::Store(error)) => {
                self.shared.store_failed(&error);
                Err(())
            }
            Err(SubmitError::KeyTaken(_)) => self.settle(at, Skipped::Overlap).await,
            Err(
                error @ (SubmitError::TooHeavy(_)
                | SubmitError::KeyReused
                | SubmitError::NoSuchDependency(_)
                | SubmitError::Workspace(_)
                | SubmitError::Input { .. }
                | SubmitError::Archive { .. }
                | SubmitError::RunnerOnly
                | SubmitError::UploadsElsewhere(_)
                | SubmitError::NoNodes
                | SubmitError::Unavailable(_)),
            ) => {
                self.warn(&record, &error.to_string());
                self.settle(at, Skipped::Refused).await
            }
        }
    }

    async fn settle(&self, at: Timestamp, why: Skipped) -> Result<Done, ()> {
        self.skip(at, at, why).await?;
        Ok(Done::Settled)
    }

    /// The service cannot take the job now: it is tried again for as long as what was missed is made up for.
    async fn later(&self, at: Timestamp, why: Skipped) -> Result<Done, ()> {
        let within = self.entry.record().definition.within();
        if clock::wall().since(at) > within {
            return self.settle(at, why).await;
        }
        self.entry.known().refused = Some(why);
        Ok(Done::Again(why))
    }

    /// Notes that a due time makes no job.
    async fn skip(&self, at: Timestamp, seen: Timestamp, why: Skipped) -> Result<(), ()> {
        let record = self.entry.record();
        let next = record.stepped(seen, |progress| {
            progress.skipped += 1;
            if progress.waiting == Some(at) {
                progress.waiting = None;
            }
            progress.last = Some(Last {
                due_at: at,
                job_id: None,
                skipped: Some(why),
            });
        });
        let event = Self::skipped(&next, at, why);
        self.step(next, vec![event]).await?;
        self.shared.metrics.schedule_skipped(why);
        Ok(())
    }

    /// Notes that a due time waits for the end of earlier jobs; one that has waited waits no more.
    async fn wait_with(&self, at: Timestamp, record: &Record) -> Result<(), ()> {
        let mut waited = None;
        let next = record.stepped(at, |progress| {
            waited = progress.waiting.replace(at);
            progress.skipped += u64::from(waited.is_some());
        });
        let skipped = waited.map(|at| Self::skipped(&next, at, Skipped::Overlap));
        self.step(next, skipped.into_iter().collect()).await
    }

    /// What is told of a due time that makes no job.
    fn skipped(record: &Record, due_at: Timestamp, reason: Skipped) -> Event {
        let what = What::ScheduleSkipped { due_at, reason };
        Event::of_schedule(record, clock::wall(), what)
    }

    async fn step(&self, next: Record, events: Vec<Event>) -> Result<(), ()> {
        if let Err(error) = self.shared.store.schedules().step(&next, events).await {
            self.shared.store_failed(&error);
            return Err(());
        }
        let mut known = self.entry.known();
        known.record = next;
        known.refused = None;
        Ok(())
    }

    fn stop(&self, record: &Record, jobs: &[Arc<job::Job>]) {
        let stop = Stop {
            requested_by: Some(format!("schedule:{}", record.name)),
            reason: Some("the schedule is due again".to_owned()),
            ..Stop::for_cause(Cause::Superseded)
        };
        for job in jobs {
            let (shared, stop, id) = (self.shared.clone(), stop.clone(), job.id);
            self.shared
                .spawn(async move { shared.see_stopped(id, stop).await });
        }
    }

    /// Has the schedule looked at again once these jobs have ended.
    fn watch(&self, jobs: Vec<Arc<job::Job>>) {
        if std::mem::replace(&mut self.entry.known().is_watched, true) {
            return;
        }
        let (shared, entry) = (self.shared.clone(), self.entry.clone());
        let mut shutdown = self.shared.shutdown.subscribe();
        self.shared.spawn(async move {
            let ends = async {
                for job in jobs {
                    match shared.awake(job.id).await {
                        Ok(Some(mut awake)) => {
                            let _ = awake.state.wait_for(|job| job.state.is_terminal()).await;
                        }
                        Ok(None) => {}
                        Err(_) => until(Some(Instant::now() + AGAIN)).await,
                    }
                }
            };
            tokio::select! {
                _ = shutdown.changed() => return,
                () = ends => {}
            }
            {
                let mut known = entry.known();
                known.is_watched = false;
                known.look_at = Some(clock::wall());
            }
            shared.schedules.changed.notify_one();
        });
    }

    fn warn(&self, record: &Record, why: &str) {
        let now = clock::wall();
        let mut known = self.entry.known();
        if known.warned_at.is_some_and(|at| now.since(at) < WARNED) {
            return;
        }
        known.warned_at = Some(now);
        let name = &record.name;
        tracing::error!(schedule = %name, "schedule {name} makes no job: {why}");
    }
}
