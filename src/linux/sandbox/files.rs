//! Landlock rules: which files a job may open, and that it signals and traces nobody else.
//!
//! Landlock only allows. To close one directory, everything beside it is allowed, and everything beside
//! each directory that it is in.

use std::error::Error;
use std::ffi::OsStr;
use std::fs::{self, FileType};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, AccessFs, BitFlags, PathBeneath, Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr,
    RulesetError, Scope,
};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

use super::Failure;
use job::sandbox::Sandbox;

/// The rights that are tested. Later ones (devices, sockets) change what a job can do, and are none of ours.
const TESTED: ABI = ABI::V3;

/// What a program needs that may write nowhere.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// Builds the rules: the directory `hidden` is closed, all of it but `work_dir`.
pub(super) fn ruleset(
    sandbox: &Sandbox,
    hidden: &Path,
    work_dir: &Path,
) -> Result<OwnedFd, Failure> {
    let real = |path: &Path| {
        fs::canonicalize(path).map_err(|error| Failure::new(&error, path.to_string_lossy()))
    };
    let hidden = real(hidden)?;
    let writing = AccessFs::from_write(TESTED);
    let reading = match sandbox.readable_paths {
        Some(_) => AccessFs::from_read(TESTED),
        // To list a directory is no secret then, and a directory that holds the hidden one could not be
        // listed either.
        None => AccessFs::Execute | AccessFs::ReadFile,
    };
    let mut rules = Rules {
        ruleset: Ruleset::default()
            .handle_access(reading | writing)
            .and_then(|ruleset| ruleset.scope(Scope::Signal))
            .and_then(Ruleset::create)
            .map_err(not_built)?,
        work_dir: fs::canonicalize(work_dir)
            .ok()
            .filter(|work_dir| work_dir.starts_with(&hidden) && *work_dir != hidden),
        hidden,
    };
    let everywhere = match sandbox.writable_paths {
        Some(_) => reading,
        None => reading | writing,
    };
    match &sandbox.readable_paths {
        None => rules.allow(Path::new("/"), everywhere)?,
        Some(paths) => {
            for path in paths {
                rules.allow(&real(Path::new(path))?, everywhere)?;
            }
        }
    }
    for path in sandbox.writable_paths.iter().flatten() {
        rules.allow(&real(Path::new(path))?, reading | writing)?;
    }
    if sandbox.readable_paths.is_some() || sandbox.writable_paths.is_some() {
        let device = AccessFs::ReadFile | AccessFs::WriteFile;
        for name in DEVICES {
            rules.add_one(&Path::new("/dev").join(name), device)?;
        }
    }
    Option::<OwnedFd>::from(rules.ruleset).ok_or(Failure {
        errno: Errno::EOPNOTSUPP,
        on: "Landlock".to_owned(),
    })
}

fn not_built(error: RulesetError) -> Failure {
    let mut cause: Option<&(dyn Error + 'static)> = Some(&error);
    while let Some(now) = cause {
        if let Some(call) = now.downcast_ref::<io::Error>() {
            return Failure::new(call, "Landlock");
        }
        cause = now.source();
    }
    Failure {
        errno: Errno::EINVAL,
        on: error.to_string(),
    }
}

struct Rules {
    ruleset: RulesetCreated,
    hidden: PathBuf,
    /// A part of the hidden directory that is not hidden.
    work_dir: Option<PathBuf>,
}

impl Rules {
    /// Allows this on `path` and all beneath it but the hidden directory. The path is free of links.
    fn allow(&mut self, path: &Path, rights: BitFlags<AccessFs>) -> Result<(), Failure> {
        if let Some(work_dir) = &self.work_dir {
            if path.starts_with(work_dir) {
                return self.add_one(path, rights);
            }
            if work_dir.starts_with(path) {
                self.add_one(&work_dir.clone(), rights)?;
            }
        }
        if path.starts_with(&self.hidden) && path != self.hidden {
            return Err(Failure {
                errno: Errno::EACCES,
                on: format!("{} is in the state directory", path.display()),
            });
        }
        if !self.hidden.starts_with(path) {
            return self.add_one(path, rights);
        }
        let below = self.hidden.strip_prefix(path).unwrap_or(Path::new(""));
        let way: Vec<_> = below.iter().map(OsStr::to_owned).collect();
        let mut directory = path.to_owned();
        for step in way {
            let hidden_here = directory.join(step);
            // What cannot be listed cannot be allowed one by one, and stays closed.
            for beside in fs::read_dir(&directory).into_iter().flatten().flatten() {
                let path = beside.path();
                if path != hidden_here
                    && let Ok(kind) = beside.file_type()
                {
                    self.add(&path, kind, rights)?;
                }
            }
            directory = hidden_here;
        }
        Ok(())
    }

    fn add_one(&mut self, path: &Path, rights: BitFlags<AccessFs>) -> Result<(), Failure> {
        match fs::symlink_metadata(path) {
            Ok(found) => self.add(path, found.file_type(), rights),
            Err(_) => Ok(()),
        }
    }

    /// Allows this on one file or directory. What has gone in the meantime needs no rule, and a link none
    /// of its own: what it leads to has one, or has none for a reason.
    fn add(
        &mut self,
        path: &Path,
        kind: FileType,
        rights: BitFlags<AccessFs>,
    ) -> Result<(), Failure> {
        if kind.is_symlink() {
            return Ok(());
        }
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let opened = match open(path, flags, Mode::empty()) {
            Ok(opened) => opened,
            Err(Errno::ENOENT | Errno::EACCES) => return Ok(()),
            Err(errno) => return Err(Failure::new(&errno.into(), path.to_string_lossy())),
        };
        let rights = if kind.is_dir() {
            rights
        } else {
            rights & AccessFs::from_file(TESTED)
        };
        (&mut self.ruleset)
            .add_rule(PathBeneath::new(opened, rights))
            .map(drop)
            .map_err(not_built)
    }
}
