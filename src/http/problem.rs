//! Everything that can go wrong in the API, as status, stable code and RFC 9457 body.
//!
//! The only map from the errors of the layers below to HTTP. An internal error has two texts: the
//! client gets the request id, the log gets the cause.

mod causes;
mod render;
mod words;

use std::sync::Arc;

use axum::response::{IntoResponse, Response};
use serde::Serialize;

use job::JobId;
use job::life::Refusal;
pub(super) use render::{panicked, render};

/// The media type of an error body.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// Every value of `code`; `openapi.yaml` lists the same.
pub const ALL_CODES: &[&str] = &[
    "invalid_query",
    "invalid_page_token",
    "invalid_header",
    "invalid_json",
    "invalid_request",
    "unauthenticated",
    "forbidden",
    "peer_not_allowed",
    "origin_not_allowed",
    "policy_forbids",
    "privilege_required",
    "not_found",
    "job_not_found",
    "queue_not_found",
    "method_not_allowed",
    "not_acceptable",
    "body_timeout",
    "job_not_started",
    "job_stopping",
    "job_already_finished",
    "job_not_queued",
    "queue_in_use",
    "concurrency_conflict",
    "signal_failed",
    "stdin_closed",
    "stdin_offset_mismatch",
    "stdin_taken",
    "no_terminal",
    "precondition_failed",
    "cursor_expired",
    "body_too_large",
    "unsupported_media_type",
    "range_not_satisfiable",
    "upgrade_required",
    "head_too_large",
    "host_not_allowed",
    "invalid_spec",
    "invalid_body",
    "no_such_user",
    "no_such_template",
    "containment_unavailable",
    "sandbox_unavailable",
    "sandbox_required",
    "idempotency_key_reused",
    "queue_full",
    "too_many_streams",
    "internal",
    "draining",
    "not_ready",
    "monitor_unavailable",
    "store_unavailable",
    "no_room",
];

/// Where in the request a mistake is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// A JSON pointer into the body.
    Pointer(String),
    /// The name of a query parameter.
    Parameter(String),
    /// The name of a header.
    Header(&'static str),
}

/// One mistake in a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// Where it is.
    #[serde(flatten)]
    pub place: Place,
    /// A stable word.
    pub code: &'static str,
    /// A sentence for people.
    pub detail: String,
}

/// Everything that a client can be told instead of what it asked for.
#[derive(Debug)]
pub enum ApiError {
    /// Query parameters that are unknown or have no valid value.
    InvalidQuery(Vec<Violation>),
    /// The page token is garbage, or of another filter.
    InvalidPageToken,
    /// A header has no valid value.
    InvalidHeader(Violation),
    /// The body is not JSON, or nested too deeply.
    InvalidJson(String),
    /// The request is broken in another way, such as a body that ends too soon.
    InvalidRequest(&'static str),
    /// No token, or not a valid one.
    Unauthenticated,
    /// The token's scope does not reach.
    Forbidden {
        /// The scope that would reach.
        needed: &'static str,
    },
    /// A process of another user came over the unix socket.
    PeerNotAllowed,
    /// A web page of another origin sent the request.
    OriginNotAllowed,
    /// The command policy does not allow this job.
    PolicyForbids(&'static str),
    /// Only a privileged service can do this.
    PrivilegeRequired {
        /// The whole sentence.
        detail: String,
        /// The field.
        pointer: String,
    },
    /// No route has this path.
    NotFound,
    /// No job has this id.
    JobNotFound,
    /// Nothing is set of this queue, and no job is in it.
    QueueNotFound,
    /// Jobs wait or run in the queue.
    QueueInUse,
    /// The job does not wait for its key, which this job has.
    ConcurrencyConflict(JobId),
    /// The path has no such method.
    MethodNotAllowed {
        /// The methods it has.
        allow: String,
    },
    /// None of the media types that the client accepts is offered.
    NotAcceptable {
        /// Those that are.
        offered: &'static [&'static str],
    },
    /// The body did not come in time.
    BodyTimeout,
    /// Right request, wrong state.
    Refused(Refusal),
    /// The kernel refused to deliver the signal.
    SignalFailed(nix::errno::Errno),
    /// Queue and priority are those of a job that waits.
    NotQueued,
    /// The job is no longer in the version that `If-Match` names.
    PreconditionFailed,
    /// Events after a cursor are no longer kept.
    CursorExpired,
    /// Standard input takes nothing, or nothing any more.
    StdinClosed,
    /// Standard input is at another offset.
    StdinOffset {
        /// Where it is; `None` where nobody knows.
        expected: Option<u64>,
    },
    /// Somebody else types into the job.
    StdinTaken,
    /// The job has no terminal.
    NoTerminal,
    /// The body is larger than this many bytes.
    BodyTooLarge(usize),
    /// The request line and the headers are larger, or more, than allowed.
    HeadTooLarge,
    /// The body is not of this media type.
    UnsupportedMediaType(&'static str),
    /// Nothing of the range exists; the length as it is now.
    RangeNotSatisfiable {
        /// The length.
        length: u64,
    },
    /// `Host` is missing or not allowed.
    HostNotAllowed,
    /// The job description is well-formed and wrong.
    InvalidSpec(Vec<Violation>),
    /// Another body is well-formed and wrong.
    InvalidBody(Vec<Violation>),
    /// The command policy has no such template.
    NoSuchTemplate,
    /// No such user or group on this machine.
    NoSuchUser {
        /// The whole sentence.
        detail: String,
        /// The field.
        pointer: String,
    },
    /// This host cannot limit a job that way.
    ContainmentUnavailable {
        /// The whole sentence.
        detail: String,
        /// The field.
        pointer: String,
    },
    /// The kernel lacks a part of the sandbox that the job must have.
    SandboxUnavailable {
        /// The whole sentence.
        detail: String,
        /// The field.
        pointer: String,
    },
    /// The job asks for less of a sandbox than the service insists on.
    SandboxRequired {
        /// The whole sentence.
        detail: String,
        /// The field.
        pointer: String,
    },
    /// The idempotency key was used with another body.
    KeyReused,
    /// The route speaks WebSocket only.
    UpgradeRequired,
    /// As many jobs wait as may.
    QueueFull,
    /// As many answers and WebSockets last as may.
    TooManyStreams {
        /// How many that is.
        most: usize,
    },
    /// Our bug, or a failing disk; the text is for the log only.
    Internal(String),
    /// No new jobs are accepted any more.
    Draining,
    /// Not ready for jobs, and why.
    NotReady(&'static str),
    /// The job's monitor does not answer at present.
    MonitorUnavailable,
    /// The disk that jobs are kept on fails, or cannot be written to.
    StoreUnavailable,
    /// Less disk space is free than is kept free.
    NoRoom,
}

impl ApiError {
    /// An error of reading something that should be there.
    #[must_use]
    pub fn io(doing: &'static str, error: &std::io::Error) -> Self {
        Self::Internal(format!("{doing}: {error}"))
    }

    /// Was it about who asks, from where, or what they may, rather than about the request itself?
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::Unauthenticated
                | Self::Forbidden { .. }
                | Self::PeerNotAllowed
                | Self::OriginNotAllowed
                | Self::HostNotAllowed
                | Self::HeadTooLarge
                | Self::PolicyForbids(_)
                | Self::PrivilegeRequired { .. }
        )
    }
}

impl IntoResponse for ApiError {
    /// Status and headers; `render` writes the body, since only it knows the request id.
    fn into_response(self) -> Response {
        let mut response = self.status().into_response();
        self.headers(&mut response);
        response.extensions_mut().insert(Arc::new(self));
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_codes_is_that_of_the_errors() {
        use std::collections::BTreeSet;
        let words = String::new;
        let violation = || Violation {
            place: Place::Header("Accept"),
            code: "conflict",
            detail: words(),
        };
        let (detail, pointer) = (words, words);
        let all = [
            ApiError::InvalidQuery(Vec::new()),
            ApiError::InvalidPageToken,
            ApiError::InvalidHeader(violation()),
            ApiError::InvalidJson(words()),
            ApiError::InvalidRequest(""),
            ApiError::Unauthenticated,
            ApiError::Forbidden { needed: "admin" },
            ApiError::PeerNotAllowed,
            ApiError::OriginNotAllowed,
            ApiError::PolicyForbids(""),
            ApiError::NoSuchTemplate,
            ApiError::HeadTooLarge,
            ApiError::PrivilegeRequired {
                detail: detail(),
                pointer: pointer(),
            },
            ApiError::NotFound,
            ApiError::JobNotFound,
            ApiError::QueueNotFound,
            ApiError::QueueInUse,
            ApiError::ConcurrencyConflict(JobId::from_bytes([0; 16])),
            ApiError::MethodNotAllowed { allow: words() },
            ApiError::NotAcceptable { offered: &[] },
            ApiError::BodyTimeout,
            ApiError::Refused(Refusal::NotStarted),
            ApiError::Refused(Refusal::Stopping),
            ApiError::Refused(Refusal::Finished),
            ApiError::SignalFailed(nix::errno::Errno::EPERM),
            ApiError::NotQueued,
            ApiError::PreconditionFailed,
            ApiError::CursorExpired,
            ApiError::StdinClosed,
            ApiError::StdinOffset { expected: Some(1) },
            ApiError::StdinTaken,
            ApiError::NoTerminal,
            ApiError::UpgradeRequired,
            ApiError::TooManyStreams { most: 1 },
            ApiError::BodyTooLarge(1),
            ApiError::UnsupportedMediaType(""),
            ApiError::RangeNotSatisfiable { length: 0 },
            ApiError::HostNotAllowed,
            ApiError::InvalidSpec(Vec::new()),
            ApiError::InvalidBody(Vec::new()),
            ApiError::NoSuchUser {
                detail: detail(),
                pointer: pointer(),
            },
            ApiError::ContainmentUnavailable {
                detail: detail(),
                pointer: pointer(),
            },
            ApiError::SandboxUnavailable {
                detail: detail(),
                pointer: pointer(),
            },
            ApiError::SandboxRequired {
                detail: detail(),
                pointer: pointer(),
            },
            ApiError::KeyReused,
            ApiError::QueueFull,
            ApiError::Internal(words()),
            ApiError::Draining,
            ApiError::NotReady(""),
            ApiError::MonitorUnavailable,
            ApiError::StoreUnavailable,
            ApiError::NoRoom,
        ];
        let codes: BTreeSet<_> = all.iter().map(ApiError::code).collect();
        assert_eq!(codes, ALL_CODES.iter().copied().collect());
        for error in all {
            assert!(error.status().as_u16() >= 400, "{error:?}");
            let _ = error.into_response();
        }
    }
}
