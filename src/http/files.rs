//! Routes on the files of a job: its workspace while it lives, what is kept of it afterwards.
//!
//! Contents go through in pieces: a file of any size takes no more memory than a small one.

pub(crate) mod archive;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::{FromRequestParts, Path, Request, State};
use axum::http::header::{
    ACCEPT_RANGES, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_SECURITY_POLICY,
    CONTENT_TYPE, ETAG, IF_NONE_MATCH, IF_RANGE, RANGE, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bytes::Bytes;
use futures_util::stream;
use http_body_util::BodyExt;
use serde::Serialize;
use tokio::time::{Instant, timeout_at};

use crate::api::Api;
use crate::extract::InPath;
use crate::problem::ApiError;
use crate::query::Params;
use crate::range;
use crate::{conditions, respond};
pub(super) use archive::{ARCHIVE, tar, tar_gz, zip};
use job::JobId;
use job::time::Timestamp;
use job::workspace::{FileMode, InnerPath, Unpack};
use manager::{FileEntry, FileKind, Opened, Upload, Wanted};

/// The parameters of [`list`].
pub(super) const LIST: &[&str] = &["path", "depth", "page_size", "page_token"];
/// The parameters of [`put`].
/// The parameters of [`get`].
pub(super) const FILE: &[&str] = &["ticket"];
pub(super) const PUT: &[&str] = &["mode", "unpack"];

/// How many entries a page has by default, and at most.
const PAGE: u64 = 1000;
const LARGEST_PAGE: u64 = 10_000;
/// So much is read at once, and so much is gathered before it is written.
const PIECE: usize = 256 << 10;
/// A file comes no slower than this, over this time.
const PACE: (u64, Duration) = (30 << 10, Duration::from_secs(30));

/// The job and the file that the path names.
#[derive(Clone, Debug)]
pub(super) struct FileInPath(JobId, InnerPath);

impl<S: Send + Sync> FromRequestParts<S> for FileInPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Ok(Path((id, path))) = Path::<(String, String)>::from_request_parts(parts, state).await
        else {
            return Err(ApiError::FileNotFound);
        };
        let id = id.parse().map_err(|_| ApiError::JobNotFound)?;
        let path = InnerPath::new(path).map_err(ApiError::InvalidPath)?;
        Ok(Self(id, path))
    }
}

#[derive(Debug, Serialize)]
struct FileList {
    files: Vec<FileView>,
    truncated: bool,
    next_page_token: Option<String>,
}

#[derive(Debug, Serialize)]
struct FileView {
    path: String,
    r#type: &'static str,
    bytes: u64,
    mode: String,
    modified_at: Timestamp,
    artifact: bool,
}

impl From<FileEntry> for FileView {
    fn from(entry: FileEntry) -> Self {
        Self {
            path: entry.path,
            r#type: match entry.kind {
                FileKind::File => "file",
                FileKind::Directory => "directory",
                FileKind::Symlink => "symlink",
            },
            bytes: entry.bytes,
            mode: format!("{:04o}", entry.mode),
            modified_at: entry.modified_at,
            artifact: entry.is_artifact,
        }
    }
}

/// `GET /jobs/{id}/files`
pub(super) async fn list(
    State(api): State<Api>,
    InPath(id): InPath,
    mut params: Params,
) -> Result<Response, ApiError> {
    let path = |text: &str| InnerPath::new(text.trim_end_matches('/')).ok();
    let beneath = params.parsed("path", "the path of a directory in the workspace", path);
    let depth = params.parsed("depth", "a whole number, 1 or more", |text| {
        text.parse().ok().filter(|depth: &usize| *depth > 0)
    });
    let size = params.parsed("page_size", "a whole number, 1 or more", |text| {
        text.parse().ok().filter(|size: &u64| *size > 0)
    });
    let token = params.text("page_token");
    params.finish()?;
    let after = token.map(|token| {
        let path = BASE64_URL_SAFE_NO_PAD.decode(token).ok();
        path.and_then(|path| String::from_utf8(path).ok())
            .ok_or(ApiError::InvalidPageToken)
    });
    let limit = size.unwrap_or(PAGE).min(LARGEST_PAGE);
    let wanted = Wanted {
        beneath,
        depth,
        after: after.transpose()?,
        limit: usize::try_from(limit).unwrap_or(1),
    };
    let listing = api.manager.files().list(id, wanted).await?;
    let last = listing.files.last().filter(|_| listing.more);
    let list = FileList {
        next_page_token: last.map(|last| BASE64_URL_SAFE_NO_PAD.encode(&last.path)),
        files: listing.files.into_iter().map(FileView::from).collect(),
        truncated: listing.truncated,
    };
    Ok(Json(list).into_response())
}

/// `GET /jobs/{id}/files/{path}`
pub(super) async fn get(
    State(api): State<Api>,
    FileInPath(id, path): FileInPath,
    method: Method,
    mut headers: HeaderMap,
) -> Result<Response, ApiError> {
    let Opened { file, bytes, tag } = api.manager.files().open(id, path.clone()).await?;
    if conditions::none_match_has(&headers, &tag) {
        let mut response = StatusCode::NOT_MODIFIED.into_response();
        respond::set(&mut response, ETAG, &tag);
        return Ok(response);
    }
    // The tag is a strong one: a range of this very file may be wanted.
    if headers
        .get(IF_RANGE)
        .is_some_and(|it| it.as_bytes() == tag.as_bytes())
    {
        headers.remove(IF_RANGE);
    }
    if method != Method::GET {
        headers.remove(RANGE);
    }
    let (status, first, length) = match range::wanted(&headers, 0, bytes) {
        range::Wanted::Everything => (StatusCode::OK, 0, bytes),
        range::Wanted::Part { first, last } => {
            (StatusCode::PARTIAL_CONTENT, first, last + 1 - first)
        }
        range::Wanted::Nothing => return Err(ApiError::RangeNotSatisfiable { length: bytes }),
    };
    let mut response = (status, contents(file, first, length)).into_response();
    if status == StatusCode::PARTIAL_CONTENT {
        let range = format!("bytes {first}-{}/{bytes}", first + length - 1);
        respond::set(&mut response, CONTENT_RANGE, &range);
    }
    respond::set(&mut response, ETAG, &tag);
    respond::set(&mut response, CONTENT_LENGTH, &length.to_string());
    respond::set(&mut response, ACCEPT_RANGES, "bytes");
    as_data(&mut response, "application/octet-stream", path.split().1);
    Ok(response)
}

/// Marks an answer as bytes that no browser shows or runs, to be saved under this name.
fn as_data(response: &mut Response, kind: &'static str, name: &str) {
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox"));
    let plain = |it: char| it.is_ascii_alphanumeric() || "-_. ".contains(it);
    let ascii: String = name
        .chars()
        .map(|it| if plain(it) { it } else { '_' })
        .collect();
    // RFC 8187.
    let bytes = name.bytes().map(|byte| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' => {
            char::from(byte).to_string()
        }
        _ => format!("%{byte:02X}"),
    });
    let encoded: String = bytes.collect();
    let value = format!("attachment; filename=\"{ascii}\"; filename*=UTF-8''{encoded}");
    if let Ok(value) = HeaderValue::try_from(value) {
        headers.insert(CONTENT_DISPOSITION, value);
    }
}

/// So many bytes of a file from here. If it has become shorter, the answer breaks off.
fn contents(file: File, first: u64, length: u64) -> Body {
    let stream = stream::try_unfold((file, first, length), async |(file, at, left)| {
        if left == 0 {
            return Ok::<_, io::Error>(None);
        }
        let wanted = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
        let read = tokio::task::spawn_blocking(move || {
            let mut piece = vec![0; wanted];
            let read = file.read_at(&mut piece, at)?;
            piece.truncate(read);
            Ok::<_, io::Error>((file, piece))
        });
        let (file, piece) = read.await.map_err(io::Error::other)??;
        let read = u64::try_from(piece.len()).unwrap_or_default();
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(Some((Bytes::from(piece), (file, at + read, left - read))))
    });
    Body::from_stream(stream)
}

/// `PUT /jobs/{id}/files/{path}`
pub(super) async fn put(
    State(api): State<Api>,
    FileInPath(id, path): FileInPath,
    mut params: Params,
    request: Request,
) -> Result<Response, ApiError> {
    let mode = params.parsed("mode", "an octal number from 0000 to 0777", |text| {
        FileMode::try_from(text.to_owned()).ok()
    });
    let unpack = params.parsed("unpack", "tar, tar.gz or zip", |text| {
        let mut words = Unpack::WORDS.into_iter();
        words.find(|(word, _)| *word == text).map(|(_, form)| form)
    });
    if unpack.is_some() && mode.is_some() {
        params.refuse("mode", "conflict", "an archive has the modes of its files");
    }
    params.finish()?;
    let is_new = request
        .headers()
        .get(IF_NONE_MATCH)
        .is_some_and(|it| it == "*");
    let announced = request.headers().get(CONTENT_LENGTH);
    let announced = announced.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    let upload = api.manager.files().upload(id, path, mode, is_new).await?;
    if announced.is_some_and(|length| length > upload.most()) {
        return Err(too_large(upload.most()));
    }
    let upload = receive(request.into_body(), upload).await?;
    if let Some(form) = unpack {
        upload.unpack(form).await?;
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    Ok(match upload.finish().await? {
        true => StatusCode::CREATED.into_response(),
        false => StatusCode::NO_CONTENT.into_response(),
    })
}

fn too_large(most: u64) -> ApiError {
    ApiError::BodyTooLarge(usize::try_from(most).unwrap_or(usize::MAX))
}

/// Writes a body into a file, as it comes.
async fn receive(mut body: Body, mut upload: Upload) -> Result<Upload, ApiError> {
    let mut gathered = Vec::new();
    let mut total = 0_u64;
    let (least, period) = PACE;
    let (mut until, mut came) = (Instant::now() + period, 0_u64);
    loop {
        let frame = match timeout_at(until, body.frame()).await {
            Ok(None) => break,
            Ok(Some(Err(_))) => return Err(ApiError::InvalidRequest("the body ends too soon")),
            Ok(Some(Ok(frame))) => frame.into_data().ok(),
            Err(_) if came < least => return Err(ApiError::UploadTimeout),
            Err(_) => {
                (until, came) = (Instant::now() + period, 0);
                None
            }
        };
        let Some(data) = frame else {
            continue;
        };
        let length = u64::try_from(data.len()).unwrap_or_default();
        came += length;
        total = total.saturating_add(length);
        if total > upload.most() {
            return Err(too_large(upload.most()));
        }
        gathered.extend_from_slice(&data);
        if gathered.len() >= PIECE {
            upload = upload.write(std::mem::take(&mut gathered)).await?;
        }
    }
    Ok(upload.write(gathered).await?)
}

/// `DELETE /jobs/{id}/files/{path}`
pub(super) async fn remove(
    State(api): State<Api>,
    FileInPath(id, path): FileInPath,
) -> Result<Response, ApiError> {
    api.manager.files().remove(id, path).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
