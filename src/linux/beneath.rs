//! Files beneath a directory that others may change at any moment: no look-up follows a link, leaves the directory or
//! crosses into another file system, and nothing but a regular file is ever opened for its content.
//!
//! Whose directory it is and what the files are for is not known here.

mod clear;
mod walk;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat2, renameat};
use nix::libc;
use nix::sys::stat::{FileStat, Mode, fchmod, fstat, fstatat, mkdirat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, fchownat, fsync, unlinkat};

use crate::sys;
pub use clear::clear;
pub use walk::{Entry, Kind, Limits, Walk, walk};

/// Whom a new file is to belong to; `None`: whom this process is.
pub type Owner = Option<(u32, u32)>;

/// Opens what is at `path` beneath `root`; the empty path is `root` itself.
fn open(root: BorrowedFd<'_>, path: &str, flags: OFlag, mode: Mode) -> io::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(flags | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW)
        .mode(mode)
        .resolve(
            ResolveFlag::RESOLVE_BENEATH
                | ResolveFlag::RESOLVE_NO_SYMLINKS
                | ResolveFlag::RESOLVE_NO_MAGICLINKS
                | ResolveFlag::RESOLVE_NO_XDEV,
        );
    let path = if path.is_empty() { "." } else { path };
    loop {
        match openat2(root, path, how) {
            // Something was renamed meanwhile (openat2(2)).
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(Errno::ENOSYS) => {
                let why = "openat2(2) is refused: it needs Linux 5.6, and no filter that hides it, such as RestrictSUIDSGID= of systemd";
                return Err(io::Error::new(io::ErrorKind::Unsupported, why));
            }
            opened => return Ok(opened?),
        }
    }
}

/// Opens a directory beneath `root`.
pub fn directory(root: BorrowedFd<'_>, path: &str) -> io::Result<OwnedFd> {
    open(
        root,
        path,
        OFlag::O_RDONLY | OFlag::O_DIRECTORY,
        Mode::empty(),
    )
}

/// Opens a regular file beneath `root` for reading, if `may` says so after a look at it. Nothing else is opened, not even
/// for a moment: a pipe would wait, and a device act.
pub fn file(
    root: BorrowedFd<'_>,
    path: &str,
    may: impl FnOnce(&FileStat) -> bool,
) -> io::Result<(File, FileStat)> {
    let found = open(root, path, OFlag::O_PATH, Mode::empty())?;
    let stat = fstat(&found)?;
    if stat.st_mode & libc::S_IFMT != libc::S_IFREG {
        return Err(Errno::EISDIR.into());
    }
    if !may(&stat) {
        return Err(Errno::EACCES.into());
    }
    // The same file, whatever has its name by now.
    let opened = File::open(format!("/proc/self/fd/{}", found.as_raw_fd()))?;
    Ok((opened, stat))
}

/// Opens a directory beneath `root`, and makes those on the way that are not there.
pub fn make_directories(root: BorrowedFd<'_>, path: &str, owner: Owner) -> io::Result<OwnedFd> {
    let mut at = directory(root, "")?;
    for name in path.split('/').filter(|name| !name.is_empty()) {
        let made = match mkdirat(&at, name, Mode::from_bits_truncate(0o755)) {
            Ok(()) => true,
            Err(Errno::EEXIST) => false,
            Err(errno) => return Err(errno.into()),
        };
        at = directory(at.as_fd(), name)?;
        if made {
            give(&at, owner, 0o755)?;
        }
    }
    Ok(at)
}

/// Makes a file with a name of its own in `directory`, which nobody else may write to.
pub fn new_file(directory: BorrowedFd<'_>, name: &str) -> io::Result<File> {
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL;
    Ok(open(directory, name, flags, Mode::from_bits_truncate(0o600))?.into())
}

/// Gives a file or directory to its owner, with these permission bits.
pub fn give(file: impl AsFd, owner: Owner, mode: u32) -> io::Result<()> {
    if let Some((uid, gid)) = owner {
        fchown(&file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    }
    // Not before: a change of the owner takes bits away, and the mask of this process is none of the owner's.
    Ok(fchmod(&file, Mode::from_bits_truncate(mode))?)
}

/// The same for a link itself, which has no bits.
pub fn give_link(directory: BorrowedFd<'_>, name: &str, (uid, gid): (u32, u32)) -> io::Result<()> {
    let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    Ok(fchownat(
        directory,
        name,
        uid,
        gid,
        AtFlags::AT_SYMLINK_NOFOLLOW,
    )?)
}

/// The same file once more, to be read from its beginning.
pub fn reopen(file: &File) -> io::Result<File> {
    File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// What is in the way where something is put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InTheWay {
    /// It is replaced.
    Goes,
    /// It stays, and the call fails with `EEXIST`.
    Stays,
}

/// Moves `name` from the directory `from` to `path` beneath `root`; a link there is replaced, not followed. Returns whether
/// nothing was there before.
pub fn put(
    (from, name): (BorrowedFd<'_>, &str),
    (root, path): (BorrowedFd<'_>, &str),
    owner: Owner,
    in_the_way: InTheWay,
) -> io::Result<bool> {
    let (parent, leaf) = path.rsplit_once('/').unwrap_or(("", path));
    let parent = make_directories(root, parent, owner)?;
    match sys::rename_new((from, name), (parent.as_fd(), leaf)) {
        Ok(()) => return Ok(true),
        Err(Errno::EEXIST) if in_the_way == InTheWay::Goes => {}
        Err(errno) => return Err(errno.into()),
    }
    renameat(from, name, &parent, leaf)?;
    Ok(false)
}

/// Removes a file or a link beneath `root`; no directory.
pub fn remove_file(root: BorrowedFd<'_>, path: &str) -> io::Result<()> {
    let (parent, leaf) = path.rsplit_once('/').unwrap_or(("", path));
    let parent = directory(root, parent)?;
    let found = fstatat(&parent, leaf, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    if found.st_mode & libc::S_IFMT == libc::S_IFDIR {
        return Err(Errno::EISDIR.into());
    }
    Ok(unlinkat(&parent, leaf, UnlinkatFlags::NoRemoveDir)?)
}

/// Makes what was done to a directory last.
pub fn sync(directory: impl AsFd) -> io::Result<()> {
    Ok(fsync(directory)?)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;

    /// A directory with another one beside it that must stay as it is.
    fn place(name: &str) -> (std::path::PathBuf, OwnedFd) {
        let path =
            std::env::temp_dir().join(format!("procession-beneath-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(path.join("in/a")).unwrap();
        fs::write(path.join("secret"), "hidden").unwrap();
        fs::write(path.join("in/a/file"), "content").unwrap();
        let root = File::open(path.join("in")).unwrap().into();
        (path, root)
    }

    #[test]
    fn nothing_outside_and_nothing_but_a_regular_file_is_opened() {
        let (path, root) = place("read");
        symlink("../secret", path.join("in/link")).unwrap();
        symlink("..", path.join("in/up")).unwrap();
        nix::unistd::mkfifo(&path.join("in/pipe"), Mode::from_bits_truncate(0o600)).unwrap();
        let read = |path: &str| {
            file(root.as_fd(), path, |_| true)
                .map(|(file, _)| std::io::read_to_string(file).unwrap())
        };
        assert_eq!(read("a/file").unwrap(), "content");
        for bad in [
            "link",
            "up/secret",
            "../secret",
            "/etc/passwd",
            "pipe",
            "a",
            "a/none",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
        assert!(file(root.as_fd(), "a/file", |_| false).is_err());
        fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn what_is_put_replaces_a_link_and_goes_through_none() {
        let (path, root) = place("put");
        symlink("../secret", path.join("in/link")).unwrap();
        symlink("..", path.join("in/up")).unwrap();
        fs::create_dir(path.join("new")).unwrap();
        let new: OwnedFd = File::open(path.join("new")).unwrap().into();
        let put = |to: &str, in_the_way| {
            drop(new_file(new.as_fd(), "n").unwrap());
            let put = put((new.as_fd(), "n"), (root.as_fd(), to), None, in_the_way);
            let _ = fs::remove_file(path.join("new/n"));
            put
        };
        assert!(put("x/y/z", InTheWay::Goes).unwrap());
        assert!(!put("x/y/z", InTheWay::Goes).unwrap());
        assert!(put("x/y/z", InTheWay::Stays).is_err());
        assert!(!put("link", InTheWay::Goes).unwrap());
        assert!(
            !fs::symlink_metadata(path.join("in/link"))
                .unwrap()
                .is_symlink()
        );
        for bad in ["up/secret", "../secret", "a/file/x"] {
            assert!(put(bad, InTheWay::Goes).is_err(), "{bad}");
        }
        assert_eq!(fs::read_to_string(path.join("secret")).unwrap(), "hidden");
        fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn a_walk_finds_what_is_there_in_order_and_follows_nothing() {
        let (path, root) = place("walk");
        symlink("/etc", path.join("in/etc")).unwrap();
        fs::write(path.join("in/a.b"), "12").unwrap();
        nix::unistd::mkfifo(&path.join("in/pipe"), Mode::from_bits_truncate(0o600)).unwrap();
        let mut walked = walk(root.as_fd(), "", Limits::default());
        let names: Vec<(String, Kind, u64)> = (&mut walked)
            .map(|it| (it.path, it.kind, it.bytes))
            .collect();
        let expected = [
            ("a", Kind::Directory, 0),
            ("a.b", Kind::File, 2),
            ("a/file", Kind::File, 7),
            ("etc", Kind::Symlink, 0),
        ];
        assert_eq!(
            names,
            expected.map(|(path, kind, bytes)| (path.to_owned(), kind, bytes))
        );
        assert!(!walked.is_truncated() && walked.error().is_none());
        let some = Limits {
            entries: 2,
            ..Limits::default()
        };
        let mut cut = walk(root.as_fd(), "", some);
        assert!((&mut cut).count() <= 2 && cut.is_truncated());
        let mut below = walk(root.as_fd(), "a", Limits::default());
        assert_eq!(below.next().unwrap().path, "a/file");
        let mut none = walk(root.as_fd(), "none", Limits::default());
        assert_eq!(((&mut none).count(), none.error().is_some()), (0, true));
        fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn a_walk_begins_behind_any_path_and_reads_nothing_that_comes_before() {
        let (path, root) = place("after");
        for directory in ["a/b", "a-", "a/b/c", "d", "d/e", "é"] {
            fs::create_dir_all(path.join("in").join(directory)).unwrap();
            for name in ["1", "1.x", "2"] {
                fs::write(path.join("in").join(directory).join(name), "").unwrap();
            }
        }
        let paths = |after: Option<&str>, limits: Limits| -> Vec<String> {
            let walk = walk(root.as_fd(), "", limits).after(after);
            walk.map(|it| it.path).collect()
        };
        let all = paths(None, Limits::default());
        assert!(all.is_sorted() && all.len() == 26, "{all:?}");
        let others = ["", "a/", "a/b/zz", "a0", "d/e/0", "zzz"].map(str::to_owned);
        for after in all.iter().chain(&others) {
            let behind: Vec<&String> = all.iter().filter(|it| *it > after).collect();
            let found = paths(Some(after), Limits::default());
            assert_eq!(found.iter().collect::<Vec<_>>(), behind, "after {after}");
        }
        // Four names in the root, four in `d` and three in `d/e`.
        let limits = Limits {
            entries: 11,
            ..Limits::default()
        };
        let mut cheap = walk(root.as_fd(), "", limits).after(Some("d/e/1.x"));
        assert_eq!(cheap.next().unwrap().path, "d/e/2");
        assert!(!cheap.is_truncated());
        let within = |after| {
            let walk = walk(root.as_fd(), "a/b", Limits::default()).after(Some(after));
            walk.count()
        };
        assert_eq!(
            ["a", "a/b", "a/b/1.x", "a/c", "b"].map(within),
            [7, 7, 5, 0, 0]
        );
        let shallow = Limits {
            depth: 1,
            ..Limits::default()
        };
        assert_eq!(paths(None, shallow), ["a", "a-", "d", "é"]);
        fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn a_trash_is_cleared_however_deep_it_is_and_whatever_its_modes() {
        let (path, root) = place("clear");
        symlink("../../secret", path.join("in/a/link")).unwrap();
        let mut at: OwnedFd = root.try_clone().unwrap();
        for _ in 0..3000 {
            mkdirat(&at, "deeper", Mode::from_bits_truncate(0o755)).unwrap();
            at = directory(at.as_fd(), "deeper").unwrap();
        }
        fs::create_dir(path.join("in/shut")).unwrap();
        fs::write(path.join("in/shut/file"), "x").unwrap();
        fchmod(File::open(path.join("in/shut")).unwrap(), Mode::empty()).unwrap();
        let mut rounds = 0;
        while !clear(root.as_fd(), 1000).unwrap() {
            rounds += 1;
            assert!(rounds < 20);
        }
        assert_eq!(fs::read_dir(path.join("in")).unwrap().count(), 0);
        assert_eq!(fs::metadata(path.join("secret")).unwrap().size(), 6);
        fs::remove_dir_all(path).unwrap();
    }
}
