//! Everything that can go wrong in the API, as status, stable code and RFC 9457 body.
//!
//! The only map from the errors of the layers below to HTTP. An internal error has two texts: the
//! client gets the request id, the log gets the cause.

mod words;

use std::any::Any;
use std::borrow::Cow;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::request_id;
use crate::job::life::Refusal;
use crate::job::parse::{BodyError, FieldError};
use crate::manager::{RequestError, SubmitError, Unavailable};
use crate::store::StoreError;

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
    "method_not_allowed",
    "not_acceptable",
    "body_timeout",
    "job_not_started",
    "job_stopping",
    "job_already_finished",
    "job_not_queued",
    "signal_failed",
    "stdin_closed",
    "stdin_offset_mismatch",
    "precondition_failed",
    "body_too_large",
    "unsupported_media_type",
    "range_not_satisfiable",
    "head_too_large",
    "host_not_allowed",
    "invalid_spec",
    "invalid_body",
    "no_such_user",
    "no_such_template",
    "containment_unavailable",
    "idempotency_key_reused",
    "queue_full",
    "internal",
    "draining",
    "not_ready",
    "monitor_unavailable",
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

impl From<FieldError> for Violation {
    fn from(error: FieldError) -> Self {
        Self {
            place: Place::Pointer(error.pointer),
            code: error.code,
            detail: error.detail,
        }
    }
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
    /// Standard input takes nothing, or nothing any more.
    StdinClosed,
    /// Standard input is at another offset.
    StdinOffset {
        /// Where it is; `None` where nobody knows.
        expected: Option<u64>,
    },
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
    /// The idempotency key was used with another body.
    KeyReused,
    /// As many jobs wait as may.
    QueueFull,
    /// Our bug, or a failing disk; the text is for the log only.
    Internal(String),
    /// No new jobs are accepted any more.
    Draining,
    /// Not ready for jobs, and why.
    NotReady(&'static str),
    /// The job's monitor does not answer at present.
    MonitorUnavailable,
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

/// The body of RFC 9457.
#[derive(Serialize)]
struct Problem<'a> {
    #[serde(rename = "type")]
    kind: String,
    title: &'static str,
    status: u16,
    detail: Cow<'a, str>,
    code: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<Violation>,
    request_id: &'a str,
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

/// Middleware that writes the body of every error response and logs the internal ones.
pub(super) async fn render(request: Request, next: Next) -> Response {
    let request_id = request_id::of(&request);
    let head = request.method() == Method::HEAD;
    let mut response = next.run(request).await;
    let error = match response.extensions_mut().remove::<Arc<ApiError>>() {
        Some(error) => error,
        None if response.status().is_client_error() || response.status().is_server_error() => {
            // Every rejection of the framework has its own error here; one that has not is our bug.
            let status = response.status();
            let error = ApiError::Internal(format!("a rejection without a problem: {status}"));
            *response.status_mut() = error.status();
            Arc::new(error)
        }
        None => return response,
    };
    if let ApiError::Internal(cause) = &*error {
        tracing::error!(request.id = %request_id, cause, "request {request_id} failed: {cause}");
    }
    let problem = Problem {
        kind: format!("urn:procession:problem:{}", error.code()),
        title: error.title(),
        status: error.status().as_u16(),
        detail: error.detail(),
        code: error.code(),
        errors: error.violations(),
        request_id: &request_id,
    };
    let body = serde_json::to_vec(&problem).expect("strings and numbers");
    let content_type = HeaderValue::from_static(PROBLEM_JSON);
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    *response.body_mut() = if head {
        Body::empty()
    } else {
        Body::from(body)
    };
    response
}

/// The answer to a request whose handler panicked. The panic hook has logged the place.
pub(super) fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let text = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_default();
    ApiError::Internal(format!("panic: {text}")).into_response()
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        Self::Internal(error.to_string())
    }
}

impl From<Unavailable> for ApiError {
    fn from(error: Unavailable) -> Self {
        let detail = error.to_string();
        match error {
            Unavailable::NoSuchUser { pointer, .. } => Self::NoSuchUser { detail, pointer },
            Unavailable::NeedsPrivilege { pointer, .. } => {
                Self::PrivilegeRequired { detail, pointer }
            }
            Unavailable::RootDenied => Self::PrivilegeRequired {
                detail,
                pointer: "/user".to_owned(),
            },
            Unavailable::Containment { pointer, .. } => {
                Self::ContainmentUnavailable { detail, pointer }
            }
        }
    }
}

impl From<SubmitError> for ApiError {
    fn from(error: SubmitError) -> Self {
        match error {
            SubmitError::QueueFull => Self::QueueFull,
            SubmitError::Draining => Self::Draining,
            SubmitError::KeyReused => Self::KeyReused,
            SubmitError::Unavailable(unavailable) => unavailable.into(),
            SubmitError::NoRoom => Self::NoRoom,
            SubmitError::Store(error) if error.full => Self::NoRoom,
            SubmitError::Store(error) => error.into(),
        }
    }
}

impl From<RequestError> for ApiError {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::NoSuchJob => Self::JobNotFound,
            RequestError::Refused(refusal) => Self::Refused(refusal),
            RequestError::Errno(errno) => Self::SignalFailed(errno),
            RequestError::Changed => Self::PreconditionFailed,
            RequestError::NotQueued => Self::NotQueued,
            RequestError::StdinClosed => Self::StdinClosed,
            RequestError::StdinOffset { expected } => Self::StdinOffset { expected },
            RequestError::MonitorGone => Self::MonitorUnavailable,
            RequestError::Store(error) => error.into(),
        }
    }
}

impl From<BodyError> for ApiError {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::Syntax { detail } => Self::InvalidJson(detail),
            BodyError::TooDeep => Self::InvalidJson("the body is nested too deeply".to_owned()),
            BodyError::Invalid(errors) => {
                Self::InvalidBody(errors.into_iter().map(Violation::from).collect())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::routing::get;
    use http_body_util::BodyExt;
    use tower::ServiceExt;
    use tower_http::catch_panic::CatchPanicLayer;

    use super::*;

    #[tokio::test]
    async fn a_panic_is_a_problem_that_says_nothing_about_it() {
        let app = Router::new()
            .route("/", get(async || -> Response { panic!("secret words") }))
            .layer(CatchPanicLayer::custom(panicked))
            .layer(axum::middleware::from_fn(render));
        let request = Request::get("/").body(Body::empty()).unwrap();
        let response = app.oneshot(request).await.unwrap();
        assert_eq!(response.status(), 500);
        assert_eq!(response.headers()[CONTENT_TYPE], PROBLEM_JSON);
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let text = String::from_utf8(body.to_vec()).unwrap();
        assert!(
            text.contains("\"internal\"") && !text.contains("secret"),
            "{text}"
        );
    }

    #[tokio::test]
    async fn a_rejection_that_nobody_foresaw_is_a_problem_too() {
        let app = Router::new()
            .route("/", get(async |_: axum::Extension<u8>| ()))
            .layer(axum::middleware::from_fn(render));
        let request = Request::get("/").body(Body::empty()).unwrap();
        let response = app.oneshot(request).await.unwrap();
        assert_eq!(response.status(), 500);
        assert_eq!(response.headers()[CONTENT_TYPE], PROBLEM_JSON);
    }

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
            ApiError::MethodNotAllowed { allow: words() },
            ApiError::NotAcceptable { offered: &[] },
            ApiError::BodyTimeout,
            ApiError::Refused(Refusal::NotStarted),
            ApiError::Refused(Refusal::Stopping),
            ApiError::Refused(Refusal::Finished),
            ApiError::SignalFailed(nix::errno::Errno::EPERM),
            ApiError::NotQueued,
            ApiError::PreconditionFailed,
            ApiError::StdinClosed,
            ApiError::StdinOffset { expected: Some(1) },
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
            ApiError::KeyReused,
            ApiError::QueueFull,
            ApiError::Internal(words()),
            ApiError::Draining,
            ApiError::NotReady(""),
            ApiError::MonitorUnavailable,
            ApiError::NoRoom,
        ];
        let codes: BTreeSet<_> = all.iter().map(ApiError::code).collect();
        assert_eq!(codes, ALL_CODES.iter().copied().collect());
        for error in all {
            assert!(error.status().as_u16() >= 400, "{error:?}");
            let _ = error.into_response();
        }
    }

    #[test]
    fn every_refusal_has_a_code_that_is_listed() {
        let store = |full| StoreError {
            doing: "reading",
            why: "hidden".to_owned(),
            full,
        };
        let unavailable = Unavailable::Containment {
            pointer: "/limits/pids".to_owned(),
            why: "no pids controller".to_owned(),
        };
        let errors: [(ApiError, u16); 13] = [
            (SubmitError::QueueFull.into(), 429),
            (SubmitError::Draining.into(), 503),
            (SubmitError::KeyReused.into(), 422),
            (SubmitError::Unavailable(unavailable).into(), 422),
            (SubmitError::NoRoom.into(), 507),
            (SubmitError::Store(store(false)).into(), 500),
            (SubmitError::Store(store(true)).into(), 507),
            (RequestError::NoSuchJob.into(), 404),
            (RequestError::Refused(Refusal::NotStarted).into(), 409),
            (RequestError::Refused(Refusal::Finished).into(), 409),
            (RequestError::Errno(nix::errno::Errno::EPERM).into(), 409),
            (RequestError::MonitorGone.into(), 503),
            (BodyError::TooDeep.into(), 400),
        ];
        for (error, status) in errors {
            assert_eq!(error.status().as_u16(), status, "{error:?}");
            assert!(ALL_CODES.contains(&error.code()), "{error:?}");
            assert!(!error.detail().contains("hidden"), "{error:?}");
        }
    }
}
