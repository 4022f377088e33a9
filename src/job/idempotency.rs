//! The key by which a repeated request is the same request.

/// A key that makes a repeated submission the same submission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idempotency {
    /// The client's key; scoped to the actor.
    pub key: String,
    /// SHA-256 of the request: its method, its path and its normalised body.
    pub fingerprint: [u8; 32],
}
