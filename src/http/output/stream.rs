//! One stream of a job's output as a file, with ranges: what was dropped from it is no part of the file.
//!
//! The order of the two streams, and following them, is not known here.

use std::io;

use axum::extract::State;
use axum::http::header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, RANGE};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::Response;

use super::kind::{self, Kind};
use super::{Download, Stretch, download_of, off_thread, raw, save_as, set};
use crate::api::Api;
use crate::extract::InPath;
use crate::headers::FIRST_POSITION;
use crate::problem::ApiError;
use crate::query::Params;
use crate::range::{self, Wanted};
use job::OutputTotals;
use protocol::output::{Piece, Reader, Stream};

/// The media types that one stream is offered as.
const OFFERED: &[&str] = &["text/plain", "application/octet-stream"];

/// `GET /jobs/{id}/output/stdout`
pub(crate) async fn stdout(
    api: State<Api>,
    id: InPath,
    params: Params,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    one_stream(api, id, params, &method, headers, Stream::Stdout).await
}

/// `GET /jobs/{id}/output/stderr`
pub(crate) async fn stderr(
    api: State<Api>,
    id: InPath,
    params: Params,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    one_stream(api, id, params, &method, headers, Stream::Stderr).await
}

async fn one_stream(
    State(api): State<Api>,
    InPath(id): InPath,
    mut params: Params,
    method: &Method,
    mut headers: HeaderMap,
    stream: Stream,
) -> Result<Response, ApiError> {
    let download = download_of(&mut params);
    params.finish()?;
    // Ranges are defined for GET alone.
    if method != Method::GET {
        headers.remove(RANGE);
    }
    let kind = Kind::of(&headers, OFFERED)?;
    // Asked first: what is complete then is complete when the totals are read.
    let job = api.manager.get(id).await?;
    let reader = api.manager.output(id).await?;
    let complete = job.output.complete && !super::is_unknown(&job, &reader);
    let plan = off_thread(move || plan_stream(reader, stream, &headers, complete)).await??;
    let status = if plan.range.is_some() {
        StatusCode::PARTIAL_CONTENT
    } else {
        StatusCode::OK
    };
    let complete = plan.complete && !plan.is_cut;
    let mut response = raw(status, kind.name(plan.is_text), Some(complete));
    set(&mut response, FIRST_POSITION, plan.first);
    plan.tell_losses(&mut response, id);
    if let Some(range) = &plan.range {
        let value = HeaderValue::from_str(range).expect("numbers");
        response.headers_mut().insert(CONTENT_RANGE, value);
    }
    if let Some(length) = plan.length {
        set(&mut response, CONTENT_LENGTH, length);
    }
    let bytes = HeaderValue::from_static("bytes");
    response.headers_mut().insert(ACCEPT_RANGES, bytes);
    *response.body_mut() = plan.stretch.into_body();
    save_as(&mut response, download);
    Ok(response)
}

pub(super) fn plan_stream(
    mut reader: Reader,
    stream: Stream,
    headers: &HeaderMap,
    complete: bool,
) -> Result<Download, ApiError> {
    let failed = |error: io::Error| ApiError::io("reading output", &error);
    let totals = reader.totals().map_err(failed)?;
    let oldest = reader
        .offset_of_stream_position(stream, 0)
        .map_err(failed)?;
    let written = length_of(&totals, stream);
    let is_lost = reader.lost_within(0, totals.next_offset).map_err(failed)?;
    let length = if is_lost {
        written
    } else {
        kept_end(&mut reader, stream, written).map_err(failed)?
    };
    let kept_from = oldest.position.min(length);
    let (first, next, range) = match range::wanted(headers, kept_from, length) {
        Wanted::Everything => (kept_from, length, None),
        Wanted::Part { first, last } => {
            let range = format!("bytes {first}-{last}/{length}");
            (first, last + 1, Some(range))
        }
        Wanted::Nothing => return Err(ApiError::RangeNotSatisfiable { length }),
    };
    let at = if first < next {
        let located = reader.offset_of_stream_position(stream, first);
        located.map_err(failed)?.offset
    } else {
        totals.next_offset
    };
    let is_text = kind::is_text(&mut reader, Some(stream));
    let left = next - first;
    Ok(Download {
        stretch: Stretch {
            reader,
            filter: Some(stream),
            at,
            end: totals.next_offset,
            left,
            // It has a length, which what is lost leaves unreached.
            is_cut: false,
        },
        first,
        next,
        complete: complete && next == length,
        length: Some(left),
        range,
        is_text,
        dropped: totals.dropped_bytes,
        is_cut: is_lost,
    })
}

/// The length of a stream of which `written` bytes were written, without what the output limit dropped at
/// the end: that belongs to no file.
fn kept_end(reader: &mut Reader, stream: Stream, written: u64) -> io::Result<u64> {
    let Some(last) = written.checked_sub(1) else {
        return Ok(0);
    };
    let located = reader.offset_of_stream_position(stream, last)?;
    if located.position < last {
        return Ok(located.position);
    }
    match reader.next(located.offset, Some(stream), 1)? {
        Some(Piece::Gap { .. }) if located.position == last => Ok(last),
        Some(Piece::Gap { .. } | Piece::Data { .. }) | None => Ok(written),
    }
}

fn length_of(totals: &OutputTotals, stream: Stream) -> u64 {
    match stream {
        Stream::Stdout => totals.stdout_bytes,
        Stream::Stderr => totals.stderr_bytes,
    }
}
