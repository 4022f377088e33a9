//! The supervisor replaces itself in place: same process, same children, same sockets, another binary.
//!
//! First the binary that is on disk now is asked, with the same arguments and `--check`, whether it
//! understands configuration, state and handover. Only then does the server end, and execve(2) follows:
//! the process number stays, and with it every monitor, the lock on the state directory (record locks
//! survive execve, see fcntl(2)) and the listening sockets.

use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use serde::{Deserialize, Serialize};

use job::JobId;
use linux::sys::{self, Pid};
use protocol::codec;

/// The version of [`Handover`]; it grows if an older binary would misunderstand a newer one.
pub(crate) const VERSION: u32 = 1;

/// The variable that names the descriptor of a handover.
const HANDOVER: &str = "PROCESSION_HANDOVER";

/// The variable that tells a checking binary which handover it would get.
const HANDOVER_VERSION: &str = "PROCESSION_HANDOVER_VERSION";

/// What the old program leaves to the new one. Descriptors stand by their numbers.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Handover {
    pub(super) from_version: String,
    pub(super) restarts: u32,
    #[serde(default)]
    pub(super) draining: bool,
    pub(super) original_nofile: (u64, u64),
    pub(super) tcp: RawFd,
    pub(super) unix: RawFd,
    pub(super) lock: RawFd,
    pub(super) monitors: Vec<HandedMonitor>,
    /// The program that hands over, to go back to.
    #[serde(default)]
    pub(super) previous: Option<Previous>,
    /// Nothing is new: the program that was to replace this one does not serve.
    #[serde(default)]
    pub(super) failed: Option<Failed>,
}

/// A program that may have no name any more, as an open file, and how it was started.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Previous {
    pub(super) program: RawFd,
    pub(super) invocation: Invocation,
}

/// Why a program was gone back to, and where it was on disk.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Failed {
    pub(super) why: String,
    pub(super) binary: PathBuf,
}

/// A monitor in a handover.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct HandedMonitor {
    pub(super) pid: i32,
    pub(super) job: JobId,
    #[serde(default)]
    pub(super) stdin: Option<RawFd>,
    pub(super) stdout: RawFd,
    pub(super) stderr: Option<RawFd>,
    #[serde(default)]
    pub(super) terminal: Option<RawFd>,
    /// Of a rescue monitor: the leader, and the socket on which its end is told.
    pub(super) leader: Option<(i32, RawFd)>,
    #[serde(default)]
    pub(super) is_rescuer: bool,
}

/// Takes what the program before this one left; `None` if this is a fresh start.
pub(super) fn take() -> io::Result<Option<Handover>> {
    let Some(number) = std::env::var(HANDOVER).ok() else {
        return Ok(None);
    };
    read(&number).map(|(handover, _file)| Some(handover))
}

/// The handover in the descriptor of this number, which is closed by the next execve.
fn read(number: &str) -> io::Result<(Handover, File)> {
    let fd = number
        .parse()
        .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut file = File::from(take_fd(fd)?);
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    file.read_to_end(&mut bytes)?;
    Ok((codec::decode(&bytes)?, file))
}

/// Goes back to the program before, where this one came out of an upgrade and cannot start. Returns if that is not so, or
/// cannot be. Nothing of the handover may have been taken yet.
pub fn go_back(why: &str) {
    let gone_back = || -> io::Result<()> {
        let Some(number) = std::env::var(HANDOVER).ok() else {
            return Ok(());
        };
        let (mut handover, _file) = read(&number)?;
        let Some(previous) = handover.previous.take() else {
            return Ok(());
        };
        Err(previous.invocation.go_back(previous.program, why, handover))
    };
    if let Err(error) = gone_back() {
        tracing::error!(%error, "upgrade: cannot go back to the program before: {error}");
    }
}

/// Takes over a descriptor that execve left open; from here on execve closes it again.
pub(super) fn take_fd(number: RawFd) -> io::Result<OwnedFd> {
    let fd = sys::adopt_fd(number).ok_or_else(|| io::Error::from(Errno::EBADF))?;
    fcntl(&fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    Ok(fd)
}

/// Marks a descriptor to stay open over execve, and gives its number.
pub(super) fn give_fd(fd: BorrowedFd<'_>) -> io::Result<RawFd> {
    fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty()))?;
    Ok(fd.as_raw_fd())
}

/// How this program was started, so that its successor can be.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Invocation {
    binary: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
}

impl Invocation {
    /// `binary` is where the program is on disk, if that is known otherwise.
    pub(super) fn read(binary: Option<PathBuf>) -> io::Result<Self> {
        Ok(Self {
            binary: binary.map_or_else(std::env::current_exe, Ok)?,
            arguments: std::env::args_os().collect(),
            // Sockets that a service manager has passed on are in the handover.
            environment: std::env::vars_os()
                .filter(|(name, _)| name != HANDOVER && !name.as_bytes().starts_with(b"LISTEN_"))
                .collect(),
        })
    }

    pub(super) fn binary(&self) -> &Path {
        &self.binary
    }

    /// Asks the binary on disk whether it could take over; its exit code is the answer, and `said` gets why.
    pub(super) fn check(&self, said: &File) -> io::Result<Pid> {
        let child = Command::new(&self.binary)
            .args(self.arguments.iter().skip(1))
            .arg("--check")
            .env_remove(HANDOVER)
            .env(HANDOVER_VERSION, VERSION.to_string())
            .stderr(said.try_clone()?)
            .spawn()?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::new);
        pid.ok_or_else(|| io::Error::from(Errno::ECHILD))
    }

    /// Becomes the binary on disk. Returns only if that failed; nothing has changed then, but that the
    /// descriptors in the handover would stay open over another execve.
    pub(super) fn become_successor(&self, handover: &Handover) -> io::Error {
        self.become_program(&self.binary, handover)
    }

    /// Becomes the program that was started like this, and is open there. Returns only if that failed.
    pub(super) fn go_back(&self, program: RawFd, why: &str, mut handover: Handover) -> io::Error {
        handover.previous = None;
        handover.failed = Some(Failed {
            why: why.to_owned(),
            binary: self.binary.clone(),
        });
        self.become_program(Path::new(&format!("/proc/self/fd/{program}")), &handover)
    }

    fn become_program(&self, program: &Path, handover: &Handover) -> io::Error {
        match self.prepare(program, handover) {
            Ok((path, argv, env, _file)) => io::Error::from(sys::execve(&path, &argv, &env)),
            Err(error) => error,
        }
    }

    fn prepare(
        &self,
        program: &Path,
        handover: &Handover,
    ) -> io::Result<(CString, Vec<CString>, Vec<CString>, File)> {
        let mut file = File::from(memfd_create(c"handover", MFdFlags::empty())?);
        file.write_all(&codec::encode(handover)?)?;
        let number = give_fd(file.as_fd())?;
        let text = |text: &OsStr| CString::new(text.as_bytes()).map_err(io::Error::other);
        let argv = self
            .arguments
            .iter()
            .map(|argument| text(argument))
            .collect::<Result<_, _>>()?;
        let inherited = self.environment.iter();
        let mut env = inherited
            .map(|(name, value)| {
                let mut pair = name.clone();
                pair.push("=");
                pair.push(value);
                text(&pair)
            })
            .collect::<Result<Vec<_>, _>>()?;
        env.push(text(OsStr::new(&format!("{HANDOVER}={number}")))?);
        Ok((text(program.as_os_str())?, argv, env, file))
    }
}

/// Does this program understand what the running one would hand over? Part of `serve --check`.
pub fn understands_handover() -> Result<(), String> {
    match std::env::var(HANDOVER_VERSION) {
        Ok(version) if version != VERSION.to_string() => Err(format!(
            "the running procession hands over in version {version}, this one knows version {VERSION}"
        )),
        Ok(_) | Err(_) => Ok(()),
    }
}
