//! What proxies have to know about answers that continue.

use axum::body::HttpBody;
use axum::extract::Request;
use axum::http::HeaderValue;
use axum::http::header::{CACHE_CONTROL, CONTENT_LENGTH};
use axum::middleware::Next;
use axum::response::Response;

use crate::headers::X_ACCEL_BUFFERING;

/// Middleware that marks every answer whose length is not known: what there is of it is to be passed on
/// at once and as it is. A proxy would else hold it back until a buffer is full or the answer ends.
pub(crate) async fn pass_on(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let has_length = response.headers().contains_key(CONTENT_LENGTH);
    if response.body().size_hint().exact().is_none() && !has_length {
        let headers = response.headers_mut();
        headers.insert(X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
        let uncached = HeaderValue::from_static("no-store, no-transform");
        headers.insert(CACHE_CONTROL, uncached);
    }
    response
}
