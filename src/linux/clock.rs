//! Reading the clocks: see clock_gettime(2). What a moment is, is the job's matter.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use crate::failpoint;
use job::time::{BootInstant, Now, Timestamp};

/// The present wall-clock time.
#[must_use]
pub fn wall() -> Timestamp {
    let now = read(ClockId::CLOCK_REALTIME);
    let micros = i64::try_from(now.as_micros()).unwrap_or(i64::MAX);
    Timestamp::from_micros(micros.saturating_add(failpoint::clock_is_off()))
}

/// The present moment on both clocks.
#[must_use]
pub fn now() -> Now {
    Now {
        wall: wall(),
        boot: BootInstant::from_boot(read(ClockId::CLOCK_BOOTTIME)),
    }
}

/// Does the kernel follow a clock that it knows to be right? `None` if that cannot be asked.
#[must_use]
pub fn is_synchronised() -> Option<bool> {
    crate::sys::clock_is_synchronised()
}

fn read(clock: ClockId) -> Duration {
    let time = clock_gettime(clock).expect("both clocks exist since Linux 2.6.39");
    Duration::from(time)
}
