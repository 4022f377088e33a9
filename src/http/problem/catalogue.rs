//! The catalogue: what each error says, in one place an error.

use std::borrow::Cow;

use axum::http::header::{ALLOW, CONTENT_RANGE, RETRY_AFTER, UPGRADE, WWW_AUTHENTICATE};
use axum::http::{HeaderName, StatusCode};

use super::{ApiError, Place, Violation};
use crate::headers::STDIN_OFFSET;
use job::life::Refusal;

/// Everything that a client is told about an error, but for the id of its request.
#[derive(Debug)]
pub(crate) struct Problem<'a> {
    /// The HTTP status.
    pub(crate) status: StatusCode,
    /// The stable word that programs decide by.
    pub(crate) code: &'static str,
    /// The same for every occurrence of this code.
    pub(crate) title: &'static str,
    /// A sentence on this occurrence; may be reworded at any time.
    pub(crate) detail: Cow<'a, str>,
    /// The mistakes one by one, if they can be told apart.
    pub(crate) errors: Cow<'a, [Violation]>,
    /// How many jobs match, and how many were expected.
    pub(super) counts: Option<(usize, usize)>,
    /// The header that belongs to the status.
    pub(super) header: Option<(HeaderName, Cow<'a, str>)>,
}

impl<'a> Problem<'a> {
    fn new(
        status: StatusCode,
        code: &'static str,
        title: &'static str,
        detail: impl Into<Cow<'a, str>>,
    ) -> Self {
        Self {
            status,
            code,
            title,
            detail: detail.into(),
            errors: Cow::Borrowed(&[]),
            counts: None,
            header: None,
        }
    }

    fn errors(self, errors: &'a [Violation]) -> Self {
        Self {
            errors: errors.into(),
            ..self
        }
    }

    fn counts(self, matched: usize, expected: usize) -> Self {
        Self {
            counts: Some((matched, expected)),
            ..self
        }
    }

    /// The whole problem is about this field.
    fn at(self, pointer: &str) -> Self {
        let error = Violation {
            place: Place::Pointer(pointer.to_owned()),
            code: self.code,
            detail: self.detail.to_string(),
        };
        Self {
            errors: vec![error].into(),
            ..self
        }
    }

    fn header(self, name: HeaderName, value: impl Into<Cow<'a, str>>) -> Self {
        Self {
            header: Some((name, value.into())),
            ..self
        }
    }
}

impl ApiError {
    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.problem().status
    }

    /// The stable word that programs decide by.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.problem().code
    }

    pub(crate) fn problem(&self) -> Problem<'_> {
        use StatusCode as S;
        match self {
            Self::InvalidQuery(errors) => Problem::new(S::BAD_REQUEST, "invalid_query", "The query is not valid", counted(errors, "query parameter")).errors(errors),
            Self::InvalidPageToken => Problem::new(S::BAD_REQUEST, "invalid_page_token", "The page token is not valid", "use a next_page_token of a list with the same filter and order"),
            Self::InvalidHeader(error) => Problem::new(S::BAD_REQUEST, "invalid_header", "A header is not valid", error.detail.as_str()).errors(std::slice::from_ref(error)),
            Self::InvalidJson(detail) => Problem::new(S::BAD_REQUEST, "invalid_json", "The body is not JSON", detail.as_str()),
            Self::InvalidRequest(detail) => Problem::new(S::BAD_REQUEST, "invalid_request", "The request cannot be read", *detail),
            Self::Unauthenticated => Problem::new(S::UNAUTHORIZED, "unauthenticated", "A valid token is needed", "send the header Authorization: Bearer TOKEN").header(WWW_AUTHENTICATE, "Bearer"),
            Self::Forbidden { needed } => Problem::new(S::FORBIDDEN, "forbidden", "The token's scope does not reach", format!("the scope {needed} is needed")),
            Self::PeerNotAllowed => Problem::new(S::FORBIDDEN, "peer_not_allowed", "This user may not use the socket", "only the service's own user and root may use the unix socket"),
            Self::OriginNotAllowed => Problem::new(S::FORBIDDEN, "origin_not_allowed", "Requests from other origins are refused", "a browser sent this request for a page of another origin"),
            Self::PolicyForbids(detail) => Problem::new(S::FORBIDDEN, "policy_forbids", "The command policy does not allow this", *detail),
            Self::PrivilegeRequired { detail, pointer } => Problem::new(S::FORBIDDEN, "privilege_required", "The service lacks the privilege", detail.as_str()).at(pointer),
            Self::SandboxRequired { detail, pointer } => Problem::new(S::FORBIDDEN, "sandbox_required", "The service requires a sandbox", detail.as_str()).at(pointer),
            Self::NotFound => Problem::new(S::NOT_FOUND, "not_found", "There is nothing at this path", "openapi.yaml lists the paths"),
            Self::JobNotFound => Problem::new(S::NOT_FOUND, "job_not_found", "There is no such job", "no job has this id, or its record has expired"),
            Self::QueueNotFound => Problem::new(S::NOT_FOUND, "queue_not_found", "There is no such queue", "this queue has no settings and no jobs; a name has 1 to 63 letters, digits, '-', '_' and '.'"),
            Self::BatchNotFound => Problem::new(S::NOT_FOUND, "batch_not_found", "There is no such batch", "no batch has this id, or its record has expired"),
            Self::BatchNotFinished => Problem::new(S::CONFLICT, "batch_not_finished", "The batch has not finished", "some of its jobs are still waiting or running"),
            Self::BatchJobsExpired => Problem::new(S::CONFLICT, "batch_jobs_expired", "Records of its jobs have expired", "their specs are gone with their records: submit the batch again"),
            Self::NothingToRerun => Problem::new(S::CONFLICT, "nothing_to_rerun", "Nothing is left to run again", "all jobs of the batch have succeeded: `{\"only\": \"all\"}` runs them again"),
            Self::SecretsUnknown => Problem::new(S::UNPROCESSABLE_ENTITY, "secrets_unknown", "The values of secrets are gone", "jobs or webhooks of the batch have secrets, and those are erased when a job ends: submit the batch again"),
            Self::DependedOn => Problem::new(S::CONFLICT, "depended_on", "Unfinished jobs depend on it", "it can be removed once the jobs that depend on it have ended"),
            Self::CountDiffers { matched, expected, truncated } => Problem::new(S::CONFLICT, "count_differs", "Another number of jobs matches", format!("{}{matched} jobs match and {expected} were expected; nothing was done", if *truncated { "more than " } else { "" })).counts(*matched, *expected),
            Self::NoWorkspace => Problem::new(S::CONFLICT, "no_workspace", "The job has no workspace", "it was created without `workspace`, `inputs` and `artifacts`"),
            Self::FileNotFound => Problem::new(S::NOT_FOUND, "file_not_found", "There is no such file", "the job's workspace has no file of this name, or none was kept"),
            Self::NotAFile => Problem::new(S::CONFLICT, "not_a_file", "The path is not a file of the job", "it is a directory, a link, a pipe or somebody else's file, or it leads through a file"),
            Self::InvalidPath(error) => Problem::new(S::UNPROCESSABLE_ENTITY, "invalid_path", "A file cannot have this path", error.to_string()),
            Self::InvalidArchive(why) => Problem::new(S::UNPROCESSABLE_ENTITY, "invalid_archive", "The archive cannot be unpacked", why.as_str()),
            Self::ScheduleNotFound => Problem::new(S::NOT_FOUND, "schedule_not_found", "There is no such schedule", "no schedule has this name; one has 1 to 63 letters, digits, '-', '_' and '.'"),
            Self::QueueInUse => Problem::new(S::CONFLICT, "queue_in_use", "The queue is in use", "jobs wait or run in it; with `force` they continue without its limits"),
            Self::TokenNotFound => Problem::new(S::NOT_FOUND, "token_not_found", "There is no such token", "no token has this name"),
            Self::TokenExists(name) => Problem::new(S::CONFLICT, "token_exists", "The name is taken", format!("there is a token {name} already; revoke it first, or choose another name")).at("/name"),
            Self::TooManyTokens => Problem::new(S::CONFLICT, "too_many_tokens", "There are too many tokens", "there are 1000 tokens already; revoke some first"),
            Self::NoTokens => Problem::new(S::CONFLICT, "no_tokens", "The service asks for no token", "it runs with --auth none"),
            Self::ConcurrencyConflict(holder) => Problem::new(S::CONFLICT, "concurrency_conflict", "The key is taken", format!("job {holder} has the key")),
            Self::MethodNotAllowed { allow } => Problem::new(S::METHOD_NOT_ALLOWED, "method_not_allowed", "The path has no such method", format!("allowed here: {allow}")).header(ALLOW, allow.as_str()),
            Self::NotAcceptable { offered } => Problem::new(S::NOT_ACCEPTABLE, "not_acceptable", "No acceptable media type is offered", format!("offered: {}", offered.join(", "))),
            Self::BodyTimeout => Problem::new(S::REQUEST_TIMEOUT, "body_timeout", "The body did not come in time", "send the whole body within 15 seconds"),
            Self::UploadTimeout => Problem::new(S::REQUEST_TIMEOUT, "body_timeout", "The body did not come in time", "send at least 30 KiB of a file in any 30 seconds"),
            Self::Refused(refusal @ Refusal::NotStarted) => Problem::new(S::CONFLICT, "job_not_started", "The job has not started", refusal.to_string()),
            Self::Refused(refusal @ Refusal::Stopping) => Problem::new(S::CONFLICT, "job_stopping", "The job is stopping", refusal.to_string()),
            Self::Refused(refusal @ Refusal::Finished) => Problem::new(S::CONFLICT, "job_already_finished", "The job has finished", refusal.to_string()),
            Self::SignalFailed(errno) => Problem::new(S::CONFLICT, "signal_failed", "The signal could not be sent", format!("the kernel says: {}", errno.desc())),
            Self::NotQueued => Problem::new(S::CONFLICT, "job_not_queued", "The job is not queued", "this is possible only while the job waits"),
            Self::CursorExpired => Problem::new(S::GONE, "cursor_expired", "The cursor has expired", "the events after it are no longer kept, or it was never valid: start again without a cursor"),
            Self::PreconditionFailed => Problem::new(S::PRECONDITION_FAILED, "precondition_failed", "It has changed", "read it again and send its current ETag"),
            Self::StdinClosed => Problem::new(S::CONFLICT, "stdin_closed", "Standard input is closed", "the job was not given an open standard input, or it has been closed"),
            Self::StdinOffset { expected: Some(expected) } => Problem::new(S::CONFLICT, "stdin_offset_mismatch", "Standard input is at another offset", format!("{expected} bytes have been written")).header(STDIN_OFFSET, expected.to_string()),
            Self::StdinOffset { expected: None } => Problem::new(S::CONFLICT, "stdin_offset_mismatch", "Standard input is at another offset", "the job's monitor was replaced, and the number of bytes written is not known"),
            Self::StdinTaken => Problem::new(S::CONFLICT, "stdin_taken", "Another client is writing to standard input", "attach without `stdin` to read along, or try again when that client has left"),
            Self::NoTerminal => Problem::new(S::CONFLICT, "no_terminal", "The job has no terminal", "it was created without `pty`"),
            Self::BodyTooLarge(limit) => Problem::new(S::PAYLOAD_TOO_LARGE, "body_too_large", "The body is too large", format!("at most {limit} bytes are read")),
            Self::HeadTooLarge => Problem::new(S::REQUEST_HEADER_FIELDS_TOO_LARGE, "head_too_large", "The request head is too large", "at most 32 KiB and 64 headers are read"),
            Self::UnsupportedMediaType(wanted) => Problem::new(S::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", "The body is of the wrong media type", format!("send Content-Type: {wanted}")),
            Self::RangeNotSatisfiable { length } => Problem::new(S::RANGE_NOT_SATISFIABLE, "range_not_satisfiable", "No byte of the range exists", format!("there are currently {length} bytes, and the oldest may be gone")).header(CONTENT_RANGE, format!("bytes */{length}")),
            Self::HostNotAllowed => Problem::new(S::MISDIRECTED_REQUEST, "host_not_allowed", "The host is not allowed", "use a loopback name, an IP address or a name given with --allowed-host"),
            Self::InvalidSpec(errors) => Problem::new(S::UNPROCESSABLE_ENTITY, "invalid_spec", "The job specification is not valid", counted(errors, "field")).errors(errors),
            Self::InvalidBody(errors) => Problem::new(S::UNPROCESSABLE_ENTITY, "invalid_body", "The body is not valid", counted(errors, "field")).errors(errors),
            Self::NoSuchTemplate => Problem::new(S::UNPROCESSABLE_ENTITY, "no_such_template", "There is no such template", "the policy of this service has no template of this name"),
            Self::NoSuchUser { detail, pointer } => Problem::new(S::UNPROCESSABLE_ENTITY, "no_such_user", "There is no such user or group", detail.as_str()).at(pointer),
            Self::ContainmentUnavailable { detail, pointer } => Problem::new(S::UNPROCESSABLE_ENTITY, "containment_unavailable", "This host cannot limit a job that way", detail.as_str()).at(pointer),
            Self::SandboxUnavailable { detail, pointer } => Problem::new(S::UNPROCESSABLE_ENTITY, "sandbox_unavailable", "This host cannot confine the job that way", detail.as_str()).at(pointer),
            Self::KeyReused => Problem::new(S::UNPROCESSABLE_ENTITY, "idempotency_key_reused", "The idempotency key was used with another body", "a new job needs a new key"),
            Self::UpgradeRequired => Problem::new(S::UPGRADE_REQUIRED, "upgrade_required", "A WebSocket handshake is needed", "connect with WebSocket (RFC 6455), version 13, and the sub-protocol v5.channel.k8s.io or v4.channel.k8s.io").header(UPGRADE, "websocket"),
            Self::TooManyStreams { most } => Problem::new(S::TOO_MANY_REQUESTS, "too_many_streams", "Too many streams are open", format!("{most} streams and WebSockets are open, the limit that --max-streams sets")).header(RETRY_AFTER, "1"),
            Self::QueueFull => Problem::new(S::TOO_MANY_REQUESTS, "queue_full", "The queue is full", "the limit of waiting jobs is reached; try again later").header(RETRY_AFTER, "1"),
            Self::Internal(_) => Problem::new(S::INTERNAL_SERVER_ERROR, "internal", "Something went wrong", "the service's log has the reason under this request id"),
            Self::Draining => Problem::new(S::SERVICE_UNAVAILABLE, "draining", "The service accepts no new jobs", "running jobs continue; send new ones elsewhere or later").header(RETRY_AFTER, "30"),
            Self::NotReady(detail) => Problem::new(S::SERVICE_UNAVAILABLE, "not_ready", "The service is not ready", *detail).header(RETRY_AFTER, "1"),
            Self::MonitorUnavailable => Problem::new(S::SERVICE_UNAVAILABLE, "monitor_unavailable", "The job's monitor does not answer", "try again in a moment").header(RETRY_AFTER, "1"),
            Self::LedgerUnavailable => Problem::new(S::SERVICE_UNAVAILABLE, "ledger_unavailable", "The ledger of the cluster cannot be reached", "what runs continues; repeat the request with its Idempotency-Key").header(RETRY_AFTER, "5"),
            Self::NodeUnreachable => Problem::new(S::SERVICE_UNAVAILABLE, "node_unreachable", "The node that has the job is not connected", "GET /nodes shows when it was last heard; the job may still be running").header(RETRY_AFTER, "5"),
            Self::FilesUnavailable(why) => Problem::new(S::SERVICE_UNAVAILABLE, "files_unavailable", "The files of the job cannot be used at present", why).header(RETRY_AFTER, "1"),
            Self::NodeNotFound => Problem::new(S::NOT_FOUND, "node_not_found", "There is no such node", "no node of this name has joined, or it has been forgotten"),
            Self::NodeConnected => Problem::new(S::CONFLICT, "node_connected", "The node is connected", "stop the node first; only a node that will not come back can be forgotten"),
            Self::RunnerOnly => Problem::new(S::FORBIDDEN, "runner_only", "This is a node of a cluster", "jobs come from its hub: send them there"),
            Self::StoreUnavailable => Problem::new(S::SERVICE_UNAVAILABLE, "store_unavailable", "The store cannot be used", "the disk of the state directory fails or is read-only, another program has locked the store, or the state directory was moved or removed; running jobs continue").header(RETRY_AFTER, "5"),
            Self::NoRoom => Problem::new(S::INSUFFICIENT_STORAGE, "no_room", "There is no room", "free disk space is below --min-free-bytes, or all workspaces together have reached --max-workspaces-bytes"),
        }
    }
}

fn counted(errors: &[Violation], what: &str) -> String {
    match errors {
        [one] => format!("{}: {}", place(one), one.detail),
        _ => format!("{} {what}s are not valid", errors.len()),
    }
}

fn place(violation: &Violation) -> &str {
    match &violation.place {
        Place::Pointer(pointer) if pointer.is_empty() => "the body",
        Place::Pointer(name) | Place::Parameter(name) => name,
        Place::Header(name) => name,
    }
}

/// One of each, for tests.
#[cfg(test)]
pub(crate) fn examples() -> Vec<ApiError> {
    let words = String::new;
    let violation = || Violation {
        place: Place::Header("Accept"),
        code: "conflict",
        detail: words(),
    };
    let (detail, pointer) = (words, words);
    vec![
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
        ApiError::BatchNotFound,
        ApiError::BatchNotFinished,
        ApiError::BatchJobsExpired,
        ApiError::NothingToRerun,
        ApiError::SecretsUnknown,
        ApiError::DependedOn,
        ApiError::CountDiffers {
            matched: 2,
            expected: 1,
            truncated: false,
        },
        ApiError::NoWorkspace,
        ApiError::FileNotFound,
        ApiError::NotAFile,
        ApiError::InvalidPath(job::workspace::PathError::Leads),
        ApiError::InvalidArchive(words()),
        ApiError::ScheduleNotFound,
        ApiError::QueueInUse,
        ApiError::TokenNotFound,
        ApiError::TokenExists(words()),
        ApiError::TooManyTokens,
        ApiError::NoTokens,
        ApiError::ConcurrencyConflict(job::JobId::from_bytes([0; 16])),
        ApiError::MethodNotAllowed { allow: words() },
        ApiError::NotAcceptable { offered: &[] },
        ApiError::BodyTimeout,
        ApiError::UploadTimeout,
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
        ApiError::LedgerUnavailable,
        ApiError::NodeUnreachable,
        ApiError::FilesUnavailable(String::new()),
        ApiError::NodeNotFound,
        ApiError::NodeConnected,
        ApiError::RunnerOnly,
        ApiError::StoreUnavailable,
        ApiError::NoRoom,
    ]
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;

    use super::*;

    #[test]
    fn every_error_is_one_and_can_be_answered() {
        for error in examples() {
            let problem = error.problem();
            assert!(problem.status.as_u16() >= 400, "{error:?}");
            let _ = error.into_response();
        }
    }
}
