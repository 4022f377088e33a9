//! The route on a job's standard input.
//!
//! The body continues in packets, each taken from the client only when the job's pipe has taken the one
//! before: a job that does not read holds the client up, and costs no memory.

use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http_body_util::BodyExt;

use crate::api::Api;
use crate::extract::InPath;
use crate::headers::STDIN_OFFSET;
use crate::problem::ApiError;
use crate::query::Params;
use job::JobId;
use manager::{INPUT_BYTES, Manager, RequestError};

/// The parameters of [`write`].
pub(super) const WRITE: &[&str] = &["eof", "offset"];

/// `POST /jobs/{id}/stdin`
pub(super) async fn write(
    State(api): State<Api>,
    InPath(id): InPath,
    mut params: Params,
    request: Request,
) -> Result<Response, ApiError> {
    let eof = params.flag("eof");
    let offset = params.integer("offset");
    params.finish()?;
    let mut input = Input {
        manager: &api.manager,
        id,
        is_checked: offset.is_some(),
        offset,
        is_begun: false,
    };
    let mut body = request.into_body();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| ApiError::InvalidRequest("the body ends too soon"))?;
        if let Ok(bytes) = frame.into_data() {
            input.write(&bytes).await?;
        }
    }
    if eof || !input.is_begun {
        input.packet(&Bytes::new(), eof).await?;
    }
    let mut response = StatusCode::NO_CONTENT.into_response();
    if let Some(offset) = input.offset {
        let headers = response.headers_mut();
        headers.insert(STDIN_OFFSET, HeaderValue::from(offset));
    }
    Ok(response)
}

/// The input of one request.
struct Input<'a> {
    manager: &'a Manager,
    id: JobId,
    /// The client says where its bytes belong: another writer in between is noticed.
    is_checked: bool,
    offset: Option<u64>,
    is_begun: bool,
}

impl Input<'_> {
    async fn write(&mut self, bytes: &Bytes) -> Result<(), RequestError> {
        let mut rest = bytes.clone();
        while !rest.is_empty() {
            let packet = rest.split_to(rest.len().min(INPUT_BYTES));
            self.packet(&packet, false).await?;
        }
        Ok(())
    }

    async fn packet(&mut self, packet: &Bytes, eof: bool) -> Result<(), RequestError> {
        self.is_begun = true;
        let expected = self.offset.filter(|_| self.is_checked);
        let written = self.manager.write_stdin(self.id, expected, packet, eof);
        self.offset = Some(written.await?);
        Ok(())
    }
}
