//! Schedules: what is set of them. When they are due is decided in `job::schedule`, and what is done then by the clock.

mod clock;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::BoxFuture;
use jiff::tz::{self, TimeZone};
use tokio::sync::Notify;

use super::api::{Submission, SubmitError, Submitted};
use super::shared::Shared;
use super::submit::Planned;
use super::{listing, submit};
use job::State;
use job::query::{Filter, Order, Query};
use job::schedule::{Definition, Record, Schedule, Skipped};
use job::time::Timestamp;
use store::StoreError;

/// Makes a submission of the job in a definition, by the rules of this moment.
pub type Maker =
    Arc<dyn Fn(String) -> BoxFuture<'static, Result<Submission, Unmakeable>> + Send + Sync>;

/// Why a definition makes no job any more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unmakeable(pub String);

/// The zone of this name, by the time zone data of this machine or else of the program.
#[must_use]
pub fn zone(name: &str) -> Option<TimeZone> {
    tz::db().get(name).ok()
}

/// When a schedule of this name that was made at this moment is due after another, in the time of its zone.
///
/// # Errors
/// If its times are not understood.
pub fn due_times(
    definition: &Definition,
    name: &str,
    made_at: Timestamp,
    after: Timestamp,
    count: usize,
) -> Result<Vec<String>, String> {
    let zone = zone(&definition.time_zone)
        .ok_or_else(|| format!("there is no time zone {}", definition.time_zone))?;
    let schedule = definition.schedule(name, zone.clone(), made_at)?;
    let times = std::iter::successors(schedule.next(after), |at| schedule.next(*at));
    let shown = times.take(count).map(|at| {
        let at = jiff::Timestamp::from_microsecond(at.as_micros()).unwrap_or_default();
        at.display_with_offset(zone.to_offset(at)).to_string()
    });
    Ok(shown.collect())
}

/// What is known of one schedule.
#[derive(Debug)]
struct Known {
    record: Record,
    schedule: Schedule,
    /// When the clock looks next.
    look_at: Option<Timestamp>,
    /// A step of it is being made.
    is_busy: bool,
    /// Somebody waits for the end of its job.
    is_watched: bool,
    /// Why the service did not take what is due.
    refused: Option<Skipped>,
    /// When the log was told last that it makes no job.
    warned_at: Option<Timestamp>,
}

impl Known {
    /// When there is something to do, as far as time alone goes.
    fn plan(&mut self) {
        let is_paused = self.record.definition.paused;
        let next = self.schedule.next(self.record.seen);
        self.look_at = next.filter(|_| !is_paused);
    }
}

/// A schedule by itself; who changes it has its turn.
struct Entry {
    known: Mutex<Known>,
    turn: tokio::sync::Mutex<()>,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.known(), f)
    }
}

impl Entry {
    fn of(record: Record) -> Result<Self, String> {
        let known = Known {
            schedule: timing(&record)?,
            record,
            look_at: None,
            is_busy: false,
            is_watched: false,
            refused: None,
            warned_at: None,
        };
        Ok(Self {
            known: Mutex::new(known),
            turn: tokio::sync::Mutex::new(()),
        })
    }

    // Held for a look-up or a change, and never over an await.
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record(&self) -> Record {
        self.known().record.clone()
    }
}

fn timing(record: &Record) -> Result<Schedule, String> {
    let definition = &record.definition;
    let zone = zone(&definition.time_zone)
        .ok_or_else(|| format!("there is no time zone {}", definition.time_zone))?;
    definition.schedule(&record.name, zone, record.created_at)
}

/// All schedules.
#[derive(Debug, Default)]
pub(super) struct Registry {
    entries: Mutex<BTreeMap<String, Arc<Entry>>>,
    /// One may be due earlier than it would have been.
    changed: Notify,
}

impl Registry {
    fn entries(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Entry>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn entry(&self, name: &str) -> Option<Arc<Entry>> {
        self.entries().get(name).cloned()
    }
}

/// At a server's start: the schedules as earlier servers have left them. One that cannot be understood is never due.
pub(super) async fn recall(shared: &Shared) -> Result<(), StoreError> {
    for record in shared.store.schedules().all().await? {
        let name = record.name.clone();
        let waits = record.progress.waiting;
        match Entry::of(record) {
            Ok(entry) => {
                let mut known = entry.known();
                known.plan();
                // Whether what it waits for is over has to be found out.
                known.look_at = waits.or(known.look_at);
                drop(known);
                shared.schedules.entries().insert(name, Arc::new(entry));
            }
            Err(why) => {
                tracing::error!(schedule = %name, "schedule {name} is never due: {why}");
            }
        }
    }
    Ok(())
}

/// A schedule as it is at a moment.
#[derive(Clone, Debug, PartialEq)]
pub struct ScheduleState {
    /// What is kept of it.
    pub record: Record,
    /// When it is due next.
    pub next_due_at: Option<Timestamp>,
    /// When a job of it has succeeded last, of those that are kept.
    pub last_success_at: Option<Timestamp>,
}

/// Why a request on a schedule was not granted.
#[derive(Debug, thiserror::Error)]
pub enum ScheduleError {
    /// There is none of this name.
    #[error("no such schedule")]
    NoSuchSchedule,
    /// It is no longer in the version that was meant.
    #[error("the schedule has changed")]
    Changed,
    /// Its times cannot be understood.
    #[error("{0}")]
    NotUnderstood(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// In which version a schedule has to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Expected {
    /// In any, or not there.
    #[default]
    Anything,
    /// Not there.
    Nothing,
    /// In this one.
    Version(u64),
}

impl Expected {
    fn is_met(self, version: Option<u64>) -> bool {
        match self {
            Self::Anything => true,
            Self::Nothing => version.is_none(),
            Self::Version(expected) => version == Some(expected),
        }
    }
}

/// A handle to the schedules.
#[derive(Clone, Debug)]
pub struct Schedules {
    shared: Arc<Shared>,
}

impl Schedules {
    pub(super) fn of(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Has them make jobs from now on, until the service ends. Once.
    pub fn start(&self, maker: Maker) {
        clock::start(&self.shared, maker);
    }

    /// All of them, by name.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn list(&self) -> Result<Vec<ScheduleState>, StoreError> {
        let entries: Vec<Arc<Entry>> = self.shared.schedules.entries().values().cloned().collect();
        let mut states = Vec::with_capacity(entries.len());
        for entry in entries {
            if entry.known().record.version == 0 {
                continue;
            }
            states.push(self.state(&entry).await?);
        }
        Ok(states)
    }

    /// The names of those that this actor has made.
    #[must_use]
    pub fn made_by(&self, actor: &str) -> Vec<String> {
        let entries = self.shared.schedules.entries();
        let made = entries.iter().filter(|(_, entry)| {
            let record = &entry.known().record;
            record.version > 0 && record.created_by == actor
        });
        made.map(|(name, _)| name.clone()).collect()
    }

    /// One of them.
    ///
    /// # Errors
    /// If there is none of this name, or the store cannot be read.
    pub async fn get(&self, name: &str) -> Result<ScheduleState, ScheduleError> {
        let entry = self.shared.schedules.entry(name);
        let entry = entry.filter(|it| it.known().record.version > 0);
        let entry = entry.ok_or(ScheduleError::NoSuchSchedule)?;
        Ok(self.state(&entry).await?)
    }

    /// Makes a job of this schedule now, whatever is set of it.
    ///
    /// # Errors
    /// As of [`Manager::submit`](super::Manager::submit).
    pub async fn run(
        &self,
        schedule: Record,
        submission: Submission,
    ) -> Result<Submitted, SubmitError> {
        let planned = Planned {
            schedule,
            due_at: None,
        };
        submit::submit_planned(&self.shared, submission, Some(planned)).await
    }

    async fn state(&self, entry: &Entry) -> Result<ScheduleState, StoreError> {
        let (record, next_due_at) = {
            let known = entry.known();
            let is_paused = known.record.definition.paused;
            let next = known.schedule.next(known.record.seen);
            (known.record.clone(), next.filter(|_| !is_paused))
        };
        let query = Query {
            filter: Filter {
                states: vec![State::Succeeded],
                schedule: Some(record.name.clone()),
                ..Filter::default()
            },
            order: Order::CreatedDescending,
            after: None,
            limit: 1,
            is_brief: true,
        };
        let (_, succeeded) = self.shared.store.list(query, 0).await?;
        Ok(ScheduleState {
            record,
            next_due_at,
            last_success_at: succeeded.first().and_then(|job| job.finished_at),
        })
    }

    /// Sets a schedule up; durable when this returns. `true`: there was none of this name. The same again changes nothing.
    ///
    /// # Errors
    /// If it is not as expected, its times are not understood, or the store fails; nothing is set then.
    pub async fn put(
        &self,
        name: &str,
        definition: Definition,
        actor: &str,
        expected: Expected,
    ) -> Result<(ScheduleState, bool), ScheduleError> {
        let (schedules, name, actor) = (self.clone(), name.to_owned(), actor.to_owned());
        let putting = async move { schedules.put_now(&name, definition, &actor, expected).await };
        self.shared.see_through(putting).await
    }

    async fn put_now(
        &self,
        name: &str,
        definition: Definition,
        actor: &str,
        expected: Expected,
    ) -> Result<(ScheduleState, bool), ScheduleError> {
        loop {
            let Some(entry) = self.shared.schedules.entry(name) else {
                if let Some(state) = self.make(name, &definition, actor, expected).await? {
                    return Ok((state, true));
                }
                continue;
            };
            let _turn = entry.turn.lock().await;
            let before = entry.record();
            if before.version == 0 {
                // It has been removed meanwhile, or could not be made.
                continue;
            }
            if !expected.is_met(Some(before.version)) {
                return Err(ScheduleError::Changed);
            }
            if before.definition != definition {
                let record = changed(before, definition);
                let schedule = timing(&record).map_err(ScheduleError::NotUnderstood)?;
                self.shared.store.schedules().put(&record).await?;
                let mut known = entry.known();
                known.record = record;
                known.schedule = schedule;
                known.plan();
            }
            self.shared.schedules.changed.notify_one();
            return Ok((self.state(&entry).await?, false));
        }
    }

    /// `None`: somebody else has made it meanwhile.
    async fn make(
        &self,
        name: &str,
        definition: &Definition,
        actor: &str,
        expected: Expected,
    ) -> Result<Option<ScheduleState>, ScheduleError> {
        if !expected.is_met(None) {
            return Err(ScheduleError::Changed);
        }
        let now = linux::clock::wall();
        let mut record = Record {
            name: name.to_owned(),
            created_by: actor.to_owned(),
            created_at: now,
            changed_at: now,
            version: 0,
            definition: definition.clone(),
            seen: now,
            turn: 0,
            progress: job::schedule::Progress::default(),
        };
        let entry = Arc::new(Entry::of(record.clone()).map_err(ScheduleError::NotUnderstood)?);
        // Whoever comes next waits for its turn.
        let _turn = entry.turn.lock().await;
        {
            let mut entries = self.shared.schedules.entries();
            if entries.contains_key(name) {
                return Ok(None);
            }
            entries.insert(name.to_owned(), entry.clone());
        }
        record.version = 1;
        if let Err(error) = self.shared.store.schedules().put(&record).await {
            self.shared.schedules.entries().remove(name);
            return Err(error.into());
        }
        {
            let mut known = entry.known();
            known.record = record;
            known.plan();
        }
        self.shared.schedules.changed.notify_one();
        Ok(Some(self.state(&entry).await?))
    }

    /// Removes a schedule; its jobs stay.
    ///
    /// # Errors
    /// If there is none, it is not as expected, or the store fails.
    pub async fn remove(&self, name: &str, expected: Expected) -> Result<(), ScheduleError> {
        let (schedules, name) = (self.clone(), name.to_owned());
        let removing = async move { schedules.remove_now(&name, expected).await };
        self.shared.see_through(removing).await
    }

    async fn remove_now(&self, name: &str, expected: Expected) -> Result<(), ScheduleError> {
        let entry = self.shared.schedules.entry(name);
        let entry = entry.ok_or(ScheduleError::NoSuchSchedule)?;
        let _turn = entry.turn.lock().await;
        let version = entry.record().version;
        if version == 0 {
            return Err(ScheduleError::NoSuchSchedule);
        }
        if !expected.is_met(Some(version)) {
            return Err(ScheduleError::Changed);
        }
        self.shared
            .store
            .schedules()
            .delete(name.to_owned(), linux::clock::wall())
            .await?;
        let mut known = entry.known();
        known.record.version = 0;
        known.look_at = None;
        drop(known);
        self.shared.schedules.entries().remove(name);
        Ok(())
    }
}

/// The schedule with another definition. What was due before the change is not due any more, unless its times stay.
fn changed(before: Record, definition: Definition) -> Record {
    let now = linux::clock::wall();
    let is_resumed = before.definition.paused && !definition.paused;
    let keeps_time = before.definition.keeps_time(&definition) && !is_resumed;
    Record {
        changed_at: now,
        version: before.version + 1,
        seen: if keeps_time { before.seen } else { now },
        turn: before.turn + 1,
        definition,
        ..before
    }
}

/// The jobs of a schedule that have not ended.
async fn unfinished(shared: &Shared, name: &str) -> Result<Vec<Arc<job::Job>>, StoreError> {
    let mut states = State::ALL.to_vec();
    states.retain(|state| !state.is_terminal());
    let query = Query {
        filter: Filter {
            states,
            schedule: Some(name.to_owned()),
            ..Filter::default()
        },
        order: Order::CreatedAscending,
        after: None,
        limit: usize::MAX,
        is_brief: true,
    };
    listing::matching(shared, query).await
}
