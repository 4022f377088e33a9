//! Files that are read again whenever they change.

use std::fmt::Display;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::MissedTickBehavior;

/// How soon a changed file is noticed.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Reads files when they have changed, for as long as it is polled, and gives what was read to `take`, with whether it
/// is the first time: the first look reads them too, since they may have changed since they were opened. What cannot be read changes
/// nothing; it may be half written, so only a second look without a change gives the error to `complain`.
pub(crate) async fn follow<T, E: Display>(
    files: &[PathBuf],
    read: impl Fn() -> Result<T, E>,
    take: impl Fn(T, bool),
    complain: impl Fn(&E),
) {
    let mut seen = None;
    let mut failed = false;
    let mut looks = tokio::time::interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let now = Some(files.iter().map(|path| look(path)).collect::<Vec<_>>());
        let is_new = now != seen;
        if !is_new && !failed {
            continue;
        }
        let is_first = seen.is_none();
        seen = now;
        failed = match read() {
            Ok(new) => {
                take(new, is_first);
                false
            }
            Err(_) if is_new => true,
            Err(error) => {
                complain(&error);
                false
            }
        };
    }
}

/// What differs once somebody has changed the file, through links: which it is, when that was, and its size.
fn look(path: &Path) -> Option<(u64, u64, i64, i64, u64)> {
    let found = std::fs::metadata(path).ok()?;
    let changed = (found.ctime(), found.ctime_nsec());
    Some((found.dev(), found.ino(), changed.0, changed.1, found.size()))
}
