//! What is set of a schedule, and what has become of it, as both are kept. Pure.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use super::{Line, Missed, Schedule, Times};
use crate::JobId;
use crate::time::Timestamp;

/// When it is due, as a client says it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum When {
    /// A crontab line, on the clock of the schedule's zone.
    Cron(String),
    /// Seconds, from `starts_at` or from the making of the schedule.
    EverySeconds(u64),
    /// Moments, in order.
    At(Vec<Timestamp>),
}

/// What happens when it is due and its job has not ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overlap {
    /// Another job runs beside it.
    Allow,
    /// Nothing.
    #[default]
    Skip,
    /// One waits for its end, and no second one.
    Queue,
    /// It is stopped; another job runs once nothing of it is left.
    Replace,
}

/// What is set of a schedule.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Definition {
    /// When it is due.
    #[serde(flatten)]
    pub when: When,
    /// The name of its zone.
    pub time_zone: String,
    /// The job, as JSON, with the values of its secrets.
    pub job: String,
    /// What happens when its job has not ended.
    pub overlap: Overlap,
    /// What is done about what was missed.
    pub missed: Missed,
    /// How long ago something may have been missed.
    pub missed_within_seconds: u64,
    /// It is due up to so much later, always equally much.
    pub jitter_seconds: u64,
    /// It is never due.
    pub paused: bool,
    /// Not before.
    pub starts_at: Option<Timestamp>,
    /// Not after.
    pub ends_at: Option<Timestamp>,
    /// Of the schedule itself.
    pub labels: BTreeMap<String, String>,
}

impl fmt::Debug for Definition {
    /// Without the job, which may have secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Definition")
            .field("when", &self.when)
            .field("time_zone", &self.time_zone)
            .finish_non_exhaustive()
    }
}

impl Definition {
    /// When a schedule of this name that was made at this moment is due.
    ///
    /// # Errors
    /// What is wrong with its crontab line, in words.
    pub fn schedule(
        &self,
        name: &str,
        zone: TimeZone,
        made_at: Timestamp,
    ) -> Result<Schedule, String> {
        let times = match &self.when {
            When::Cron(line) => Times::Cron(Line::parse(line)?, zone),
            When::EverySeconds(seconds) => {
                let step = Duration::from_secs(*seconds);
                // The first time is one step after the making, and `starts_at` itself.
                let first = self.starts_at.unwrap_or_else(|| made_at.after(step));
                Times::Every(step, first)
            }
            When::At(moments) => Times::At(moments.clone()),
        };
        Ok(Schedule {
            times,
            starts_at: self.starts_at,
            ends_at: self.ends_at,
            offset: Duration::from_millis(spread(name, self.jitter_seconds.saturating_mul(1000))),
        })
    }

    /// How long ago something may have been missed.
    #[must_use]
    pub fn within(&self) -> Duration {
        Duration::from_secs(self.missed_within_seconds)
    }

    /// Is it due at the same times, of whatever job?
    #[must_use]
    pub fn keeps_time(&self, other: &Self) -> bool {
        self.when == other.when
            && self.time_zone == other.time_zone
            && self.jitter_seconds == other.jitter_seconds
            && self.starts_at == other.starts_at
            && self.ends_at == other.ends_at
    }
}

/// A number below `most` that is always the same for a name (FNV-1a).
fn spread(name: &str, most: u64) -> u64 {
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash.checked_rem(most).unwrap_or(0)
}

/// Why a due time has made no job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Skipped {
    /// An earlier job of the schedule had not ended.
    Overlap,
    /// Nobody was there, or the clock was set.
    Missed,
    /// The service took no new jobs.
    Draining,
    /// As many jobs waited as may.
    QueueFull,
    /// The disk had no room.
    NoRoom,
    /// The command policy does not have the job any more.
    PolicyForbids,
    /// The job cannot run on this machine.
    Refused,
}

impl Skipped {
    /// The word in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Overlap => "overlap",
            Self::Missed => "missed",
            Self::Draining => "draining",
            Self::QueueFull => "queue_full",
            Self::NoRoom => "no_room",
            Self::PolicyForbids => "policy_forbids",
            Self::Refused => "refused",
        }
    }
}

/// What became of the last due time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Last {
    /// The due time.
    pub due_at: Timestamp,
    /// The job that it has made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_id: Option<JobId>,
    /// Why it has made none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skipped: Option<Skipped>,
}

/// What has become of a schedule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The last due time.
    pub last: Option<Last>,
    /// The due time whose job waits for the end of an earlier one.
    pub waiting: Option<Timestamp>,
    /// How many jobs it has made.
    pub runs: u64,
    /// How many due times have made none; those that were missed in a row count once.
    pub skipped: u64,
}

/// The schedule of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Occurrence {
    /// The name of the schedule.
    pub name: String,
    /// When the job was due; nothing if somebody asked for it.
    pub due_at: Option<Timestamp>,
}

/// A schedule as it is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Its name.
    pub name: String,
    /// Who made it.
    pub created_by: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When something else was set last.
    pub changed_at: Timestamp,
    /// Grows with that.
    pub version: u64,
    /// What is set.
    pub definition: Definition,
    /// No time up to here is looked at again.
    pub seen: Timestamp,
    /// Grows with each step of it and each change of its times, so that a step is made once.
    pub turn: u64,
    /// What has become of it.
    pub progress: Progress,
}

impl Record {
    /// The same after one more step.
    #[must_use]
    pub fn stepped(&self, seen: Timestamp, change: impl FnOnce(&mut Progress)) -> Self {
        let mut next = self.clone();
        next.seen = self.seen.max(seen);
        next.turn += 1;
        change(&mut next.progress);
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(when: When) -> Definition {
        Definition {
            when,
            time_zone: "UTC".to_owned(),
            job: r#"{"secret_env":{"A":"hunter2"}}"#.to_owned(),
            overlap: Overlap::Skip,
            missed: Missed::Latest,
            missed_within_seconds: 3600,
            jitter_seconds: 0,
            paused: false,
            starts_at: None,
            ends_at: None,
            labels: BTreeMap::new(),
        }
    }

    #[test]
    fn a_definition_comes_back_as_it_was_and_shows_no_secret() {
        for when in [
            When::Cron("0 3 * * *".to_owned()),
            When::EverySeconds(5),
            When::At(vec![Timestamp::from_micros(7)]),
        ] {
            let definition = definition(when);
            let text = serde_json::to_string(&definition).unwrap();
            assert_eq!(
                serde_json::from_str::<Definition>(&text).unwrap(),
                definition,
                "{text}"
            );
            assert!(!format!("{definition:?}").contains("hunter2"));
        }
    }

    #[test]
    fn jitter_is_the_same_each_time_and_differs_by_name() {
        let mut daily = definition(When::Cron("0 3 * * *".to_owned()));
        daily.jitter_seconds = 600;
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let offsets: std::collections::BTreeSet<u128> = (0..20)
            .map(|number| {
                let name = format!("s{number}");
                let schedule = daily.schedule(&name, TimeZone::UTC, at("2027-01-01T00:00:00Z"));
                let schedule = schedule.unwrap();
                let first = schedule.next(at("2027-01-01T00:00:00Z")).unwrap();
                let second = schedule.next(first).unwrap();
                assert_eq!(second.since(first), Duration::from_hours(24));
                let late = first.since(at("2027-01-01T03:00:00Z"));
                assert!(late < Duration::from_secs(600), "{late:?}");
                late.as_millis()
            })
            .collect();
        assert!(offsets.len() > 15, "{offsets:?}");
    }

    #[test]
    fn elapsed_time_begins_at_its_start_or_one_step_after_the_making() {
        let at = |seconds: i64| Timestamp::from_micros(seconds * 1_000_000);
        let mut every = definition(When::EverySeconds(10));
        let made = every.schedule("s", TimeZone::UTC, at(100)).unwrap();
        assert_eq!(made.next(at(100)), Some(at(110)));
        every.starts_at = Some(at(203));
        let started = every.schedule("s", TimeZone::UTC, at(100)).unwrap();
        assert_eq!(started.next(at(100)), Some(at(203)));
        assert_eq!(started.next(at(203)), Some(at(213)));
    }
}
