//! How far an upgrade is, what is noted of it, and the first steps of the program that comes out of it.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Duration;

use super::beginning::Beginning;
use super::handover::{self, Handover, Invocation};
use super::monitors::Monitors;
use job::time::BootInstant;
use linux::clock;
use linux::sys::Pid;
use protocol::listeners::Listeners;
use protocol::state_dir::StateDir;
use protocol::stderr::Failure;
use protocol::upgrades::{self, Outcome};

/// How long the first server of a new program may take to be ready, and how often it may end before that.
const PROVING: Duration = Duration::from_secs(30);
const ENDS: u32 = 3;

/// The most that is repeated of what a program says that refuses.
const SAID: u64 = 4096;

/// How far an upgrade is.
#[derive(Debug)]
pub(super) enum Upgrade {
    /// None is under way.
    None,
    /// The binary on disk is being asked.
    Checking {
        /// The process that answers with its exit code.
        pid: Pid,
        /// What it says on standard error.
        said: File,
        /// When it is given up.
        give_up_at: BootInstant,
    },
    /// It understands; the server is ending.
    Replacing {
        /// When the server is killed, so that the upgrade can go on.
        kill_at: BootInstant,
    },
    /// This is the new program, and its server has still to be ready.
    Proving(Proving),
}

/// A program whose server has still to be ready.
#[derive(Debug)]
pub(super) struct Proving {
    /// The program that it has replaced, to go back to; `None` if it is the one that was gone back to.
    pub(super) previous: Option<(OwnedFd, Invocation)>,
    /// Why it was gone back to.
    failed: Option<String>,
    give_up_at: BootInstant,
    ends: u32,
}

impl Upgrade {
    /// When something is to be done about it.
    pub(super) fn due(&self) -> Option<BootInstant> {
        match self {
            Self::None => None,
            Self::Checking { give_up_at, .. } => Some(*give_up_at),
            Self::Replacing { kill_at } => Some(*kill_at),
            Self::Proving(proving) => proving.may_go_back().then_some(proving.give_up_at),
        }
    }

    pub(super) fn is_checked_by(&self, ended: Pid) -> bool {
        match self {
            Self::Checking { pid, .. } => *pid == ended,
            Self::None | Self::Replacing { .. } | Self::Proving(_) => false,
        }
    }
}

impl Proving {
    fn may_go_back(&self) -> bool {
        self.ends < ENDS && self.previous.is_some()
    }

    /// The server has ended without being ready; is that once too often?
    pub(super) fn has_failed(&mut self) -> bool {
        self.ends += 1;
        self.ends >= ENDS && self.previous.is_some()
    }

    pub(super) fn is_overdue(&self, now: BootInstant) -> bool {
        self.give_up_at <= now && self.may_go_back()
    }

    /// The next end of the server is the last.
    pub(super) fn give_up(&mut self) {
        self.ends = ENDS;
    }

    /// The server is ready: what has become of the upgrade.
    pub(super) fn outcome(self) -> Outcome {
        match self.failed {
            Some(why) => Outcome::Refused(why),
            None => Outcome::Done(env!("CARGO_PKG_VERSION").to_owned()),
        }
    }
}

/// Notes that an upgrade has begun.
pub(super) fn note_beginning(state_dir: &Path) {
    let before = upgrades::last(state_dir).map_or(0, |upgrade| upgrade.number);
    note(state_dir, before + 1, Outcome::Asked);
}

/// Notes what has become of the upgrade.
pub(super) fn note_outcome(state_dir: &Path, outcome: Outcome) {
    if let Some(upgrade) = upgrades::last(state_dir) {
        note(state_dir, upgrade.number, outcome);
    }
}

fn note(state_dir: &Path, number: u64, outcome: Outcome) {
    let upgrade = upgrades::Upgrade { number, outcome };
    if let Err(error) = upgrades::note(state_dir, &upgrade) {
        tracing::warn!(%error, "`procession upgrade` cannot be told what becomes of it: {error}");
    }
}

/// What a program has said that was asked, on one line.
pub(super) fn words(mut said: File) -> String {
    let mut bytes = Vec::new();
    let read = said
        .seek(SeekFrom::Start(0))
        .and_then(|_| said.take(SAID).read_to_end(&mut bytes));
    let text = read.map(|_| String::from_utf8_lossy(&bytes).into_owned());
    let text = text.unwrap_or_default();
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    lines
        .join("; ")
        .trim_start_matches("procession: ")
        .to_owned()
}

/// Takes over from the program that this one replaced. Its listening sockets stay as they are: an
/// address that was changed in the configuration needs a restart.
pub(super) fn take_over(state_dir: &Path, handover: Handover) -> Result<Beginning, Failure> {
    let fail = |error| Failure::system("cannot take over")(error);
    let listeners = Listeners {
        tcp: TcpListener::from(handover::take_fd(handover.tcp).map_err(fail)?),
        unix: UnixListener::from(handover::take_fd(handover.unix).map_err(fail)?),
    };
    let lock = File::from(handover::take_fd(handover.lock).map_err(fail)?);
    let state = StateDir::open(state_dir, Some(lock)).map_err(Failure::config)?;
    let monitors = Monitors::take_over(handover.monitors).map_err(fail)?;
    let previous = handover.previous.map(|previous| {
        let program = handover::take_fd(previous.program)?;
        Ok((program, previous.invocation))
    });
    let failed = handover.failed.map(|failed| failed.why);
    match &failed {
        Some(why) => tracing::error!(
            "upgrade: {why}; back to version {}",
            env!("CARGO_PKG_VERSION")
        ),
        None => tracing::info!(
            "upgraded from version {} to {}, with {} monitors",
            handover.from_version,
            env!("CARGO_PKG_VERSION"),
            monitors.len()
        ),
    }
    Ok(Beginning {
        state,
        listeners,
        monitors,
        restarts: handover.restarts,
        original_nofile: handover.original_nofile,
        upgrade: Upgrade::Proving(Proving {
            previous: previous.transpose().map_err(fail)?,
            failed,
            give_up_at: clock::now().boot.after(PROVING),
            ends: 0,
        }),
    })
}
