//! The id of a job.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::time::Timestamp;

/// A UUIDv7 (RFC 9562): opaque to clients, sortable by creation time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JobId(Uuid);

impl JobId {
    /// A new id. Ids made by one process ascend even within a millisecond.
    #[must_use]
    pub fn generate() -> Self {
        Self(Uuid::now_v7())
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

    /// When a job with this id was made, by a clock that shows `now`. That is close to the time in the id, also where the
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
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }
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
