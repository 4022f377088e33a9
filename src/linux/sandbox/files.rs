//! Landlock rules: which files a job may open, and that it signals and traces nobody else.
//!
//! Landlock only allows. To close one directory, everything beside it is allowed, and everything beside
//! each directory that it is in.

use std::error::Error;
use std::fs::{self, FileType};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, NetPort, PathBeneath, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, RulesetError, Scope,
};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

use super::Failure;
use job::sandbox::{Network, Sandbox};

/// The rights that are tested. Later ones (devices, sockets) change what a job can do, and are none of ours.
const TESTED: ABI = ABI::V3;

/// What a program needs that may write nowhere.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// What a job sees of the service's own directories.
pub(super) struct Places<'a> {
    /// Those that are closed.
    pub(super) hidden: Vec<&'a Path>,
    /// The part of them that is not.
    pub(super) work_dir: &'a Path,
    /// It is the job's own.
    pub(super) owns_work_dir: bool,
}

/// Builds the rules: the hidden directories are closed, all of them but the work directory.
pub(super) fn ruleset(sandbox: &Sandbox, places: &Places<'_>) -> Result<OwnedFd, Failure> {
    let real = |path: &Path| {
        fs::canonicalize(path).map_err(|error| Failure::new(&error, path.to_string_lossy()))
    };
    let hidden = { &places.hidden }.iter().map(|path| real(path));
    let hidden: Vec<PathBuf> = hidden.collect::<Result<_, _>>()?;
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
            .and_then(|ruleset| match sandbox.network {
                Network::Default => Ok(ruleset),
                Network::Off | Network::Ports { .. } => {
                    ruleset.handle_access(AccessNet::from_all(ABI::V4))
                }
            })
            .and_then(|ruleset| ruleset.scope(Scope::Signal))
            .and_then(Ruleset::create)
            .map_err(not_built)?,
        work_dir: fs::canonicalize(places.work_dir).ok().filter(|work_dir| {
            let mut around = hidden.iter().filter(|hidden| work_dir.starts_with(hidden));
            around.next().is_some() && !hidden.contains(work_dir)
        }),
        hidden,
    };
    rules.ports(&sandbox.network)?;
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
    if places.owns_work_dir {
        rules.allow(&real(places.work_dir)?, reading | writing)?;
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
    hidden: Vec<PathBuf>,
    /// A part of a hidden directory that is not hidden.
    work_dir: Option<PathBuf>,
}

impl Rules {
    /// Allows TCP on the ports that are named.
    fn ports(&mut self, network: &Network) -> Result<(), Failure> {
        let Network::Ports {
            connect_ports,
            bind_ports,
        } = network
        else {
            return Ok(());
        };
        for (ports, right) in [
            (connect_ports, AccessNet::ConnectTcp),
            (bind_ports, AccessNet::BindTcp),
        ] {
            for port in ports {
                (&mut self.ruleset)
                    .add_rule(NetPort::new(*port, right))
                    .map_err(not_built)?;
            }
        }
        Ok(())
    }

    /// Allows this on `path` and all beneath it but the hidden directories. The path is free of links.
    fn allow(&mut self, path: &Path, rights: BitFlags<AccessFs>) -> Result<(), Failure> {
        if let Some(work_dir) = &self.work_dir {
            if path.starts_with(work_dir) {
                return self.add_one(path, rights);
            }
            if work_dir.starts_with(path) {
                self.add_one(&work_dir.clone(), rights)?;
            }
        }
        let mut hidden = self.hidden.iter();
        if hidden.any(|hidden| path.starts_with(hidden) && path != hidden) {
            return Err(Failure {
                errno: Errno::EACCES,
                on: format!("{} is in the state directory", path.display()),
            });
        }
        self.allow_beside(path, rights)
    }

    /// Allows this on `path`, or on all in it that holds no hidden directory and is none.
    fn allow_beside(&mut self, path: &Path, rights: BitFlags<AccessFs>) -> Result<(), Failure> {
        if self.hidden.iter().any(|hidden| hidden == path) {
            return Ok(());
        }
        if !self.hidden.iter().any(|hidden| hidden.starts_with(path)) {
            return self.add_one(path, rights);
        }
        // What cannot be listed cannot be allowed one by one, and stays closed.
        for beside in fs::read_dir(path).into_iter().flatten().flatten() {
            self.allow_beside(&beside.path(), rights)?;
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
