//! What a service needs of the machine whatever its settings are, looked at before it starts.

use std::fs::OpenOptions;
use std::os::unix::fs::FileTypeExt;

use nix::sys::resource::{Resource, getrlimit};

use crate::limits;

const NULL: &str = "/dev/null";

/// The reason why no job could start here, if there is one.
pub(super) fn check() -> Result<(), String> {
    // The service raises the soft limit to the hard one.
    let open_files = getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(_, hard)| hard);
    if let Some(why) = limits::too_few(open_files) {
        return Err(why);
    }
    let null = OpenOptions::new().read(true).write(true).open(NULL);
    let kind = null.and_then(|null| null.metadata());
    match kind {
        Ok(kind) if kind.file_type().is_char_device() => Ok(()),
        Ok(_) => Err(format!("{NULL}, the standard input of jobs, is no device")),
        Err(error) => Err(format!(
            "{NULL}, the standard input of jobs, cannot be opened: {error}"
        )),
    }
}
