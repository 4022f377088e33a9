//! Commands that work on the files of a state directory, by whomever they are run.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::unistd::{Gid, Uid, User, geteuid, setegid, seteuid, setgroups};

/// Root acts as the service's user from here on: what root writes, the service could not read, and what root may do, the
/// service may not.
///
/// # Errors
/// What cannot be done, in one line.
pub(super) fn act_as_owner(state_dir: &Path) -> Result<(), String> {
    // A directory that is missing, and one of somebody else, are refused where it is used.
    let Ok(found) = fs::symlink_metadata(state_dir) else {
        return Ok(());
    };
    if !geteuid().is_root() || found.uid() == 0 {
        return Ok(());
    }
    setgroups(&[])
        .and_then(|()| setegid(Gid::from_raw(found.gid())))
        .and_then(|()| seteuid(Uid::from_raw(found.uid())))
        .map_err(|errno| {
            format!(
                "{} belongs to {}: cannot act as that user: {}",
                state_dir.display(),
                user(found.uid()),
                errno.desc()
            )
        })
}

/// A user's name, if there is one.
pub(super) fn user(uid: u32) -> String {
    let named = User::from_uid(Uid::from_raw(uid)).ok().flatten();
    named.map_or_else(|| format!("uid {uid}"), |user| user.name)
}
