//! Files of the state directory that belong to a store, and that its copies get with its changes.

use rusqlite::{Connection, OptionalExtension};

use crate::tables::Change;
use crate::{Fault, Store, StoreError};

/// The files of the state directory that the copies of a [`Store`] share. Without a keeper there are none.
#[derive(Clone, Copy, Debug)]
pub struct SharedFiles<'a>(pub &'a Store);

impl SharedFiles<'_> {
    /// Keeps the content of a file with the jobs.
    ///
    /// # Errors
    /// If it is not stored.
    pub async fn keep(self, name: &str, content: String) -> Result<(), StoreError> {
        if !self.0.is_kept {
            return Ok(());
        }
        let change = Change::KeepFile(name.to_owned(), content);
        let doing = "cannot keep a file for the other API nodes";
        self.0.writer.change(change, doing).await
    }

    /// The same with the file as it is now, unless it is kept like that. One that is not there is passed over.
    ///
    /// # Errors
    /// If it is not stored.
    pub async fn carry(self, name: &str) -> Result<(), StoreError> {
        if !self.0.is_kept {
            return Ok(());
        }
        let path = self.0.path.with_file_name(name);
        let wanted = name.to_owned();
        let doing = "cannot read a file for the other API nodes";
        let read = move |connection: &Connection| {
            let kept = kept_file(connection, &wanted)?;
            let present = std::fs::read_to_string(&path).ok();
            Ok(present.filter(|present| kept.as_ref() != Some(present)))
        };
        match self.0.readers.read(doing, read).await? {
            Some(content) => self.keep(name, content).await,
            None => Ok(()),
        }
    }
}

/// Keeps a file of the state directory, where the store has a log.
pub(super) fn keep_file(connection: &Connection, name: &str, content: &str) -> Result<(), Fault> {
    connection
        .prepare_cached("INSERT OR REPLACE INTO ledger_files (name, content) VALUES (?, ?)")?
        .execute([name, content])?;
    Ok(())
}

/// The content of a file as it is kept.
fn kept_file(connection: &Connection, name: &str) -> Result<Option<String>, Fault> {
    let content = connection
        .prepare_cached("SELECT content FROM ledger_files WHERE name = ?")?
        .query_row([name], |row| row.get(0))
        .optional()?;
    Ok(content)
}
