//! Where a state directory is: what tells it from a copy of itself, which must not touch what is the original's.
//!
//! A copy has the same records, locks that nobody holds, and the same names of cgroups and processes. Only the files
//! themselves are others.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{LOCK, SERVING, private_file};
use crate::record;

/// The name of the file that notes the place.
const FILE: &str = "place";

/// Which file the lock of a state directory is, and what its processes are known by.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    device: u64,
    inode: u64,
    /// See [`Settled::epoch`].
    epoch: String,
    path: PathBuf,
}

/// What a state directory is at its opening.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Settled {
    /// What is noted of processes is true within this time: the boot id, with the place behind it in a copy that was
    /// made since then, where the processes are the original's.
    pub(super) epoch: String,
    /// It was copied from elsewhere since it was opened last.
    pub(super) is_copy: bool,
}

/// The original of a copy is in use, or the directory itself.
#[derive(Debug)]
pub(super) struct InUse {
    pub(super) original: PathBuf,
    pub(super) holder: i32,
}

/// The boot id of an epoch.
pub fn boot_of(epoch: &str) -> &str {
    epoch.split('/').next().unwrap_or(epoch)
}

/// Notes where this state directory is, whose lock is held, and finds out whether it was somewhere else before.
pub(super) fn settle(
    directory: &Path,
    lock: &File,
    boot_id: &str,
) -> io::Result<Result<Settled, InUse>> {
    let found = lock.metadata()?;
    let (device, inode) = (found.dev(), found.ino());
    let file = directory.join(FILE);
    let noted = fs::read(&file)
        .ok()
        .and_then(|bytes| Place::from_bytes(&bytes));
    let is_copy = noted
        .as_ref()
        .is_some_and(|noted| (noted.device, noted.inode) != (device, inode));
    if let Some(noted) = noted.as_ref().filter(|_| is_copy)
        && let Some(holder) = noted.holder(directory)
    {
        return Ok(Err(InUse {
            original: noted.path.clone(),
            holder,
        }));
    }
    let epoch = match &noted {
        Some(noted) if boot_of(&noted.epoch) == boot_id && is_copy => {
            format!("{boot_id}/{device}:{inode}")
        }
        Some(noted) if boot_of(&noted.epoch) == boot_id => noted.epoch.clone(),
        Some(_) | None => boot_id.to_owned(),
    };
    let here = Place {
        device,
        inode,
        epoch: epoch.clone(),
        path: directory.to_owned(),
    };
    if noted.as_ref() != Some(&here) {
        // Whole or not at all: half of it would make an original of a copy.
        let fresh = directory.join("place.new");
        let mut written = private_file(&fresh, false)?;
        written.set_len(0)?;
        written.write_all(&here.to_bytes())?;
        written.sync_all()?;
        fs::rename(&fresh, &file)?;
    }
    Ok(Ok(Settled { epoch, is_copy }))
}

impl Place {
    /// Who holds the lock that is at this place still. That file is opened only if it is another than ours: closing
    /// it would let go of our own lock. If this is the place, somebody has removed the lock, and whoever held it holds it still, as
    /// nobody can see; but its server has a lock as well.
    fn holder(&self, here: &Path) -> Option<i32> {
        if self.path == here {
            return record::lock_holder(&File::open(here.join(SERVING)).ok()?).ok()?;
        }
        let lock = self.path.join(LOCK);
        let found = fs::symlink_metadata(&lock).ok()?;
        if (found.dev(), found.ino()) != (self.device, self.inode) {
            return None;
        }
        record::lock_holder(&File::open(lock).ok()?).ok()?
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = format!("{} {} {}\n", self.device, self.inode, self.epoch).into_bytes();
        bytes.extend_from_slice(self.path.as_os_str().as_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let end = bytes.iter().position(|byte| *byte == b'\n')?;
        let (head, path) = bytes.split_at_checked(end)?;
        let head = std::str::from_utf8(head).ok()?;
        let mut words = head.split(' ');
        let place = Self {
            device: words.next()?.parse().ok()?,
            inode: words.next()?.parse().ok()?,
            epoch: words.next()?.to_owned(),
            path: std::ffi::OsString::from_vec(path.get(1..)?.to_vec()).into(),
        };
        words.next().is_none().then_some(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(directory: &Path) -> File {
        let lock = private_file(&directory.join(LOCK), false).unwrap();
        assert!(record::lock(&lock).unwrap());
        lock
    }

    fn settled(directory: &Path, boot_id: &str) -> Settled {
        settle(directory, &opened(directory), boot_id)
            .unwrap()
            .unwrap()
    }

    #[test]
    fn a_place_is_read_as_it_was_written() {
        let place = Place {
            device: 1,
            inode: 2,
            epoch: "boot/3:4".to_owned(),
            path: "/a b/\n".into(),
        };
        assert_eq!(Place::from_bytes(&place.to_bytes()), Some(place));
        assert_eq!(Place::from_bytes(b"1 2"), None);
    }

    #[test]
    fn a_copy_is_one_until_the_next_boot_and_the_original_never_is() {
        let home = tempfile::tempdir().unwrap();
        let (original, copy) = (home.path().join("original"), home.path().join("copy"));
        let moved = home.path().join("moved");
        fs::create_dir(&original).unwrap();
        fs::create_dir(&copy).unwrap();
        let fresh = settled(&original, "b");
        assert_eq!((fresh.epoch.as_str(), fresh.is_copy), ("b", false));
        for file in [LOCK, FILE] {
            fs::copy(original.join(file), copy.join(file)).unwrap();
        }
        let found = settled(&copy, "b");
        assert!(found.is_copy && found.epoch.starts_with("b/"), "{found:?}");
        let again = settled(&copy, "b");
        assert_eq!((&again.epoch, again.is_copy), (&found.epoch, false));
        assert_eq!(boot_of(&again.epoch), "b");
        assert_eq!(settled(&copy, "later").epoch, "later");
        fs::rename(&original, &moved).unwrap();
        let found = settled(&moved, "b");
        assert_eq!((found.epoch.as_str(), found.is_copy), ("b", false));
    }
}
