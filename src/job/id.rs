//! The id of a job.

use std::fmt;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::time::Timestamp;

/// A UUIDv7 (RFC 9562): opaque to clients, sortable by creation time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JobId(Uuid);

impl JobId {
    /// A new id. Ids made by one process ascend, also within a millisecond and while the clock goes back.
    #[must_use]
    pub fn generate() -> Self {
        let fresh = Uuid::now_v7().as_u128();
        let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
        *last = match *last {
            last if fresh > last => fresh,
            // Further on by some random number, so that nobody can guess it.
            last => after(last, 1 + (fresh & 0xffff_ffff)),
        };
        Self(Uuid::from_u128(*last))
    }

    /// From now on, all new ids come after this one, which was made by another process and maybe another clock.
    pub fn ascend_from(self) {
        let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
        *last = self.0.as_u128().max(*last);
    }

    /// When it was made, in whole milliseconds.
    #[must_use]
    pub fn made_at(&self) -> Timestamp {
        let [a, b, c, d, e, f, ..] = *self.0.as_bytes();
        let millis = u64::from_be_bytes([0, 0, a, b, c, d, e, f]);
        Timestamp::from_micros(
            i64::try_from(millis)
                .unwrap_or_default()
                .saturating_mul(1000),
        )
    }

    /// When a job with this id was made, by a clock that shows `now`. That is close to the time in the id, even if the
    /// clock has been set back since the id before it: ids ascend all the same.
    #[must_use]
    pub fn made_about(&self, now: Timestamp) -> Timestamp {
        let made = self.made_at();
        let is_close = now.since(made).max(made.since(now)) <= Self::DRIFT;
        if is_close { now } else { made }
    }

    /// The least id that a job can have that was made at this moment or later; all that were made before it have
    /// ids below [`JobId::above`] of it.
    #[must_use]
    pub fn below(moment: Timestamp) -> Self {
        Self::first_of(moment.as_micros().saturating_sub(Self::drift_micros()))
    }

    /// Jobs that were made before this moment have ids below this one.
    #[must_use]
    pub fn above(moment: Timestamp) -> Self {
        let next = moment.as_micros().saturating_add(Self::drift_micros());
        Self::first_of(next.saturating_add(1000))
    }

    /// How far the time in an id can be from that of its job.
    const DRIFT: Duration = Duration::from_secs(60);

    fn drift_micros() -> i64 {
        i64::try_from(Self::DRIFT.as_micros()).unwrap_or(i64::MAX)
    }

    fn first_of(micros: i64) -> Self {
        let millis = u64::try_from(micros / 1000).unwrap_or(0).min((1 << 48) - 1);
        let mut bytes = [0; 16];
        let [_, _, time @ ..] = millis.to_be_bytes();
        bytes[..6].copy_from_slice(&time);
        Self::from_bytes(bytes)
    }

    /// The id as sixteen bytes; their order is the order of creation.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// The id that these sixteen bytes are.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }
}

/// The last id that was made or seen, as a number.
static LAST: Mutex<u128> = Mutex::new(0);

/// The id that is `step` further, of the 74 bits that are no time; where they are used up, of the next millisecond.
fn after(id: u128, step: u128) -> u128 {
    const LOW: u32 = 62;
    const LOW_BITS: u128 = (1 << LOW) - 1;
    let tail = (((id >> 64) & 0xfff) << LOW) | (id & LOW_BITS);
    let next = ((id >> 80) << (12 + LOW)) + tail + step;
    let (millis, tail) = (next >> (12 + LOW), next & ((1 << (12 + LOW)) - 1));
    (millis << 80) | (7 << 76) | ((tail >> LOW) << 64) | (2 << LOW) | (tail & LOW_BITS)
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl fmt::Debug for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text names no job: it is not a hyphenated lower-case UUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a job id")]
pub struct NotAnId;

impl FromStr for JobId {
    type Err = NotAnId;

    /// Only the canonical form is taken, so that one job has one address.
    fn from_str(text: &str) -> Result<Self, NotAnId> {
        let id = Uuid::try_parse(text).map(Self).map_err(|_| NotAnId)?;
        if id.to_string() == text {
            Ok(id)
        } else {
            Err(NotAnId)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_job_and_that_in_its_id_are_close() {
        let id = JobId::generate();
        let made = id.made_at();
        for (shown, expected) in [(5, 5), (-5, -5), (-7200, 0), (7200, 0)] {
            let moved =
                |seconds: i64| Timestamp::from_micros(made.as_micros() + seconds * 1_000_000);
            let created = id.made_about(moved(shown));
            assert_eq!(created, moved(expected));
            assert!(JobId::below(created) <= id && id < JobId::above(created));
        }
        let early = Timestamp::from_micros(-5);
        assert!(JobId::below(early) <= id && JobId::above(early) < id);
    }

    #[test]
    fn ids_ascend() {
        let ids: Vec<JobId> = (0..1000).map(|_| JobId::generate()).collect();
        assert!(ids.is_sorted());
    }

    #[test]
    fn ids_go_on_from_one_of_a_clock_that_was_ahead() {
        // A minute from now; other tests of this process continue from there as well.
        let ahead = Uuid::now_v7().as_u128() + (60_000 << 80);
        let ahead = JobId(Uuid::from_u128(ahead));
        ahead.ascend_from();
        let ids: Vec<JobId> = (0..1000).map(|_| JobId::generate()).collect();
        assert!(ids.is_sorted() && ids[0] > ahead, "{ids:?}");
        for id in ids {
            assert_eq!(id.0.get_version_num(), 7);
            assert_eq!(id.0.get_variant(), uuid::Variant::RFC4122);
        }
    }

    #[test]
    fn the_next_id_carries_over_into_every_part_of_it() {
        let of = |text: &str| text.parse::<JobId>().unwrap().0.as_u128();
        for (id, next) in [
            (
                "0198c1d2-7b3a-7c4e-9f10-2a6b3c4d5e6f",
                "0198c1d2-7b3a-7c4e-9f10-2a6b3c4d5e70",
            ),
            (
                "0198c1d2-7b3a-7c4e-bfff-ffffffffffff",
                "0198c1d2-7b3a-7c4f-8000-000000000000",
            ),
            (
                "0198c1d2-7b3a-7fff-bfff-ffffffffffff",
                "0198c1d2-7b3b-7000-8000-000000000000",
            ),
        ] {
            assert_eq!(after(of(id), 1), of(next));
        }
    }

    #[test]
    fn an_id_says_when_it_was_made() {
        let id: JobId = "0198c1d2-7b3a-7c4e-9f10-2a6b3c4d5e6f".parse().unwrap();
        assert_eq!(id.made_at().to_string(), "2025-08-19T10:14:13.562000Z");
    }

    #[test]
    fn only_the_canonical_form_parses() {
        let id = JobId::generate();
        assert_eq!(id.to_string().parse(), Ok(id));
        for text in [
            "",
            "x",
            &id.to_string().to_uppercase(),
            &id.to_string().replace('-', ""),
            "../../etc/passwd",
        ] {
            assert_eq!(text.parse::<JobId>(), Err(NotAnId), "{text}");
        }
    }
}
