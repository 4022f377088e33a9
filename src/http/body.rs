//! Reading a JSON body: media type first, then no more bytes and no longer than allowed.

use std::time::Duration;

use axum::extract::Request;
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};

use crate::problem::ApiError;

/// How long a client may take to send a body.
const DEADLINE: Duration = Duration::from_secs(15);

const JSON: &str = "application/json";
const MERGE_PATCH: &str = "application/merge-patch+json";

/// The whole body of a request that says it is JSON.
pub(super) async fn read_json(request: Request, limit: usize) -> Result<Bytes, ApiError> {
    read_within(request, &[JSON], limit, DEADLINE).await
}

/// The whole body of a request that says it is a merge patch (RFC 7396), or just JSON, which a route that takes
/// patches alone cannot misunderstand.
pub(super) async fn read_patch(request: Request, limit: usize) -> Result<Bytes, ApiError> {
    read_within(request, &[MERGE_PATCH, JSON], limit, DEADLINE).await
}

/// The same for a request that may have no body, which then stands for `absent`.
pub(super) async fn read_json_or(
    request: Request,
    limit: usize,
    absent: &'static str,
) -> Result<Bytes, ApiError> {
    if request.headers().contains_key(CONTENT_TYPE) {
        read_json(request, limit).await
    } else {
        Ok(Bytes::from_static(absent.as_bytes()))
    }
}

async fn read_within(
    request: Request,
    kinds: &'static [&'static str],
    limit: usize,
    deadline: Duration,
) -> Result<Bytes, ApiError> {
    if !kinds.iter().any(|kind| is_of(request.headers(), kind)) {
        return Err(ApiError::UnsupportedMediaType(kinds[0]));
    }
    // Its bytes are no JSON, and what they are would be said of the client's JSON.
    let codings = request.headers().get_all(CONTENT_ENCODING);
    if codings
        .iter()
        .any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity"))
    {
        return Err(ApiError::UnsupportedMediaType(
            "application/json without Content-Encoding",
        ));
    }
    let announced = request
        .headers()
        .get(CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|length| length > limit) {
        return Err(ApiError::BodyTooLarge(limit));
    }
    let body = Limited::new(request.into_body(), limit);
    match tokio::time::timeout(deadline, body.collect()).await {
        Err(_) => Err(ApiError::BodyTimeout),
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(ApiError::BodyTooLarge(limit)),
        Ok(Err(_)) => Err(ApiError::InvalidRequest("the body ends too soon")),
    }
}

/// This media type and nothing like it: another one would let a form of a web page through.
fn is_of(headers: &HeaderMap, kind: &str) -> bool {
    let mut values = headers.get_all(CONTENT_TYPE).iter();
    let (Some(only), None) = (values.next(), values.next()) else {
        return false;
    };
    let Ok(text) = only.to_str() else {
        return false;
    };
    let (essence, parameters) = text.split_once(';').unwrap_or((text, ""));
    let charset = parameters.trim().to_ascii_lowercase();
    essence.trim().eq_ignore_ascii_case(kind)
        && matches!(charset.as_str(), "" | "charset=utf-8" | "charset=\"utf-8\"")
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;

    fn request(content_type: &str, body: Body) -> Request {
        Request::builder()
            .header(CONTENT_TYPE, content_type)
            .body(body)
            .unwrap()
    }

    #[tokio::test]
    async fn only_json_is_read() {
        for good in ["application/json", "Application/JSON; charset=UTF-8"] {
            let request = request(good, Body::from("{}"));
            assert_eq!(read_json(request, 9).await.unwrap(), "{}");
        }
        for bad in [
            "text/plain",
            "application/jsonx",
            "application/json; charset=latin1",
            "",
        ] {
            let error = read_json(request(bad, Body::from("{}")), 9)
                .await
                .unwrap_err();
            assert_eq!(error.code(), "unsupported_media_type", "{bad}");
        }
    }

    #[tokio::test]
    async fn a_patch_may_say_that_it_is_json() {
        for (kind, good) in [(MERGE_PATCH, true), (JSON, true), ("text/plain", false)] {
            let read = read_patch(request(kind, Body::from("{}")), 9).await;
            assert_eq!(read.is_ok(), good, "{kind}");
        }
    }

    #[tokio::test]
    async fn the_limit_holds_below_at_and_above() {
        for (length, fits) in [(9, true), (10, true), (11, false)] {
            let body = Body::from(vec![b' '; length]);
            let result = read_json(request("application/json", body), 10).await;
            assert_eq!(result.is_ok(), fits, "{length}");
        }
    }

    #[tokio::test]
    async fn a_body_that_never_ends_is_given_up() {
        let body =
            Body::from_stream(futures_util::stream::pending::<Result<Bytes, std::io::Error>>());
        let error = read_within(
            request("application/json", body),
            &[JSON],
            10,
            Duration::ZERO,
        )
        .await
        .unwrap_err();
        assert_eq!(error.code(), "body_timeout");
    }
}
