//! What is left of a body when its request is refused.
//!
//! A connection that is closed while its client sends breaks the client's sending, and most clients then never read
//! the answer. So the rest is taken for a moment, and dropped.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::http::header::EXPECT;
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Frame, SizeHint};
use tokio::sync::oneshot;

/// How long the rest is taken, and how much of it: some bodies at their default limit.
const MOMENT: Duration = Duration::from_secs(2);
const MOST: usize = 8 << 20;

/// Middleware that takes the rest of a body before a refusal is sent.
pub(crate) async fn take(request: Request, next: Next) -> Response {
    if request.body().is_end_stream() {
        return next.run(request).await;
    }
    // Who waits for a word before it sends has sent nothing.
    let waits = request.headers().contains_key(EXPECT);
    let (back, mut rest) = oneshot::channel();
    let request = request.map(|body| {
        Body::new(Lent {
            body: Some(body),
            back: Some(back),
            is_begun: !waits,
        })
    });
    let response = next.run(request).await;
    let is_refused = response.status().is_client_error() || response.status().is_server_error();
    if is_refused && let Ok(body) = rest.try_recv() {
        let _ = tokio::time::timeout(MOMENT, drain(body)).await;
    }
    response
}

async fn drain(mut body: Body) {
    let mut taken = 0;
    while taken < MOST
        && let Some(Ok(frame)) = body.frame().await
    {
        taken += frame.data_ref().map_or(0, Bytes::len);
    }
}

/// A body that comes back if it was not read to its end.
struct Lent {
    body: Option<Body>,
    back: Option<oneshot::Sender<Body>>,
    /// The client sends it.
    is_begun: bool,
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let (Some(body), Some(back)) = (self.body.take(), self.back.take())
            && self.is_begun
            && !body.is_end_stream()
        {
            // Nobody waits for it if the connection is gone.
            let _ = back.send(body);
        }
    }
}

impl HttpBody for Lent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.get_mut();
        this.is_begun = true;
        match &mut this.body {
            Some(body) => Pin::new(body).poll_frame(context),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map(Body::size_hint).unwrap_or_default()
    }
}
