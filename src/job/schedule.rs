//! When a schedule is due. Pure: the time zone is handed in.
//!
//! A crontab line is about the clock on the wall. So it is searched on a calendar without zones, and each time that is
//! found is looked up in the zone: one that does not exist is the first moment after the gap, and one that exists twice
//! is the first of the two. A line that is due in every hour, or every few hours, follows the clock of the world
//! instead: it is due whenever the clock on the wall shows one of its times.

mod definition;

use std::time::Duration;

use cronexpr::{Crontab, FallbackTimezoneOption, ParseOptions};
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};
use serde::{Deserialize, Serialize};

use crate::time::Timestamp;
pub use definition::{Definition, Last, Occurrence, Overlap, Progress, Record, Skipped, When};

/// The most moments that may be listed.
pub const MOMENTS_MAX: usize = 1000;

/// The most missed times that are made up for.
pub const MADE_UP_MAX: usize = 100;

/// What is due no longer ago than this is not missed.
pub const PUNCTUAL: Duration = Duration::from_secs(5);

/// How many times four years a line is looked through: a 29 February may be eight years away.
const SEARCHES: u32 = 3;

/// A crontab line that is understood.
#[derive(Debug)]
pub struct Line {
    /// On a calendar without zones; UTC takes their place.
    calendar: Crontab,
    /// The last day of the year, where the line names the last day of a month.
    year_end: Option<Crontab>,
    is_hourly: bool,
}

/// When it is due.
#[derive(Debug)]
pub enum Times {
    /// By a crontab line, on the clock of a zone.
    Cron(Line, TimeZone),
    /// Each time that so much time has passed since a moment, which is the first time.
    Every(Duration, Timestamp),
    /// At moments, in order.
    At(Vec<Timestamp>),
}

/// A schedule, as far as time goes.
#[derive(Debug)]
pub struct Schedule {
    /// When it is due.
    pub times: Times,
    /// Not before.
    pub starts_at: Option<Timestamp>,
    /// Not after.
    pub ends_at: Option<Timestamp>,
    /// How much later than its times it is due.
    pub offset: Duration,
}

/// What is done about what was missed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Missed {
    /// The last one runs.
    #[default]
    Latest,
    /// All run, but no more than [`MADE_UP_MAX`].
    All,
    /// None runs.
    Skip,
}

/// What is due at a moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Due {
    /// What is to run, in order.
    pub run: Vec<Timestamp>,
    /// One of those that were passed over, if any were.
    pub skipped: Option<Timestamp>,
    /// No time up to here is looked at again.
    pub seen: Timestamp,
}

impl Line {
    /// Understands five fields, or a name such as `@daily`.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = match text.trim() {
            "@yearly" | "@annually" => "0 0 1 1 *",
            "@monthly" => "0 0 1 * *",
            "@weekly" => "0 0 * * 0",
            "@daily" | "@midnight" => "0 0 * * *",
            "@hourly" => "0 * * * *",
            other => other,
        };
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [minute, hour, day, month, weekday] = fields[..] else {
            let found = fields.len();
            return Err(format!("five fields are needed, and there are {found}"));
        };
        let calendar = read(text)?;
        let mut year_end = None;
        if day.split(',').any(|it| it.eq_ignore_ascii_case("l")) {
            // The parser's own search overlooks that January comes after December.
            let december = read(&format!("0 0 1 {month} *"))?;
            let first = moment("2000-12-01T00:00:00")?;
            if december.matches(first).is_ok_and(|it| it) {
                let days = day.split(',').map(|it| match it {
                    "l" | "L" => "31",
                    other => other,
                });
                let days = days.collect::<Vec<_>>().join(",");
                year_end = Some(read(&format!("{minute} {hour} {days} 12 {weekday}"))?);
            }
        }
        let is_hourly = hour.contains(['*', '/']);
        let line = Self {
            calendar,
            year_end,
            is_hourly,
        };
        let start = "2001-01-01T00:00:00".parse::<DateTime>();
        match line.on_calendar(start.map_err(|it| it.to_string())?) {
            Some(_) => Ok(line),
            None => Err("never due".to_owned()),
        }
    }

    /// The first time after this one on a calendar without zones.
    fn on_calendar(&self, after: DateTime) -> Option<DateTime> {
        let next = |line: &Crontab| {
            let mut from = after;
            for _ in 0..SEARCHES {
                let start = TimeZone::UTC.to_timestamp(from).ok()?;
                if let Ok(found) = line.find_next(start) {
                    return Some(found.datetime());
                }
                from = from.checked_add(jiff::Span::new().years(4)).ok()?;
            }
            None
        };
        let year_end = self.year_end.as_ref().and_then(next);
        [next(&self.calendar), year_end].into_iter().flatten().min()
    }

    fn next(&self, zone: &TimeZone, after: jiff::Timestamp) -> Option<jiff::Timestamp> {
        if self.is_hourly {
            self.next_by_the_world(zone, after)
        } else {
            self.next_by_the_wall(zone, after)
        }
    }

    fn next_by_the_wall(&self, zone: &TimeZone, after: jiff::Timestamp) -> Option<jiff::Timestamp> {
        // The second of two equal times belongs to the first, so the search begins before both of them.
        let mut wall = zone.to_datetime(after);
        if let Some(change) = zone.preceding(after).next() {
            let before = change.timestamp().checked_sub(SECOND).ok()?;
            let (old, new) = (zone.to_offset(before), change.offset());
            let back = old.duration_since(new);
            if back.is_positive() && after.duration_since(change.timestamp()) < back {
                wall = wall.checked_sub(back).ok()?;
            } else if back.is_negative() && after.duration_since(change.timestamp()) < -back {
                wall = wall.checked_add(back).ok()?;
            }
        }
        loop {
            wall = self.on_calendar(wall)?;
            let moment = moment_of(zone, wall)?;
            if moment > after {
                return Some(moment);
            }
        }
    }

    fn next_by_the_world(
        &self,
        zone: &TimeZone,
        after: jiff::Timestamp,
    ) -> Option<jiff::Timestamp> {
        let mut from = after;
        loop {
            let offset = zone.to_offset(from);
            let change = zone.following(from).next();
            let end = change.map(|it| it.timestamp());
            let found = self.on_calendar(offset.to_datetime(from))?;
            let found = offset.to_timestamp(found).ok()?;
            match end {
                Some(end) if found >= end => {
                    // The moment of the change itself may be due.
                    from = end.checked_sub(SECOND).ok()?;
                    let (wall, offset) = (zone.to_datetime(end), zone.to_offset(end));
                    let before = wall.checked_sub(SECOND).ok()?;
                    let first = offset.to_timestamp(self.on_calendar(before)?).ok()?;
                    if first == end {
                        return Some(end);
                    }
                    if from <= after || end > from {
                        from = end;
                    }
                }
                Some(_) | None => return Some(found),
            }
        }
    }
}

const SECOND: jiff::SignedDuration = jiff::SignedDuration::from_secs(1);

fn read(line: &str) -> Result<Crontab, String> {
    let mut options = ParseOptions::default();
    options.fallback_timezone_option = FallbackTimezoneOption::UTC;
    cronexpr::parse_crontab_with(line, options).map_err(|it| it.to_string())
}

fn moment(text: &str) -> Result<jiff::Timestamp, String> {
    let wall = text.parse::<DateTime>().map_err(|it| it.to_string())?;
    TimeZone::UTC
        .to_timestamp(wall)
        .map_err(|it| it.to_string())
}

/// When the clock of the zone shows this.
fn moment_of(zone: &TimeZone, wall: DateTime) -> Option<jiff::Timestamp> {
    match zone.to_ambiguous_timestamp(wall).offset() {
        AmbiguousOffset::Unambiguous { offset } => offset.to_timestamp(wall).ok(),
        AmbiguousOffset::Fold { before, .. } => before.to_timestamp(wall).ok(),
        AmbiguousOffset::Gap { after, .. } => {
            // With the later offset it lies before the change, which is the next one from there.
            let earlier = after.to_timestamp(wall).ok()?;
            Some(zone.following(earlier).next()?.timestamp())
        }
    }
}

impl Schedule {
    /// The first time after this moment.
    #[must_use]
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let before = |moment: Timestamp, by: Duration| {
            let by = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
            Timestamp::from_micros(moment.as_micros().saturating_sub(by))
        };
        let mut after = before(after, self.offset);
        if let Some(start) = self.starts_at {
            after = after.max(before(start, Duration::from_micros(1)));
        }
        let next = match &self.times {
            Times::Cron(line, zone) => {
                let after = jiff::Timestamp::from_microsecond(after.as_micros()).ok()?;
                let next = line.next(zone, after)?;
                Timestamp::from_micros(next.as_microsecond())
            }
            Times::Every(step, anchor) => {
                let step_micros = step.as_micros().max(1);
                let passed = after.since(*anchor).as_micros() / step_micros + 1;
                if after < *anchor {
                    *anchor
                } else {
                    let micros = u64::try_from(passed.checked_mul(step_micros)?).ok()?;
                    anchor.after(Duration::from_micros(micros))
                }
            }
            Times::At(moments) => moments.iter().copied().find(|it| *it > after)?,
        };
        self.ends_at
            .is_none_or(|end| next <= end)
            .then(|| next.after(self.offset))
    }

    /// What is due now of the times after `seen`. What is missed is what is longer ago than [`PUNCTUAL`], and it runs
    /// only if it is no longer ago than `within`.
    #[must_use]
    pub fn due(&self, seen: Timestamp, now: Timestamp, missed: Missed, within: Duration) -> Due {
        let mut due = Due {
            seen,
            ..Due::default()
        };
        let mut last = seen;
        while let Some(at) = self.next(last).filter(|it| *it <= now) {
            let age = now.since(at);
            if age > within.max(PUNCTUAL) {
                due.skipped = Some(at);
                // Nothing of what is older is needed: continue just before the window.
                let skip = age.saturating_sub(within.max(PUNCTUAL) + PUNCTUAL);
                last = at.after(skip);
                due.seen = last;
                continue;
            }
            last = at;
            due.seen = at;
            if missed == Missed::Skip && age > PUNCTUAL {
                due.skipped = Some(at);
            } else {
                due.run.push(at);
            }
        }
        let most = match missed {
            Missed::Latest => 1,
            Missed::All => MADE_UP_MAX,
            Missed::Skip => usize::MAX,
        };
        if let Some(surplus) = due.run.len().checked_sub(most).filter(|it| *it > 0) {
            due.skipped = due.skipped.max(due.run.drain(..surplus).next_back());
        }
        due
    }
}

#[cfg(test)]
mod tests;
