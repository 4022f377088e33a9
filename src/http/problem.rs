//! Everything that can go wrong in the API, as status, stable code and RFC 9457 body.
//!
//! The only map from the errors of the layers below to HTTP. An internal error has two texts: the
//! client gets the request id, the log gets the cause.

mod catalogue;
mod convert;
mod render;

use std::sync::Arc;

use axum::http::HeaderValue;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

#[cfg(test)]
pub(super) use catalogue::examples;
use job::JobId;
use job::life::Refusal;
use job::workspace::PathError;
pub(super) use render::{AsItIs, panicked, render};

/// The media type of an error body.
pub const PROBLEM_JSON: &str = "application/problem+json";

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
    /// No batch has this id.
    BatchNotFound,
    /// Not all jobs of the batch have ended.
    BatchNotFinished,
    /// Records of jobs of the batch have been removed.
    BatchJobsExpired,
    /// All jobs of the batch have succeeded.
    NothingToRerun,
    /// Values of secrets are not known any more.
    SecretsUnknown,
    /// Unfinished jobs depend on it.
    DependedOn,
    /// Other jobs match than those that the client has counted.
    CountDiffers {
        /// So many match; of more than 10 000 only that there are more is known.
        matched: usize,
        /// So many should.
        expected: usize,
        /// There are more than `matched`.
        truncated: bool,
    },
    /// The job has no directory of its own.
    NoWorkspace,
    /// Nothing of this name is in the job's workspace.
    FileNotFound,
    /// What is there is no file of the job.
    NotAFile,
    /// A file cannot have this path.
    InvalidPath(PathError),
    /// An archive cannot be unpacked.
    InvalidArchive(String),
    /// No schedule has this name.
    ScheduleNotFound,
    /// Jobs wait or run in the queue.
    QueueInUse,
    /// No token has this name.
    TokenNotFound,
    /// A token has this name already.
    TokenExists(String),
    /// More would slow every request.
    TooManyTokens,
    /// The service asks for no token.
    NoTokens,
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
    /// A file comes too slowly.
    UploadTimeout,
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
        /// Where it is; `None` if nobody knows.
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
    /// PostgreSQL cannot be reached, or the API node that leads.
    LedgerUnavailable,
    /// The node that has the job is not connected at present.
    NodeUnreachable,
    /// The files of the job cannot be used at present, for this reason.
    FilesUnavailable(String),
    /// No node has this name.
    NodeNotFound,
    /// The node is connected, and is not given up.
    NodeConnected,
    /// Jobs come from the hub alone.
    RunnerOnly,
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
                | Self::RunnerOnly
                | Self::PrivilegeRequired { .. }
        )
    }
}

impl IntoResponse for ApiError {
    /// Status and headers; `render` writes the body, since only it knows the request id.
    fn into_response(self) -> Response {
        let problem = self.problem();
        let mut response = problem.status.into_response();
        if let Some((name, value)) = problem.header {
            let value = HeaderValue::from_str(&value).expect("made of visible ASCII");
            response.headers_mut().insert(name, value);
        }
        response.extensions_mut().insert(Arc::new(self));
        response
    }
}
