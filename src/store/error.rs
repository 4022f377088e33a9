//! Why the store failed: one statement or row, and what was being done.

/// The store failed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{doing}: {why}")]
pub struct StoreError {
    /// What was being done.
    pub doing: &'static str,
    /// SQLite's words.
    pub why: String,
    /// There was no room: it may work when there is.
    pub full: bool,
    /// The disk failed, or cannot currently be written to, or another program holds the store locked.
    pub failing: bool,
    /// What failed is not the store itself: its changes are not kept.
    pub unkept: bool,
}

impl StoreError {
    /// The answer to those who come after [`Store::close`].
    pub(crate) fn closed(doing: &'static str) -> Self {
        Self {
            doing,
            why: "the store is closed".to_owned(),
            full: false,
            failing: false,
            unkept: false,
        }
    }
}

/// Why one statement or one row failed; a [`StoreError`] once it is known what was being done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// SQLite said no.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    /// A row does not hold what this version reads, or a job cannot be written.
    #[error("unreadable row: {0}")]
    Encoding(#[from] serde_json::Error),
    /// The row has a state that this version does not know.
    #[error("unreadable row: no state has the number {0}")]
    UnknownState(i64),
    /// A change came for a job that is not there or is over.
    #[error("no such unfinished job")]
    NoSuchJob,
    /// A step of a schedule has been made already, or the schedule has changed.
    #[error("the schedule has gone on meanwhile")]
    NoSuchTurn,
    /// The change is not kept elsewhere, or that is not known.
    #[error("{0}")]
    Ledger(String),
}

impl Fault {
    pub(crate) fn is_full(&self) -> bool {
        match self {
            Self::Sqlite(error) => error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull),
            Self::Encoding(_)
            | Self::UnknownState(_)
            | Self::NoSuchJob
            | Self::NoSuchTurn
            | Self::Ledger(_) => false,
        }
    }

    pub(crate) fn is_failing(&self) -> bool {
        use rusqlite::ErrorCode::{
            CannotOpen, DatabaseBusy, DatabaseLocked, ReadOnly, SystemIoFailure,
        };
        const OUTSIDE: [rusqlite::ErrorCode; 5] = [
            CannotOpen,
            DatabaseBusy,
            DatabaseLocked,
            ReadOnly,
            SystemIoFailure,
        ];
        match self {
            Self::Sqlite(error) => error
                .sqlite_error_code()
                .is_some_and(|code| OUTSIDE.contains(&code)),
            Self::Ledger(_) => true,
            Self::Encoding(_) | Self::UnknownState(_) | Self::NoSuchJob | Self::NoSuchTurn => false,
        }
    }

    pub(crate) fn doing(&self, doing: &'static str) -> StoreError {
        StoreError {
            doing,
            why: self.to_string(),
            full: self.is_full(),
            failing: self.is_failing(),
            unkept: matches!(self, Self::Ledger(_)),
        }
    }
}
