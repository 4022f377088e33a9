//! What is told for each error: status, code, texts, places and headers.

use std::borrow::Cow;

use axum::http::header::{ALLOW, CONTENT_RANGE, RETRY_AFTER, UPGRADE, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;

use super::{ApiError, Place, Violation};
use crate::stdin::STDIN_OFFSET;
use job::life::Refusal;

impl ApiError {
    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.class().0
    }

    /// The stable word that programs decide by.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.class().1
    }

    /// The same for every occurrence of this code.
    #[must_use]
    pub fn title(&self) -> &'static str {
        self.class().2
    }

    fn class(&self) -> (StatusCode, &'static str, &'static str) {
        use StatusCode as S;
        match self {
            Self::InvalidQuery(_) => (S::BAD_REQUEST, "invalid_query", "The query is not valid"),
            Self::InvalidPageToken => (
                S::BAD_REQUEST,
                "invalid_page_token",
                "The page token is not valid",
            ),
            Self::InvalidHeader(_) => (S::BAD_REQUEST, "invalid_header", "A header is not valid"),
            Self::InvalidJson(_) => (S::BAD_REQUEST, "invalid_json", "The body is not JSON"),
            Self::InvalidRequest(_) => (
                S::BAD_REQUEST,
                "invalid_request",
                "The request cannot be read",
            ),
            Self::Unauthenticated => (
                S::UNAUTHORIZED,
                "unauthenticated",
                "A valid token is needed",
            ),
            Self::Forbidden { .. } => (
                S::FORBIDDEN,
                "forbidden",
                "The token's scope does not reach",
            ),
            Self::PeerNotAllowed => (
                S::FORBIDDEN,
                "peer_not_allowed",
                "This user may not use the socket",
            ),
            Self::OriginNotAllowed => (
                S::FORBIDDEN,
                "origin_not_allowed",
                "Requests from other origins are refused",
            ),
            Self::PolicyForbids(_) => (
                S::FORBIDDEN,
                "policy_forbids",
                "The command policy does not allow this",
            ),
            Self::PrivilegeRequired { .. } => (
                S::FORBIDDEN,
                "privilege_required",
                "The service lacks the privilege",
            ),
            Self::SandboxRequired { .. } => (
                S::FORBIDDEN,
                "sandbox_required",
                "The service requires a sandbox",
            ),
            Self::NotFound => (S::NOT_FOUND, "not_found", "There is nothing at this path"),
            Self::JobNotFound => (S::NOT_FOUND, "job_not_found", "There is no such job"),
            Self::QueueNotFound => (S::NOT_FOUND, "queue_not_found", "There is no such queue"),
            Self::QueueInUse => (S::CONFLICT, "queue_in_use", "The queue is in use"),
            Self::ConcurrencyConflict(_) => {
                (S::CONFLICT, "concurrency_conflict", "The key is taken")
            }
            Self::MethodNotAllowed { .. } => (
                S::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                "The path has no such method",
            ),
            Self::NotAcceptable { .. } => (
                S::NOT_ACCEPTABLE,
                "not_acceptable",
                "No acceptable media type is offered",
            ),
            Self::BodyTimeout => (
                S::REQUEST_TIMEOUT,
                "body_timeout",
                "The body did not come in time",
            ),
            Self::Refused(Refusal::NotStarted) => {
                (S::CONFLICT, "job_not_started", "The job has not started")
            }
            Self::Refused(Refusal::Stopping) => {
                (S::CONFLICT, "job_stopping", "The job is stopping")
            }
            Self::Refused(Refusal::Finished) => {
                (S::CONFLICT, "job_already_finished", "The job has finished")
            }
            Self::SignalFailed(_) => (S::CONFLICT, "signal_failed", "The signal could not be sent"),
            Self::NotQueued => (S::CONFLICT, "job_not_queued", "The job is not queued"),
            Self::CursorExpired => (S::GONE, "cursor_expired", "The cursor has expired"),
            Self::PreconditionFailed => (
                S::PRECONDITION_FAILED,
                "precondition_failed",
                "The job has changed",
            ),
            Self::StdinClosed => (S::CONFLICT, "stdin_closed", "Standard input is closed"),
            Self::StdinOffset { .. } => (
                S::CONFLICT,
                "stdin_offset_mismatch",
                "Standard input is at another offset",
            ),
            Self::StdinTaken => (
                S::CONFLICT,
                "stdin_taken",
                "Somebody else writes to standard input",
            ),
            Self::NoTerminal => (S::CONFLICT, "no_terminal", "The job has no terminal"),
            Self::BodyTooLarge(_) => (
                S::PAYLOAD_TOO_LARGE,
                "body_too_large",
                "The body is too large",
            ),
            Self::HeadTooLarge => (
                S::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "head_too_large",
                "The request head is too large",
            ),
            Self::UnsupportedMediaType(_) => (
                S::UNSUPPORTED_MEDIA_TYPE,
                "unsupported_media_type",
                "The body is of the wrong media type",
            ),
            Self::RangeNotSatisfiable { .. } => (
                S::RANGE_NOT_SATISFIABLE,
                "range_not_satisfiable",
                "Nothing of the range exists",
            ),
            Self::HostNotAllowed => (
                S::MISDIRECTED_REQUEST,
                "host_not_allowed",
                "The host is not allowed",
            ),
            Self::InvalidSpec(_) => (
                S::UNPROCESSABLE_ENTITY,
                "invalid_spec",
                "The job specification is not valid",
            ),
            Self::InvalidBody(_) => (
                S::UNPROCESSABLE_ENTITY,
                "invalid_body",
                "The body is not valid",
            ),
            Self::NoSuchTemplate => (
                S::UNPROCESSABLE_ENTITY,
                "no_such_template",
                "There is no such template",
            ),
            Self::NoSuchUser { .. } => (
                S::UNPROCESSABLE_ENTITY,
                "no_such_user",
                "There is no such user or group",
            ),
            Self::ContainmentUnavailable { .. } => (
                S::UNPROCESSABLE_ENTITY,
                "containment_unavailable",
                "This host cannot limit a job that way",
            ),
            Self::SandboxUnavailable { .. } => (
                S::UNPROCESSABLE_ENTITY,
                "sandbox_unavailable",
                "This host cannot confine the job that way",
            ),
            Self::KeyReused => (
                S::UNPROCESSABLE_ENTITY,
                "idempotency_key_reused",
                "The idempotency key was used with another body",
            ),
            Self::UpgradeRequired => (
                S::UPGRADE_REQUIRED,
                "upgrade_required",
                "A WebSocket handshake is needed",
            ),
            Self::TooManyStreams { .. } => (
                S::TOO_MANY_REQUESTS,
                "too_many_streams",
                "Too many streams are open",
            ),
            Self::QueueFull => (S::TOO_MANY_REQUESTS, "queue_full", "The queue is full"),
            Self::Internal(_) => (S::INTERNAL_SERVER_ERROR, "internal", "Something went wrong"),
            Self::Draining => (
                S::SERVICE_UNAVAILABLE,
                "draining",
                "The service accepts no new jobs",
            ),
            Self::NotReady(_) => (
                S::SERVICE_UNAVAILABLE,
                "not_ready",
                "The service is not ready",
            ),
            Self::MonitorUnavailable => (
                S::SERVICE_UNAVAILABLE,
                "monitor_unavailable",
                "The job's monitor does not answer at present",
            ),
            Self::StoreUnavailable => (
                S::SERVICE_UNAVAILABLE,
                "store_unavailable",
                "Jobs cannot be kept at present",
            ),
            Self::NoRoom => (
                S::INSUFFICIENT_STORAGE,
                "no_room",
                "There is no room for output",
            ),
        }
    }

    /// A sentence on this occurrence; may be reworded at any time.
    #[must_use]
    pub fn detail(&self) -> Cow<'_, str> {
        match self {
            Self::InvalidQuery(errors) => counted(errors, "query parameter"),
            Self::InvalidSpec(errors) | Self::InvalidBody(errors) => counted(errors, "field"),
            Self::InvalidHeader(error) => error.detail.as_str().into(),
            Self::InvalidJson(detail) => detail.as_str().into(),
            Self::InvalidRequest(detail) | Self::NotReady(detail) | Self::PolicyForbids(detail) => {
                (*detail).into()
            }
            Self::NoSuchTemplate => {
                "the policy of this service has no template of this name".into()
            }
            Self::HeadTooLarge => "at most 32 KiB and 64 headers are read".into(),
            Self::InvalidPageToken => {
                "use a next_page_token of a list with the same filter and order".into()
            }
            Self::Unauthenticated => "send the header Authorization: Bearer TOKEN".into(),
            Self::Forbidden { needed } => format!("the scope {needed} is needed").into(),
            Self::PeerNotAllowed => {
                "only the service's own user and root may use the unix socket".into()
            }
            Self::OriginNotAllowed => {
                "a browser sent this request for a page of another origin".into()
            }
            Self::PrivilegeRequired { detail, .. }
            | Self::NoSuchUser { detail, .. }
            | Self::SandboxUnavailable { detail, .. }
            | Self::SandboxRequired { detail, .. }
            | Self::ContainmentUnavailable { detail, .. } => detail.as_str().into(),
            Self::NotFound => "openapi.yaml lists the paths".into(),
            Self::JobNotFound => "no job has this id, or its record has expired".into(),
            Self::QueueNotFound => "nothing is set of this queue, and no job is in it".into(),
            Self::QueueInUse => "jobs wait or run in it; with `force` they go on without its limits".into(),
            Self::ConcurrencyConflict(holder) => format!("job {holder} has the key").into(),
            Self::MethodNotAllowed { allow } => format!("allowed here: {allow}").into(),
            Self::NotAcceptable { offered } => format!("offered: {}", offered.join(", ")).into(),
            Self::BodyTimeout => "the whole body must come within 15 seconds".into(),
            Self::Refused(refusal) => refusal.to_string().into(),
            Self::SignalFailed(errno) => format!("the kernel says: {}", errno.desc()).into(),
            Self::NotQueued => {
                "queue, priority, weight and concurrency can be changed only while the job waits".into()
            },
            Self::CursorExpired => {
                "events after this one are no longer kept, or there was never such a one: begin anew without a cursor"
                    .into()
            }
            Self::PreconditionFailed => "look at it again and use its present ETag".into(),
            Self::StdinClosed => {
                "the job was not given an open standard input, or it has been closed".into()
            }
            Self::StdinOffset {
                expected: Some(expected),
            } => format!("{expected} bytes have been written").into(),
            Self::StdinTaken => "attach without `stdin` to read along, or again when the other one has gone".into(),
            Self::NoTerminal => "it was created without `pty`".into(),
            Self::StdinOffset { expected: None } => {
                "the job's monitor was replaced, and nobody knows how many bytes have been written"
                    .into()
            }
            Self::BodyTooLarge(limit) => format!("at most {limit} bytes are read").into(),
            Self::UnsupportedMediaType(wanted) => format!("send Content-Type: {wanted}").into(),
            Self::RangeNotSatisfiable { length } => {
                format!("there are {length} bytes at present, and the oldest may be gone").into()
            }
            Self::HostNotAllowed => {
                "use a loopback name, an IP address or a name given with --allowed-host".into()
            }
            Self::KeyReused => "a new job needs a new key".into(),
            Self::UpgradeRequired => {
                "connect with WebSocket (RFC 6455), version 13, and the sub-protocol v5.channel.k8s.io".into()
            }
            Self::TooManyStreams { most } => {
                format!("{most} answers and WebSockets that last are open, which is the most; --max-streams").into()
            }
            Self::QueueFull => "as many jobs wait as may; try again later".into(),
            Self::Internal(_) => "the log says more under this request id".into(),
            Self::Draining => "running jobs go on; send new ones elsewhere or later".into(),
            Self::MonitorUnavailable => "try again in a moment".into(),
            Self::StoreUnavailable => {
                "the disk of the state directory fails or is read-only; running jobs go on".into()
            }
            Self::NoRoom => "less disk space is free than the service keeps free".into(),
        }
    }

    /// The mistakes one by one, where they can be told apart.
    pub(super) fn violations(&self) -> Vec<Violation> {
        let at = |pointer: &String, detail: &String| {
            vec![Violation {
                place: Place::Pointer(pointer.clone()),
                code: self.code(),
                detail: detail.clone(),
            }]
        };
        match self {
            Self::InvalidQuery(errors) | Self::InvalidSpec(errors) | Self::InvalidBody(errors) => {
                errors.clone()
            }
            Self::InvalidHeader(error) => vec![error.clone()],
            Self::PrivilegeRequired { detail, pointer }
            | Self::NoSuchUser { detail, pointer }
            | Self::SandboxUnavailable { detail, pointer }
            | Self::SandboxRequired { detail, pointer }
            | Self::ContainmentUnavailable { detail, pointer } => at(pointer, detail),
            Self::InvalidPageToken
            | Self::InvalidJson(_)
            | Self::InvalidRequest(_)
            | Self::Unauthenticated
            | Self::Forbidden { .. }
            | Self::PeerNotAllowed
            | Self::OriginNotAllowed
            | Self::PolicyForbids(_)
            | Self::NoSuchTemplate
            | Self::HeadTooLarge
            | Self::NotFound
            | Self::JobNotFound
            | Self::QueueNotFound
            | Self::QueueInUse
            | Self::ConcurrencyConflict(_)
            | Self::MethodNotAllowed { .. }
            | Self::NotAcceptable { .. }
            | Self::BodyTimeout
            | Self::Refused(_)
            | Self::SignalFailed(_)
            | Self::NotQueued
            | Self::PreconditionFailed
            | Self::CursorExpired
            | Self::StdinClosed
            | Self::StdinTaken
            | Self::NoTerminal
            | Self::StdinOffset { .. }
            | Self::BodyTooLarge(_)
            | Self::UnsupportedMediaType(_)
            | Self::RangeNotSatisfiable { .. }
            | Self::HostNotAllowed
            | Self::KeyReused
            | Self::UpgradeRequired
            | Self::TooManyStreams { .. }
            | Self::QueueFull
            | Self::Internal(_)
            | Self::Draining
            | Self::NotReady(_)
            | Self::MonitorUnavailable
            | Self::StoreUnavailable
            | Self::NoRoom => Vec::new(),
        }
    }

    /// The headers that belong to the status.
    pub(super) fn headers(&self, response: &mut Response) {
        let header = match self {
            Self::StdinOffset {
                expected: Some(expected),
            } => Some((STDIN_OFFSET, expected.to_string())),
            Self::Unauthenticated => Some((WWW_AUTHENTICATE, "Bearer".to_owned())),
            Self::MethodNotAllowed { allow } => Some((ALLOW, allow.clone())),
            Self::RangeNotSatisfiable { length } => {
                Some((CONTENT_RANGE, format!("bytes */{length}")))
            }
            Self::QueueFull
            | Self::TooManyStreams { .. }
            | Self::MonitorUnavailable
            | Self::NotReady(_) => Some((RETRY_AFTER, "1".to_owned())),
            Self::UpgradeRequired => Some((UPGRADE, "websocket".to_owned())),
            Self::Draining | Self::StoreUnavailable => Some((RETRY_AFTER, "30".to_owned())),
            Self::InvalidQuery(_)
            | Self::InvalidPageToken
            | Self::InvalidHeader(_)
            | Self::InvalidJson(_)
            | Self::InvalidRequest(_)
            | Self::Forbidden { .. }
            | Self::PeerNotAllowed
            | Self::OriginNotAllowed
            | Self::PolicyForbids(_)
            | Self::NoSuchTemplate
            | Self::HeadTooLarge
            | Self::PrivilegeRequired { .. }
            | Self::NotFound
            | Self::JobNotFound
            | Self::QueueNotFound
            | Self::QueueInUse
            | Self::ConcurrencyConflict(_)
            | Self::NotAcceptable { .. }
            | Self::BodyTimeout
            | Self::Refused(_)
            | Self::SignalFailed(_)
            | Self::NotQueued
            | Self::PreconditionFailed
            | Self::CursorExpired
            | Self::StdinClosed
            | Self::StdinTaken
            | Self::NoTerminal
            | Self::StdinOffset { expected: None }
            | Self::BodyTooLarge(_)
            | Self::UnsupportedMediaType(_)
            | Self::HostNotAllowed
            | Self::InvalidSpec(_)
            | Self::InvalidBody(_)
            | Self::NoSuchUser { .. }
            | Self::ContainmentUnavailable { .. }
            | Self::SandboxUnavailable { .. }
            | Self::SandboxRequired { .. }
            | Self::KeyReused
            | Self::Internal(_)
            | Self::NoRoom => None,
        };
        if let Some((name, value)) = header {
            let value = HeaderValue::from_str(&value).expect("made of visible ASCII above");
            response.headers_mut().insert(name, value);
        }
    }
}

fn counted(errors: &[Violation], what: &str) -> Cow<'static, str> {
    match errors {
        [one] => format!("{}: {}", place(one), one.detail).into(),
        _ => format!("{} {what}s are not valid", errors.len()).into(),
    }
}

fn place(violation: &Violation) -> &str {
    match &violation.place {
        Place::Pointer(pointer) if pointer.is_empty() => "the body",
        Place::Pointer(name) | Place::Parameter(name) => name,
        Place::Header(name) => name,
    }
}
