//! How long a connection may take: little for the head of a request, much between two requests.
//!
//! The HTTP library has one timer for both. What the bytes mean is not known here.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;

/// Where in its conversation a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Between two requests.
    Idle,
    /// The head of a request is coming; each has another number.
    Head(u64),
    /// A request is being answered.
    Busy,
}

/// The pace of one connection.
#[derive(Clone, Debug)]
pub(super) struct Pace(Arc<watch::Sender<(Phase, u64)>>);

impl Pace {
    /// A new connection: the head of its first request must come.
    pub(super) fn new() -> Self {
        Self(Arc::new(watch::Sender::new((Phase::Head(0), 0))))
    }

    /// A head has come.
    pub(super) fn asked(&self) {
        self.0.send_modify(|(phase, _)| *phase = Phase::Busy);
    }

    fn bytes_came(&self) {
        self.0.send_if_modified(|(phase, heads)| {
            let begins = *phase == Phase::Idle;
            if begins {
                *heads += 1;
                *phase = Phase::Head(*heads);
            }
            begins
        });
    }

    /// Resolves when a head has taken longer than this.
    pub(super) async fn too_slow(&self, limit: Duration) {
        let mut phases = self.0.subscribe();
        loop {
            let is_head = |(phase, _): &(Phase, u64)| matches!(phase, Phase::Head(_));
            // The sender is held by `self`.
            let Ok(head) = phases.wait_for(is_head).await.map(|head| head.0) else {
                return std::future::pending().await;
            };
            let passes = phases.wait_for(|(phase, _)| *phase != head);
            if tokio::time::timeout(limit, passes).await.is_err() {
                return;
            }
        }
    }
}

/// A stream that says when bytes come.
pub(super) struct Heard<S> {
    pub(super) stream: S,
    pub(super) pace: Pace,
}

impl<S: AsyncRead + Unpin> AsyncRead for Heard<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(context, buffer))?;
        if buffer.filled().len() > before {
            this.pace.bytes_came();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Heard<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(context, slices)
    }
}

/// The body of an answer; with its end the connection is between two requests.
pub(super) struct Answer {
    pub(super) body: Body,
    pub(super) pace: Pace,
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.pace.0.send_modify(|(phase, _)| *phase = Phase::Idle);
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_millis(20);

    async fn is_too_slow(pace: &Pace) -> bool {
        tokio::time::timeout(LIMIT * 10, pace.too_slow(LIMIT))
            .await
            .is_ok()
    }

    #[tokio::test]
    async fn heads_have_little_time_and_what_is_between_them_has_none() {
        let pace = Pace::new();
        assert!(is_too_slow(&pace).await, "nothing was ever asked");
        pace.asked();
        pace.bytes_came();
        assert!(!is_too_slow(&pace).await, "a request is being answered");
        let body = Body::empty();
        drop(Answer {
            body,
            pace: pace.clone(),
        });
        assert!(!is_too_slow(&pace).await, "it is between two requests");
        pace.bytes_came();
        assert!(is_too_slow(&pace).await, "a head does not come to its end");
    }
}
