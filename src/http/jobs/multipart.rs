//! `POST /jobs` as a form: the job first, then the files that its inputs name. They go to disk as they come.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use bytes::Bytes;
use multer::{Field, Multipart};
use sha2::{Digest, Sha256};
use tokio::time::{Instant, timeout_at};

use crate::api::Api;
use crate::problem::{ApiError, Place, Violation};
use job::workspace::{Content, Input};
use manager::Part;

/// The part that is the job.
const JOB: &str = "job";

/// So much is gathered before it is written.
const PIECE: usize = 256 << 10;
/// A form comes no slower than this, over this time.
const PACE: (u64, Duration) = (30 << 10, Duration::from_secs(30));

/// Is it a form?
pub(super) fn is_form(headers: &HeaderMap) -> bool {
    boundary(headers).is_some()
}

fn boundary(headers: &HeaderMap) -> Option<String> {
    let kind = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    multer::parse_boundary(kind).ok()
}

/// A form that is being read.
pub(super) struct Form {
    parts: Multipart<'static>,
    pace: Pace,
    left: u64,
    most: u64,
}

/// All files of a form.
#[derive(Default)]
pub(super) struct Files {
    /// By their names.
    pub(super) parts: BTreeMap<String, Part>,
    /// What tells them from others: the SHA-256 of each.
    digests: BTreeMap<String, String>,
}

impl Files {
    /// The request as one that is the same again has it.
    pub(super) fn fingerprint(&self, job: &[u8]) -> Vec<u8> {
        let job: serde_json::Value = serde_json::from_slice(job).unwrap_or_default();
        let whole = serde_json::json!({"job": job, "parts": self.digests});
        whole.to_string().into_bytes()
    }
}

impl Form {
    /// Begins to read it, up to the end of the job.
    pub(super) async fn begin(request: Request, api: &Api) -> Result<(Self, Bytes), ApiError> {
        let boundary = boundary(request.headers());
        let boundary = boundary.ok_or(ApiError::UnsupportedMediaType("multipart/form-data"))?;
        let body: Body = request.into_body();
        let most = api.manager.files().max_upload_bytes();
        let mut form = Self {
            parts: Multipart::new(body.into_data_stream(), boundary),
            pace: Pace::new(),
            left: most,
            most,
        };
        let Some((mut field, name)) = form.next().await? else {
            return Err(first_is_the_job());
        };
        if name != JOB {
            return Err(first_is_the_job());
        }
        let limit = api.settings.max_body_bytes;
        let mut job = Vec::new();
        while let Some(data) = form.chunk(&mut field).await? {
            if job.len() + data.len() > limit {
                return Err(ApiError::BodyTooLarge(limit));
            }
            job.extend_from_slice(&data);
        }
        drop(field);
        Ok((form, job.into()))
    }

    /// Reads the rest of it: the parts that these inputs name, each once.
    pub(super) async fn files(mut self, api: &Api, inputs: &[Input]) -> Result<Files, ApiError> {
        let named = inputs.iter().filter_map(|input| match &input.content {
            Content::Part(name) => Some(name.as_str()),
            Content::Text(_) | Content::Base64(_) | Content::From(_) => None,
        });
        let wanted: BTreeSet<&str> = named.collect();
        let mut files = Files::default();
        while let Some((mut field, name)) = self.next().await? {
            if !wanted.contains(name.as_str()) || files.parts.contains_key(&name) {
                return Err(ApiError::InvalidRequest(
                    "a part of the form that no input names, or that is there twice",
                ));
            }
            let mut part = api.manager.files().part().await?;
            let mut hash = Sha256::new();
            let mut gathered = Vec::new();
            while let Some(data) = self.chunk(&mut field).await? {
                hash.update(&data);
                gathered.extend_from_slice(&data);
                if gathered.len() >= PIECE {
                    part = part.write(std::mem::take(&mut gathered)).await?;
                }
            }
            part = part.write(gathered).await?;
            let digest: [u8; 32] = hash.finalize().into();
            let digest = digest.iter().map(|byte| format!("{byte:02x}")).collect();
            files.digests.insert(name.clone(), digest);
            files.parts.insert(name, part);
        }
        let mut missing = Vec::new();
        for (place, input) in inputs.iter().enumerate() {
            if let Content::Part(name) = &input.content
                && !files.parts.contains_key(name)
            {
                missing.push(Violation {
                    place: Place::Pointer(format!("/inputs/{place}/part")),
                    code: "missing",
                    detail: "the form has no part of this name".to_owned(),
                });
            }
        }
        if missing.is_empty() {
            Ok(files)
        } else {
            Err(ApiError::InvalidSpec(missing))
        }
    }

    /// The next part, with its name.
    async fn next(&mut self) -> Result<Option<(Field<'static>, String)>, ApiError> {
        let field = self.pace.wait(self.parts.next_field()).await?;
        let field = field.map_err(|error| broken(&error))?;
        let Some(field) = field else { return Ok(None) };
        let name = field.name().unwrap_or_default().to_owned();
        Ok(Some((field, name)))
    }

    /// The next bytes of a part.
    async fn chunk(&mut self, field: &mut Field<'static>) -> Result<Option<Bytes>, ApiError> {
        let chunk = self.pace.wait(field.chunk()).await?;
        let chunk = chunk.map_err(|error| broken(&error))?;
        if let Some(chunk) = &chunk {
            let length = u64::try_from(chunk.len()).unwrap_or(u64::MAX);
            self.pace.came += length;
            let Some(left) = self.left.checked_sub(length) else {
                let most = usize::try_from(self.most).unwrap_or(usize::MAX);
                return Err(ApiError::BodyTooLarge(most));
            };
            self.left = left;
        }
        Ok(chunk)
    }
}

fn first_is_the_job() -> ApiError {
    ApiError::InvalidRequest("the first part of the form must be job, the JSON of the job")
}

fn broken(error: &multer::Error) -> ApiError {
    tracing::debug!(%error, "a form was not understood: {error}");
    ApiError::InvalidRequest("the form is broken, or ends too soon")
}

/// Gives up what comes too slowly.
struct Pace {
    until: Instant,
    came: u64,
}

impl Pace {
    fn new() -> Self {
        Self {
            until: Instant::now() + PACE.1,
            came: 0,
        }
    }

    async fn wait<T>(&mut self, next: impl Future<Output = T>) -> Result<T, ApiError> {
        let mut next = std::pin::pin!(next);
        loop {
            match timeout_at(self.until, &mut next).await {
                Ok(came) => return Ok(came),
                Err(_) if self.came < PACE.0 => return Err(ApiError::UploadTimeout),
                Err(_) => *self = Self::new(),
            }
        }
    }
}
