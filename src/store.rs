//! The embedded store: jobs, idempotency keys and their durability.

/// The store failed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{doing}: {why}")]
pub struct StoreError {
    /// What was being done.
    pub doing: &'static str,
    /// SQLite's words.
    pub why: String,
}
