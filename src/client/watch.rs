//! What ends a command that shows the same thing again and again: a signal, the key q, a reader that has gone.

use std::io::IsTerminal;

use super::failure::Failure;
use super::raw::Raw;
use super::signals::Signals;
use super::stdio::{Input, reader_gone};

/// Looks out for the end.
#[derive(Debug)]
pub(super) struct Watch {
    signals: Signals,
    input: Input,
    /// Keys are read, and this gives the terminal back.
    keys: Option<Raw>,
}

impl Watch {
    pub(super) fn begin() -> Result<Self, Failure> {
        let signals = Signals::catch()?;
        let keys = if std::io::stdout().is_terminal() {
            Raw::keys()?
        } else {
            None
        };
        Ok(Self {
            signals,
            input: Input::default(),
            keys,
        })
    }

    /// Resolves when it is over. May be dropped and called again.
    pub(super) async fn over(&mut self) -> Result<(), Failure> {
        loop {
            tokio::select! {
                _ = self.signals.next() => return Ok(()),
                () = reader_gone() => return Err(Failure::ReaderGone),
                typed = self.input.next(), if self.keys.is_some() => match typed {
                    Ok(typed) if typed.is_empty() => self.keys = None,
                    Ok(typed) if typed.iter().any(|key| b"qQ".contains(key)) => return Ok(()),
                    Ok(_) => {}
                    Err(_) => self.keys = None,
                }
            }
        }
    }
}
