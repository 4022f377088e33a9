//! The id of a request: in the header `Request-Id`, in every log line and in every error body.

use axum::extract::Request;
use axum::http::HeaderValue;
use axum::middleware::Next;
use axum::response::Response;
use tower_http::request_id::{MakeRequestId, RequestId};
use uuid::Uuid;

use crate::headers::REQUEST_ID;

/// Makes UUIDv7s.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MakeId;

impl MakeRequestId for MakeId {
    fn make_request_id<B>(&mut self, _: &axum::http::Request<B>) -> Option<RequestId> {
        let id = Uuid::now_v7().to_string();
        let value = HeaderValue::from_str(&id).expect("hexadecimal digits and hyphens");
        Some(RequestId::new(value))
    }
}

/// Middleware that forgets a client's id that could disturb a log.
pub(crate) async fn only_tame(mut request: Request, next: Next) -> Response {
    let tame = request
        .headers()
        .get(REQUEST_ID)
        .is_none_or(|id| is_tame(id.as_bytes()));
    if !tame {
        request.headers_mut().remove(REQUEST_ID);
    }
    next.run(request).await
}

fn is_tame(id: &[u8]) -> bool {
    (1..=128).contains(&id.len())
        && id
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(byte))
}

/// The id of this request.
pub(crate) fn of(request: &Request) -> String {
    request
        .extensions()
        .get::<RequestId>()
        .and_then(|id| id.header_value().to_str().ok())
        .unwrap_or_default()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::is_tame;

    #[test]
    fn an_id_of_a_client_must_not_disturb_a_log() {
        assert!(is_tame(b"0198c1d2-7b3a-7c4e-9f10-2a6b3c4d5e6f"));
        assert!(is_tame(b"trace.7:span_1"));
        for id in [&b""[..], b"a b", b"a\"b", b"\xff", &[b'a'; 129]] {
            assert!(!is_tame(id), "{id:?}");
        }
    }
}
