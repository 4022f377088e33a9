//! The names of the headers that the API reads and writes, and that the HTTP library does not know.

use axum::http::HeaderName;

/// Where clients may give a request an id and always find one.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("request-id");
/// What makes a repeated request the same request.
pub(super) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// The answer is that of an earlier request with the same key.
pub(super) const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
/// RFC 7240.
pub(super) const PREFER: HeaderName = HeaderName::from_static("prefer");
/// RFC 7240.
pub(super) const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");
/// The last event that an event source has had.
pub(super) const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Whether a proxy, nginx above all, may hold an answer back.
pub(super) const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");
/// Which site a browser sends a request for.
pub(super) const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// What a browser wants to do with the answer.
pub(super) const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
/// What a browser wants to make of the answer.
pub(super) const SEC_FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");
/// The offset of the first byte of a body with output.
pub(super) const FIRST_OFFSET: HeaderName = HeaderName::from_static("procession-first-offset");
/// The offset at which to continue.
pub(super) const NEXT_OFFSET: HeaderName = HeaderName::from_static("procession-next-offset");
/// The position, within one stream, of the first byte of a body.
pub(super) const FIRST_POSITION: HeaderName = HeaderName::from_static("procession-first-position");
/// Whether a body goes up to the end of all output.
pub(super) const OUTPUT_COMPLETE: HeaderName =
    HeaderName::from_static("procession-output-complete");
/// How many bytes of the job's output are not kept.
pub(super) const OUTPUT_DROPPED: HeaderName = HeaderName::from_static("procession-output-dropped");
/// How many bytes have been written to standard input.
pub(super) const STDIN_OFFSET: HeaderName = HeaderName::from_static("procession-stdin-offset");
/// For whom a hub sends a request to a node. It counts on the streams of a node alone.
pub(super) const ACTOR: HeaderName = HeaderName::from_static("procession-actor");
/// What they may do.
pub(super) const SCOPE: HeaderName = HeaderName::from_static("procession-scope");
