//! How much happened: a row a minute for thirty days, made as it happens and never from the jobs.
//!
//! The rows are in one file of the state directory, each in a place that its minute determines, so that the file
//! never grows. Who is killed loses what happened since the last second.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use super::shared::Shared;
use job::time::Timestamp;
use job::{Job, State};
use linux::clock;
use protocol::state_dir::private_file;

const FILE: &str = "stats";

/// So many minutes are kept: thirty days.
pub(super) const MINUTES: u64 = 30 * 24 * 60;

/// How often what happened is written down.
const WRITTEN: Duration = Duration::from_secs(1);

/// Numbers of a row in the file: the minute and those of [`Row`].
const NUMBERS: usize = 11;
const BYTES: usize = 8 * NUMBERS;

/// What happened in a while.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// Jobs that were accepted.
    pub created: u64,
    /// Jobs that started.
    pub started: u64,
    /// Jobs that ended well.
    pub succeeded: u64,
    /// Jobs that failed.
    pub failed: u64,
    /// Jobs that took too long.
    pub timed_out: u64,
    /// Jobs that were stopped.
    pub canceled: u64,
    /// Jobs whose end nobody saw.
    pub lost: u64,
    /// The most that ran at a time.
    pub most_running: u64,
    /// The most that waited at a time.
    pub most_queued: u64,
    /// Microseconds of processors that the jobs which ended had used.
    pub cpu_micros: u64,
}

impl Row {
    fn add(&mut self, other: &Self) {
        let numbers = other.numbers();
        let mine = self.numbers();
        let mut sum = [0; NUMBERS - 1];
        for (index, slot) in sum.iter_mut().enumerate() {
            *slot = if index == 7 || index == 8 {
                mine[index].max(numbers[index])
            } else {
                mine[index].saturating_add(numbers[index])
            };
        }
        *self = Self::of(sum);
    }

    /// The numbers in the order in which the file has them.
    fn fields(&mut self) -> [&mut u64; NUMBERS - 1] {
        let Self {
            created,
            started,
            succeeded,
            failed,
            timed_out,
            canceled,
            lost,
            most_running,
            most_queued,
            cpu_micros,
        } = self;
        [
            created,
            started,
            succeeded,
            failed,
            timed_out,
            canceled,
            lost,
            most_running,
            most_queued,
            cpu_micros,
        ]
    }

    fn numbers(mut self) -> [u64; NUMBERS - 1] {
        self.fields().map(|number| *number)
    }

    fn of(numbers: [u64; NUMBERS - 1]) -> Self {
        let mut row = Self::default();
        for (field, number) in row.fields().into_iter().zip(numbers) {
            *field = number;
        }
        row
    }
}

/// The present minute, and the file of those before it.
pub(super) struct Stats {
    present: Mutex<Present>,
    file: Option<File>,
}

#[derive(Clone, Copy)]
struct Present {
    minute: u64,
    row: Row,
    /// It has something that the file does not have.
    is_dirty: bool,
}

impl Stats {
    /// Goes on where an earlier server was. Without a file it counts for as long as it lives.
    pub(super) fn open(state_dir: &Path) -> Self {
        let file = private_file(&state_dir.join(FILE), false)
            .inspect_err(|error| tracing::warn!(%error, "what happens is not counted: {error}"))
            .ok();
        let minute = minute_of(clock::wall());
        let row = file.as_ref().and_then(|file| read(file, minute).ok());
        Self {
            present: Mutex::new(Present {
                minute,
                row: row.flatten().unwrap_or_default(),
                is_dirty: false,
            }),
            file,
        }
    }

    /// A job was accepted.
    pub(super) fn created(&self) {
        self.change(|row| row.created += 1);
    }

    /// A job has started.
    pub(super) fn started(&self) {
        self.change(|row| row.started += 1);
    }

    /// A job has ended.
    pub(super) fn ended(&self, job: &Job) {
        self.change(|row| {
            match job.state {
                State::Succeeded => row.succeeded += 1,
                State::Failed => row.failed += 1,
                State::TimedOut => row.timed_out += 1,
                State::Canceled => row.canceled += 1,
                State::Lost => row.lost += 1,
                State::Queued
                | State::Starting
                | State::Running
                | State::Paused
                | State::Stopping => {}
            }
            if let Some(usage) = &job.usage {
                let used = usage.user_cpu_seconds + usage.system_cpu_seconds;
                let used = Duration::try_from_secs_f64(used).unwrap_or_default();
                let micros = u64::try_from(used.as_micros()).unwrap_or(u64::MAX);
                row.cpu_micros = row.cpu_micros.saturating_add(micros);
            }
        });
    }

    /// So many run and wait now.
    fn look(&self, running: u64, queued: u64) {
        self.change_where(|row| {
            let is_more = running > row.most_running || queued > row.most_queued;
            row.most_running = row.most_running.max(running);
            row.most_queued = row.most_queued.max(queued);
            is_more
        });
    }

    fn change(&self, change: impl FnOnce(&mut Row)) {
        self.change_where(|row| {
            change(row);
            true
        });
    }

    fn change_where(&self, change: impl FnOnce(&mut Row) -> bool) {
        let minute = minute_of(clock::wall());
        let mut present = self.present.lock().unwrap_or_else(PoisonError::into_inner);
        if present.minute != minute {
            if present.is_dirty {
                self.write(&present);
            }
            *present = Present {
                minute,
                row: Row::default(),
                is_dirty: false,
            };
        }
        present.is_dirty |= change(&mut present.row);
    }

    fn is_dirty(&self) -> bool {
        let present = self.present.lock().unwrap_or_else(PoisonError::into_inner);
        present.is_dirty
    }

    /// Writes down what is new. It blocks on the disk.
    fn save(&self) {
        let present = {
            let mut present = self.present.lock().unwrap_or_else(PoisonError::into_inner);
            let copy = *present;
            present.is_dirty = false;
            copy
        };
        if present.is_dirty {
            self.write(&present);
        }
    }

    fn write(&self, present: &Present) {
        let Some(file) = &self.file else { return };
        let mut bytes = [0; BYTES];
        let numbers = [present.minute].into_iter().chain(present.row.numbers());
        for (number, slot) in numbers.zip(bytes.as_chunks_mut::<8>().0) {
            *slot = number.to_le_bytes();
        }
        // What cannot be written now is written with the next change.
        let _ = file.write_all_at(&bytes, place_of(present.minute));
    }

    /// What happened in each of the last `count` whole steps of `step` minutes and in the present one, with the
    /// beginning of the step; steps in which nothing happened are left out. It blocks on the disk.
    pub(super) fn read(&self, since: Timestamp, step: u64) -> io::Result<Vec<(Timestamp, Row)>> {
        self.save();
        let step = step.max(1);
        let now = minute_of(clock::wall());
        let oldest = minute_of(since).max(now.saturating_sub(MINUTES - 1));
        let first = oldest - oldest % step;
        let present = *self.present.lock().unwrap_or_else(PoisonError::into_inner);
        let mut steps: Vec<(Timestamp, Row)> = Vec::new();
        for minute in first.max(now.saturating_sub(MINUTES - 1))..=now {
            let row = match &self.file {
                _ if minute == present.minute => Some(present.row),
                Some(file) => read(file, minute)?,
                None => None,
            };
            let Some(row) = row.filter(|row| *row != Row::default()) else {
                continue;
            };
            let at = moment_of(minute - minute % step);
            match steps.last_mut() {
                Some((last, sum)) if *last == at => sum.add(&row),
                Some(_) | None => steps.push((at, row)),
            }
        }
        Ok(steps)
    }
}

fn minute_of(at: Timestamp) -> u64 {
    u64::try_from(at.as_micros() / 60_000_000).unwrap_or(0)
}

fn moment_of(minute: u64) -> Timestamp {
    Timestamp::from_micros(i64::try_from(minute.saturating_mul(60_000_000)).unwrap_or(i64::MAX))
}

fn place_of(minute: u64) -> u64 {
    (minute % MINUTES) * u64::try_from(BYTES).unwrap_or(0)
}

/// The row of this minute; `None` if its place has another one, or none.
fn read(file: &File, minute: u64) -> io::Result<Option<Row>> {
    let mut bytes = [0; BYTES];
    match file.read_exact_at(&mut bytes, place_of(minute)) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    let mut numbers = [0; NUMBERS - 1];
    let (all, _) = bytes.as_chunks::<8>();
    for (chunk, number) in all.iter().skip(1).zip(&mut numbers) {
        *number = u64::from_le_bytes(*chunk);
    }
    let is_of = all.first().map(|chunk| u64::from_le_bytes(*chunk)) == Some(minute);
    Ok(is_of.then(|| Row::of(numbers)))
}

/// Looks once a second how much runs and waits, and writes down what happened.
pub(super) fn start(shared: &Arc<Shared>) {
    let mut shutdown = shared.shutdown.subscribe();
    let weak: Weak<Shared> = Arc::downgrade(shared);
    shared.spawn(async move {
        let mut ticks = interval(WRITTEN);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let is_over = tokio::select! {
                _ = ticks.tick() => false,
                _ = shutdown.changed() => true,
            };
            let Some(shared) = weak.upgrade() else { return };
            let (running, queued) = shared.room.look(|it| (it.running(), it.waiting()));
            let number = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
            shared.stats.look(number(running), number(queued));
            if shared.stats.is_dirty() {
                let saved = shared.clone();
                let _ = tokio::task::spawn_blocking(move || saved.stats.save()).await;
            }
            if is_over {
                return;
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happened_is_found_again_by_the_next_server() {
        let folder = tempfile::tempdir().unwrap();
        let stats = Stats::open(folder.path());
        stats.created();
        stats.created();
        stats.started();
        stats.look(3, 7);
        stats.look(2, 9);
        stats.save();
        drop(stats);
        let stats = Stats::open(folder.path());
        stats.created();
        let steps = stats.read(Timestamp::from_micros(0), 60).unwrap();
        let mut sum = Row::default();
        for (_, row) in &steps {
            sum.add(row);
        }
        let expected = Row {
            created: 3,
            started: 1,
            most_running: 3,
            most_queued: 9,
            ..Row::default()
        };
        assert_eq!(sum, expected);
    }

    #[test]
    fn a_place_that_was_used_thirty_days_ago_is_empty() {
        let folder = tempfile::tempdir().unwrap();
        let stats = Stats::open(folder.path());
        let now = minute_of(clock::wall());
        for (minute, created) in [(now - 1, 5), (now - 2, 6), (now - 3 - MINUTES, 7)] {
            stats.write(&Present {
                minute,
                row: Row {
                    created,
                    ..Row::default()
                },
                is_dirty: true,
            });
        }
        let steps = stats.read(Timestamp::from_micros(0), 1).unwrap();
        let created: Vec<(Timestamp, u64)> =
            steps.iter().map(|(at, row)| (*at, row.created)).collect();
        assert_eq!(created, [(moment_of(now - 2), 6), (moment_of(now - 1), 5)]);
        let since = stats.read(moment_of(now - 1), 1).unwrap();
        assert_eq!(since.len(), 1);
        let length = folder.path().join(FILE).metadata().unwrap().len();
        assert!(length <= MINUTES * u64::try_from(BYTES).unwrap());
    }
}
