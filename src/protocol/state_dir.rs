//! The state directory: made private, locked by one supervisor, and opened once as a descriptor.

mod place;

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, open};
use nix::libc;
use nix::sys::stat::Mode;
use nix::unistd::geteuid;

use crate::record;
use linux::procfs;
pub use place::boot_of;

/// Why the state directory cannot be used: one line that says the fix.
#[derive(Debug, thiserror::Error)]
pub enum StateDirError {
    #[error("state directory {path}: {why}; choose another with --state-dir")]
    Unusable { path: PathBuf, why: String },
    #[error(
        "state directory {path} is used by another procession (PID {holder}); stop it, or choose another with --state-dir"
    )]
    InUse { path: PathBuf, holder: i32 },
    #[error(
        "state directory {path} is a copy of {original}, which is used by another procession (PID {holder}), whose waiting jobs would start and whose webhooks would be sent twice; stop it first, or choose another with --state-dir"
    )]
    CopyOfUsed {
        path: PathBuf,
        original: PathBuf,
        holder: i32,
    },
    #[error("/proc is not mounted: mount it (mount -t proc proc /proc)")]
    NoProc,
    #[error("{0}")]
    WrongProc(String),
}

/// The name of the store in the state directory.
pub const STORE: &str = "procession.db";

/// The name of the unix socket in the state directory.
pub const UNIX_SOCKET: &str = "procession.sock";

/// Locked by the server for as long as it serves, in the state directory.
pub const SERVING: &str = "serving";

/// The files that all API nodes of a cluster with a common ledger share: tokens, and the nodes that have joined.
pub const SHARED: [&str; 3] = ["token", "tokens.json", "nodes.json"];

/// The state directory of a service of the whole machine.
pub const SYSTEM_STATE_DIR: &str = "/var/lib/procession";

/// What defaults depend on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// The service runs as root.
    pub is_root: bool,
    /// This user owns [`SYSTEM_STATE_DIR`]: it is the one that a package made for the service.
    pub owns_system_dir: bool,
    /// `$HOME`.
    pub home: Option<PathBuf>,
    /// `$XDG_STATE_HOME`.
    pub state_home: Option<PathBuf>,
    /// The variables of OpenTelemetry.
    pub otel: Vec<(String, String)>,
    /// Relative paths are relative to this.
    pub current_dir: PathBuf,
}

impl Surroundings {
    /// Those of this process.
    #[must_use]
    pub fn read() -> Self {
        Self {
            is_root: geteuid().is_root(),
            owns_system_dir: fs::symlink_metadata(SYSTEM_STATE_DIR)
                .is_ok_and(|found| found.is_dir() && found.uid() == geteuid().as_raw()),
            home: std::env::var_os("HOME").map(PathBuf::from),
            state_home: std::env::var_os("XDG_STATE_HOME").map(PathBuf::from),
            otel: std::env::vars_os()
                .filter_map(|(name, value)| {
                    Some((name.into_string().ok()?, value.into_string().ok()?))
                })
                .filter(|(name, _)| name.starts_with("OTEL_"))
                .collect(),
            current_dir: std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/")),
        }
    }

    /// Where the state directory is when nobody names one.
    #[must_use]
    pub fn state_dir(&self) -> Option<PathBuf> {
        if self.is_root || self.owns_system_dir {
            return Some(PathBuf::from(SYSTEM_STATE_DIR));
        }
        // The XDG specification tells to ignore relative paths.
        let absolute = |path: &Option<PathBuf>| path.clone().filter(|path| path.is_absolute());
        absolute(&self.state_home)
            .or_else(|| absolute(&self.home).map(|home| home.join(".local/state")))
            .map(|state_home| state_home.join("procession"))
    }
}

/// The name of the file whose lock decides who owns the directory.
const LOCK: &str = "lock";

/// A state directory that belongs to this supervisor.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    /// Held for the lock on it: closing any descriptor of this file would let go of it.
    lock: File,
    /// Eight hexadecimal digits that tell this state directory from others on the machine.
    instance: String,
    epoch: String,
    is_copy: bool,
}

impl StateDir {
    /// Makes the directory if it is missing, checks that it is private, and takes its lock; `held` is
    /// the lock file of the program that this one replaced in the same process.
    pub fn open(path: &Path, held: Option<File>) -> Result<Self, StateDirError> {
        let unusable = |why: String| StateDirError::Unusable {
            path: path.to_owned(),
            why,
        };
        if !Path::new("/proc/self/stat").exists() {
            return Err(StateDirError::NoProc);
        }
        procfs::check().map_err(StateDirError::WrongProc)?;
        make_private(path).map_err(unusable)?;
        let lock = match held {
            Some(lock) => lock,
            None => take_lock(path)?,
        };
        for below in ["jobs", "work"] {
            make_private(&path.join(below)).map_err(unusable)?;
        }
        let io_failed = |error: io::Error| unusable(error.to_string());
        let boot_id = procfs::boot_id().map_err(io_failed)?;
        let settled = place::settle(path, &lock, &boot_id).map_err(io_failed)?;
        let settled = settled.map_err(|in_use| match in_use.original {
            original if original == path => StateDirError::InUse {
                path: original,
                holder: in_use.holder,
            },
            original => StateDirError::CopyOfUsed {
                path: path.to_owned(),
                original,
                holder: in_use.holder,
            },
        })?;
        let instance = instance(&path.join("instance"), settled.is_copy).map_err(io_failed)?;
        Ok(Self {
            path: path.to_owned(),
            lock,
            instance,
            epoch: settled.epoch,
            is_copy: settled.is_copy,
        })
    }

    pub fn lock(&self) -> &File {
        &self.lock
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// The time within which what is noted of processes is true: the boot id, and more behind it in a directory that was
    /// copied since; see [`boot_of`].
    pub fn epoch(&self) -> &str {
        &self.epoch
    }

    /// It was copied from elsewhere since it was opened last: the processes that it names are not its own.
    pub fn is_copy(&self) -> bool {
        self.is_copy
    }

    /// The directory of the jobs' directories.
    pub fn jobs(&self) -> io::Result<OwnedFd> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        Ok(open(&self.path.join("jobs"), flags, Mode::empty())?)
    }
}

fn take_lock(path: &Path) -> Result<File, StateDirError> {
    let unusable = |why: String| StateDirError::Unusable {
        path: path.to_owned(),
        why,
    };
    let lock = private_file(&path.join(LOCK), false)
        .map_err(|error| unusable(format!("cannot write in it: {error}")))?;
    if record::lock(&lock).map_err(|error| unusable(format!("cannot lock it: {error}")))? {
        return Ok(lock);
    }
    let holder = record::lock_holder(&lock)
        .ok()
        .flatten()
        .unwrap_or_default();
    Err(StateDirError::InUse {
        path: path.to_owned(),
        holder,
    })
}

/// The supervisor that holds a state directory.
pub fn holder(path: &Path) -> io::Result<Option<i32>> {
    record::lock_holder(&File::open(path.join(LOCK))?)
}

/// Makes a directory with mode 0700, or checks that the present one is ours, private and no link.
fn make_private(path: &Path) -> Result<(), String> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)
                    .map_err(|error| format!("cannot make {}: {error}", parent.display()))?;
            }
            DirBuilder::new()
                .mode(0o700)
                .create(path)
                .map_err(|error| format!("cannot be made: {error}"))
        }
        Err(error) => Err(error.to_string()),
        Ok(found) if found.file_type().is_symlink() => {
            Err("is a symbolic link; name the directory itself".to_owned())
        }
        Ok(found) if !found.is_dir() => Err("is not a directory".to_owned()),
        Ok(found) if found.uid() != geteuid().as_raw() => Err(format!(
            "belongs to uid {}, and this process runs as uid {}",
            found.uid(),
            geteuid()
        )),
        Ok(found) if found.mode() & 0o022 != 0 => Err(format!(
            "can be written by others (mode {:04o}); run chmod 700 on it",
            found.mode() & 0o7777
        )),
        Ok(found) if found.mode() & 0o777 != 0o700 => {
            // A fresh volume has 0755: reading it would show others the output of every job.
            fs::set_permissions(path, fs::Permissions::from_mode(0o700))
                .map_err(|error| format!("cannot be made private: {error}"))
        }
        Ok(_) => Ok(()),
    }
}

/// Opens or makes a file that only its owner can read.
pub fn private_file(path: &Path, must_be_new: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW);
    if must_be_new {
        options.create_new(true)
    } else {
        options.create(true)
    };
    options.open(path)
}

fn instance(path: &Path, is_copy: bool) -> io::Result<String> {
    let mut text = String::new();
    let mut file = private_file(path, false)?;
    file.read_to_string(&mut text)?;
    // The cgroups of that name are the original's.
    if !is_copy && text.len() == 8 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(text);
    }
    let mut random = [0; 4];
    getrandom::fill(&mut random).map_err(|error| io::Error::other(error.to_string()))?;
    let fresh: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    file.set_len(0)?;
    file.rewind()?;
    file.write_all(fresh.as_bytes())?;
    Ok(fresh)
}

/// The token of the first start: 256 random bits in hexadecimal digits, in a file that only its owner reads.
pub fn token(state_dir: &Path) -> Result<String, StateDirError> {
    let path = state_dir.join("token");
    let unusable = |why: String| StateDirError::Unusable {
        path: path.clone(),
        why,
    };
    match private_file(&path, true) {
        Ok(mut file) => {
            let mut random = [0; 32];
            getrandom::fill(&mut random).map_err(|error| unusable(error.to_string()))?;
            let fresh: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
            file.write_all(fresh.as_bytes())
                .and_then(|()| file.sync_all())
                .map_err(|error| unusable(error.to_string()))?;
            Ok(fresh)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let mut text = String::new();
            let mut file = private_file(&path, false)
                .map_err(|error| unusable(format!("cannot be read: {error}")))?;
            let mode = file
                .metadata()
                .map_err(|error| unusable(error.to_string()))?
                .mode();
            if mode & 0o077 != 0 {
                return Err(unusable(format!(
                    "can be read by others (mode {:04o}); run chmod 600 on it",
                    mode & 0o7777
                )));
            }
            file.read_to_string(&mut text)
                .map_err(|error| unusable(error.to_string()))?;
            let text = text.trim();
            if text.len() < 32 {
                return Err(unusable(
                    "holds no token of at least 32 characters; remove it to get a fresh one"
                        .to_owned(),
                ));
            }
            Ok(text.to_owned())
        }
        Err(error) => Err(unusable(error.to_string())),
    }
}
