//! Where in the log of a job the output of each attempt begins and ends.

use std::sync::Arc;

use tokio::sync::watch;

use job::Job;

/// The attempts of a job beside its output, and which of them have been written.
#[derive(Debug)]
pub(super) struct Attempts {
    job: watch::Receiver<Arc<Job>>,
    /// The last that was written.
    pub(super) said: u32,
}

impl Attempts {
    /// For who begins to read at this offset.
    pub(super) fn from(job: watch::Receiver<Arc<Job>>, at: u64) -> Self {
        let mut attempts = Self { job, said: 1 };
        if let Some(before) = at.checked_sub(1) {
            attempts.said = attempts.begun(before);
        }
        attempts
    }

    /// The last attempt that has begun at this offset or before it.
    pub(super) fn begun(&self, offset: u64) -> u32 {
        let job = self.job.borrow();
        let begun = (2..=last_begun(&job)).rev();
        let mut begun =
            begun.filter(|number| offset_of(&job, *number).is_some_and(|it| it <= offset));
        begun.next().unwrap_or(1)
    }

    /// Where the output of an attempt begins.
    pub(super) fn offset_of(&self, attempt: u32) -> Option<u64> {
        offset_of(&self.job.borrow(), attempt)
    }
}

fn last_begun(job: &Job) -> u32 {
    job.attempt - u32::from(job.next_attempt_at.is_some())
}

fn offset_of(job: &Job, attempt: u32) -> Option<u64> {
    let Some(before) = usize::try_from(attempt).ok()?.checked_sub(2) else {
        return Some(0);
    };
    job.attempts.get(before).map(|before| before.next_offset)
}

/// The part of the log that an attempt has written, up to the end of the log if nothing comes after it; `None` if there
/// has been no such attempt.
pub(super) fn part_of(job: &Job, attempt: u32) -> Option<(u64, Option<u64>)> {
    let last = last_begun(job);
    if attempt == 0 || attempt > last {
        return None;
    }
    let end =
        offset_of(job, attempt + 1).filter(|_| attempt < last || job.next_attempt_at.is_some());
    Some((offset_of(job, attempt)?, end))
}

#[cfg(test)]
mod tests {
    use job::time::Timestamp;
    use job::{Attempt, Cause, JobId, Spec};

    use super::*;

    /// A job whose attempts ended at these offsets, and which is in the attempt after them.
    fn job(ends: &[u64]) -> Job {
        let at = Timestamp::from_micros(1);
        let id = JobId::from_bytes([1; 16]);
        let mut job = Job::accepted(id, "me".into(), Arc::new(Spec::default()), at);
        for (end, number) in ends.iter().zip(1..) {
            job.attempts.push(Attempt {
                number,
                started_at: Some(at),
                finished_at: at,
                cause: Cause::Exited,
                exit: None,
                spawn_failure: None,
                usage: None,
                first_offset: job.attempt_offset(),
                next_offset: *end,
                escalated: false,
                killed_leftovers: 0,
                message: None,
                lost_with: None,
                refused_by: None,
            });
            job.attempt = number + 1;
        }
        job
    }

    #[test]
    fn an_attempt_is_where_the_one_before_has_ended() {
        let mut three = job(&[10, 10]);
        let parts = [1, 2, 3, 4].map(|number| part_of(&three, number));
        let expected = [
            Some((0, Some(10))),
            Some((10, Some(10))),
            Some((10, None)),
            None,
        ];
        assert_eq!(parts, expected);
        three.next_attempt_at = Some(Timestamp::from_micros(2));
        assert_eq!(part_of(&three, 2), Some((10, Some(10))));
        assert_eq!(part_of(&three, 3), None);
        // It has ended, and so has been kept.
        let mut ended = job(&[10, 20]);
        ended.attempt = 2;
        assert_eq!(part_of(&ended, 2), Some((10, None)));
    }

    #[test]
    fn who_begins_at_an_offset_is_told_of_the_attempts_from_there_on() {
        for (at, said) in [(0, 1), (1, 2), (10, 2), (11, 3)] {
            let (_, state) = watch::channel(Arc::new(job(&[0, 10])));
            let attempts = Attempts::from(state, at);
            assert_eq!(attempts.said, said, "{at}");
            assert_eq!(attempts.begun(u64::MAX), 3);
        }
    }
}
