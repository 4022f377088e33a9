//! Whole copies of the store in the database: made by who leads when the log has grown long, read by who has no copy yet.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::LedgerError;
use crate::database::{Database, unsigned};
use crate::key::Key;
use linux::failpoint;
use store::{Position, Replica};

/// The bytes of the file in one part.
const PART: usize = 1 << 20;

/// So many changes before a snapshot are kept, for those who follow at a small distance.
const KEPT: u64 = 1000;

fn beside(store: &Path, end: &str) -> PathBuf {
    let mut name = store.as_os_str().to_owned();
    name.push(end);
    name.into()
}

fn label(seq: u64, part: i32) -> String {
    format!("part {part} of snapshot {seq}")
}

/// Writes a copy of the store beside it, which the store's own writer does not wait for.
pub(crate) async fn copy(store: &Path) -> Result<(PathBuf, Position), LedgerError> {
    let (store, to) = (store.to_owned(), beside(store, ".snapshot"));
    let made = tokio::task::spawn_blocking(move || {
        let position = store::snapshot(&store, &to)?;
        Ok((to, position))
    });
    made.await
        .map_err(|error| LedgerError::Unavailable(error.to_string()))?
}

/// Puts such a copy into the database and removes it.
pub(crate) async fn upload(
    database: &Database,
    key: &Key,
    copy: &Path,
    seq: u64,
) -> Result<(), LedgerError> {
    let mut file = File::open(copy)?;
    let mut number = 0;
    loop {
        let mut part = Vec::with_capacity(PART);
        let length = u64::try_from(PART).unwrap_or(u64::MAX);
        Read::by_ref(&mut file)
            .take(length)
            .read_to_end(&mut part)?;
        let is_last = part.len() < PART;
        let body = key.seal(&label(seq, number), &part);
        let body = body.map_err(LedgerError::Unusable)?;
        database.put_part(seq, number, &body).await?;
        number += 1;
        if is_last {
            fs::remove_file(copy)?;
            return Ok(());
        }
    }
}

/// The snapshot counts from now on, and what is older than it goes.
pub(crate) async fn publish(database: &Database, claim: &str, seq: u64) -> Result<(), LedgerError> {
    if !database.publish(claim, seq).await? {
        return Err(LedgerError::Deposed("another API node leads".to_owned()));
    }
    let kept = failpoint::number("ledger.kept", KEPT);
    database.trim(seq, seq.saturating_sub(kept)).await
}

/// Replaces the store with the snapshot of the log, if there is one.
pub(crate) async fn load(
    database: &Database,
    key: &Key,
    store: &Path,
    snapshot: i64,
) -> Result<Replica, LedgerError> {
    let seq = unsigned(snapshot);
    let fresh = beside(store, ".loading");
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        Ok(()) | Err(_) => {}
    }
    let mut options = fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&fresh)?;
    let mut number = 0;
    loop {
        let part = database.part(seq, number).await?.ok_or_else(|| {
            // A newer one may have come in its place.
            LedgerError::Unavailable(format!("{} is not there", label(seq, number)))
        })?;
        let part = key.open(&label(seq, number), &part)?;
        file.write_all(&part)?;
        if part.len() < PART {
            break;
        }
        number += 1;
    }
    file.sync_all()?;
    drop(file);
    Replica::remove(store)?;
    fs::rename(&fresh, store)?;
    let replica = Replica::open(store)?;
    replica.ok_or_else(|| LedgerError::Unusable(format!("snapshot {seq} in the database is empty")))
}
