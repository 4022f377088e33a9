//! This command's own terminal while it stands for another: every key passes, and nothing is changed for good.

use std::io::{self, IsTerminal, Stdin};

use nix::sys::termios::{self, SetArg, Termios};
use terminal_size::{Height, Width, terminal_size_of};

use crate::failure::Failure;

/// Standard input in raw mode, until it is dropped.
#[derive(Debug)]
pub(super) struct Raw {
    stdin: Stdin,
    before: Termios,
}

impl Raw {
    /// Sets the terminal to raw mode; `None` where standard input is none.
    pub(super) fn enter() -> Result<Option<Self>, Failure> {
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return Ok(None);
        }
        let fail = |errno: nix::errno::Errno| {
            Failure::Local(format!("cannot set the terminal: {}", errno.desc()))
        };
        let before = termios::tcgetattr(&stdin).map_err(fail)?;
        let mut raw = before.clone();
        termios::cfmakeraw(&mut raw);
        termios::tcsetattr(&stdin, SetArg::TCSADRAIN, &raw).map_err(fail)?;
        Ok(Some(Self { stdin, before }))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing.
        let _ = termios::tcsetattr(&self.stdin, SetArg::TCSADRAIN, &self.before);
    }
}

/// Rows and columns of the terminal that standard input is.
pub(crate) fn size() -> Option<(u16, u16)> {
    let stdin = io::stdin();
    let (Width(cols), Height(rows)) = terminal_size_of(&stdin)?;
    (rows > 0 && cols > 0).then_some((rows, cols))
}
