//! Moments: wall-clock timestamps for people, boot-time instants for timers.
//!
//! Timers use `CLOCK_BOOTTIME` (see clock_gettime(2)): it continues over suspend, no clock step changes
//! it, and two processes of one boot read the same clock, so a deadline survives the process that set it.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A wall-clock moment in microseconds since the Unix epoch. RFC 3339 UTC with six decimals in text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The moment that lies `micros` microseconds after the Unix epoch.
    #[must_use]
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Microseconds since the Unix epoch.
    #[must_use]
    pub fn as_micros(self) -> i64 {
        self.0
    }

    /// This moment moved `by` into the future; the far end of time if it would overflow.
    #[must_use]
    pub fn after(self, by: Duration) -> Self {
        Self(
            self.0
                .saturating_add(i64::try_from(by.as_micros()).unwrap_or(i64::MAX)),
        )
    }

    /// The time from `earlier` to this moment; zero if the clock went backwards.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let clamped = self
            .0
            .clamp(-62_135_596_800_000_000, 253_402_207_200_000_000);
        let moment = jiff::Timestamp::from_microsecond(clamped).map_err(|_| fmt::Error)?;
        write!(f, "{moment:.6}")
    }
}

impl FromStr for Timestamp {
    type Err = jiff::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse::<jiff::Timestamp>()
            .map(|moment| Self(moment.as_microsecond()))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            serializer.serialize_i64(self.0)
        }
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            let text = String::deserialize(deserializer)?;
            text.parse().map_err(de::Error::custom)
        } else {
            i64::deserialize(deserializer).map(Self)
        }
    }
}

/// Seconds with three digits after the point: more of them are noise in a log.
#[must_use]
pub fn rounded_seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1000.0).round() / 1000.0
}

/// A point on `CLOCK_BOOTTIME`, comparable between all processes of one boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BootInstant(Duration);

impl BootInstant {
    /// The instant that lies `since_boot` after the boot.
    #[must_use]
    pub fn from_boot(since_boot: Duration) -> Self {
        Self(since_boot)
    }

    /// The time since the boot.
    #[must_use]
    pub fn since_boot(self) -> Duration {
        self.0
    }

    /// This instant moved `by` into the future.
    #[must_use]
    pub fn after(self, by: Duration) -> Self {
        Self(self.0.saturating_add(by))
    }

    /// This instant moved `by` into the past, at most to the boot.
    #[must_use]
    pub fn before(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(by))
    }

    /// How long it is from `now` until this instant; zero when it has passed.
    #[must_use]
    pub fn remaining(self, now: Self) -> Duration {
        self.0.saturating_sub(now.0)
    }
}

/// The same moment on both clocks, read once per event so that a decision sees one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// For people and records.
    pub wall: Timestamp,
    /// For timers.
    pub boot: BootInstant,
}

impl Now {
    /// The wall-clock time of `instant`, as it looks from this moment.
    #[must_use]
    pub fn wall_of(self, instant: BootInstant) -> Timestamp {
        if instant >= self.boot {
            self.wall.after(instant.remaining(self.boot))
        } else {
            let back = self.boot.remaining(instant);
            Timestamp(
                self.wall
                    .0
                    .saturating_sub(i64::try_from(back.as_micros()).unwrap_or(i64::MAX)),
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_is_rfc_3339_with_microseconds() {
        let moment = Timestamp::from_micros(1_700_000_000_000_042);
        assert_eq!(moment.to_string(), "2023-11-14T22:13:20.000042Z");
        assert_eq!(moment.to_string().parse::<Timestamp>().unwrap(), moment);
    }

    #[test]
    fn a_timestamp_keeps_its_value_in_both_encodings() {
        let moment = Timestamp::from_micros(1_700_000_000_123_456);
        let json = serde_json::to_string(&moment).unwrap();
        assert_eq!(serde_json::from_str::<Timestamp>(&json).unwrap(), moment);
        let packed = rmp_serde::to_vec(&moment).unwrap();
        assert_eq!(rmp_serde::from_slice::<Timestamp>(&packed).unwrap(), moment);
    }
}
