//! This command's own terminal: whether keys are passed on as they are typed. Nothing is changed for good.

use std::io::{self, IsTerminal, Stdin};

use nix::sys::termios::{self, LocalFlags, SetArg, Termios};
use terminal_size::{Height, Width, terminal_size_of};

use super::failure::Failure;

/// Standard input with other modes, until it is dropped.
#[derive(Debug)]
pub(super) struct Raw {
    stdin: Stdin,
    before: Termios,
    wanted: Termios,
}

impl Raw {
    /// Every key passes; `None` if standard input is no terminal.
    pub(super) fn enter() -> Result<Option<Self>, Failure> {
        Self::change(termios::cfmakeraw)
    }

    /// Keys come at once and are not shown, and Ctrl-C is what it was.
    pub(super) fn keys() -> Result<Option<Self>, Failure> {
        Self::change(|modes| {
            modes
                .local_flags
                .remove(LocalFlags::ICANON | LocalFlags::ECHO);
            modes.control_chars[nix::libc::VMIN] = 1;
            modes.control_chars[nix::libc::VTIME] = 0;
        })
    }

    fn change(change: impl Fn(&mut Termios)) -> Result<Option<Self>, Failure> {
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return Ok(None);
        }
        let before = termios::tcgetattr(&stdin).map_err(cannot_set)?;
        let mut wanted = before.clone();
        change(&mut wanted);
        let raw = Self {
            stdin,
            before,
            wanted,
        };
        raw.again()?;
        Ok(Some(raw))
    }

    /// Sets the modes once more, after a shell had the terminal in between.
    pub(super) fn again(&self) -> Result<(), Failure> {
        termios::tcsetattr(&self.stdin, SetArg::TCSADRAIN, &self.wanted).map_err(cannot_set)
    }
}

fn cannot_set(errno: nix::errno::Errno) -> Failure {
    Failure::Local(format!("cannot set the terminal: {}", errno.desc()))
}

impl Drop for Raw {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing.
        let _ = termios::tcsetattr(&self.stdin, SetArg::TCSADRAIN, &self.before);
    }
}

/// Rows and columns of this terminal, whichever stream it is.
pub(super) fn size() -> Option<(u16, u16)> {
    let found = terminal_size_of(io::stdin())
        .or_else(|| terminal_size_of(io::stdout()))
        .or_else(|| terminal_size_of(io::stderr()));
    let (Width(cols), Height(rows)) = found?;
    (rows > 0 && cols > 0).then_some((rows, cols))
}
