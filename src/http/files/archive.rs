//! The files of a job as one file: tar, tar with gzip, or zip, made as it is read.
//!
//! A thread writes it into a pipe of a few pieces; a client that reads slowly holds it up, and one that hangs up ends it.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};

use axum::body::Body;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::stream;
use tokio::sync::mpsc;
use zip::CompressionMethod;
use zip::write::{SimpleFileOptions, ZipWriter};

use super::as_data;
use crate::api::Api;
use crate::extract::InPath;
use crate::problem::ApiError;
use crate::query::Params;
use job::JobId;
use job::workspace::{InnerPath, Patterns};
use manager::{Archive, Bundle, FileEntry, Parcel};

/// The parameters of each of them.
pub(crate) const ARCHIVE: &[&str] = &["path", "match", "ticket"];

/// So much is one piece of the answer, and so many wait to be sent.
const PIECE: usize = 64 << 10;
const PIECES: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Tar,
    TarGz,
    Zip,
}

/// `GET /jobs/{id}/files.tar`
pub(crate) async fn tar(api: State<Api>, id: InPath, params: Params) -> Result<Response, ApiError> {
    archive(api, id, params, Form::Tar).await
}

/// `GET /jobs/{id}/files.tar.gz`
pub(crate) async fn tar_gz(
    api: State<Api>,
    id: InPath,
    params: Params,
) -> Result<Response, ApiError> {
    archive(api, id, params, Form::TarGz).await
}

/// `GET /jobs/{id}/files.zip`
pub(crate) async fn zip(api: State<Api>, id: InPath, params: Params) -> Result<Response, ApiError> {
    archive(api, id, params, Form::Zip).await
}

async fn archive(
    State(api): State<Api>,
    InPath(id): InPath,
    mut params: Params,
    form: Form,
) -> Result<Response, ApiError> {
    let path = |text: &str| InnerPath::new(text.trim_end_matches('/')).ok();
    let beneath = params.parsed("path", "the path of a directory in the workspace", path);
    let wanted = params.all("match");
    let patterns = Patterns::new(&wanted);
    if let Err(error) = &patterns {
        params.refuse("match", "invalid_value", error.to_string());
    }
    params.finish()?;
    let patterns = patterns.ok().filter(|_| !wanted.is_empty());
    let archive = api.manager.files().archive(id, beneath, patterns).await?;
    let (kind, suffix) = match form {
        Form::Tar => ("application/x-tar", "tar"),
        Form::TarGz => ("application/gzip", "tar.gz"),
        Form::Zip => ("application/zip", "zip"),
    };
    let write = move |out: Out| match form {
        Form::Tar => write_tar(out, &archive)?.flush(),
        Form::TarGz => {
            let out = GzEncoder::new(out, Compression::fast());
            write_tar(out, &archive)?.finish()?.flush()
        }
        Form::Zip => write_zip(out, &archive),
    };
    let mut response = ([(CONTENT_TYPE, kind)], body(write, id)).into_response();
    as_data(&mut response, kind, &format!("{id}.{suffix}"));
    Ok(response)
}

/// The answer to a node that fetches the files of a job.
pub(crate) fn bundled(bundle: Bundle, id: JobId) -> Response {
    let write = move |out: Out| write_bundle(out, &bundle)?.flush();
    ([(CONTENT_TYPE, "application/x-tar")], body(write, id)).into_response()
}

type Out = BufWriter<Pieces>;

fn body(write: impl FnOnce(Out) -> io::Result<()> + Send + 'static, id: JobId) -> Body {
    let (sender, receiver) = mpsc::channel(PIECES);
    let writing =
        tokio::task::spawn_blocking(move || write(BufWriter::with_capacity(PIECE, Pieces(sender))));
    let begin = (receiver, writing, id);
    let stream = stream::try_unfold(begin, async |(mut receiver, writing, id)| {
        if let Some(piece) = receiver.recv().await {
            return Ok::<_, io::Error>(Some((piece, (receiver, writing, id))));
        }
        // What is written is sent: it has ended, or broken off.
        let written = writing.await.map_err(io::Error::other)?;
        written.map(|()| None).inspect_err(|error| {
            tracing::warn!(job.id = %id, %error, "an archive of job {id} broke off: {error}");
        })
    });
    // It is over with its first item that is none.
    Body::from_stream(stream)
}

/// Where the pieces of an answer go. Blocks.
struct Pieces(mpsc::Sender<Bytes>);

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.0.blocking_send(Bytes::copy_from_slice(bytes));
        sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write_tar<W: Write>(out: W, archive: &Archive) -> io::Result<W> {
    let mut tar = tar::Builder::new(out);
    archive.each(|entry, file, bytes| {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes);
        header.set_mode(entry.mode & 0o777);
        header.set_mtime(seconds(&entry));
        // A path that is too long for a header gets one of its own.
        tar.append_data(&mut header, &entry.path, whole(file, bytes))
    })?;
    tar.into_inner()
}

fn write_bundle<W: Write>(out: W, bundle: &Bundle) -> io::Result<W> {
    let mut tar = tar::Builder::new(out);
    bundle.each(|path, parcel| {
        let mut header = tar::Header::new_gnu();
        header.set_size(0);
        match parcel {
            Parcel::Directory => {
                header.set_entry_type(tar::EntryType::Directory);
                header.set_mode(0o700);
                tar.append_data(&mut header, path, io::empty())
            }
            Parcel::Link(to) => {
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_mode(0o777);
                tar.append_link(&mut header, path, to)
            }
            Parcel::File(file, mode, bytes) => {
                header.set_size(bytes);
                header.set_mode(mode);
                tar.append_data(&mut header, path, whole(file, bytes))
            }
        }
    })?;
    tar.into_inner()
}

fn write_zip<W: Write>(out: W, archive: &Archive) -> io::Result<()> {
    let mut zip = ZipWriter::new_stream(out);
    archive.each(|entry, file, bytes| {
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Deflated)
            .compression_level(Some(1))
            .large_file(bytes >= u64::from(u32::MAX))
            .unix_permissions(entry.mode & 0o777);
        zip.start_file(entry.path.as_str(), options)?;
        io::copy(&mut whole(file, bytes), &mut zip).map(drop)
    })?;
    zip.finish()?.into_inner().flush()
}

fn seconds(entry: &FileEntry) -> u64 {
    u64::try_from(entry.modified_at.as_micros() / 1_000_000).unwrap_or_default()
}

/// As many bytes as were announced: what grows is cut, and what has become shorter breaks the archive off.
fn whole(file: File, bytes: u64) -> Whole {
    Whole { file, left: bytes }
}

struct Whole {
    file: File,
    left: u64,
}

impl Read for Whole {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            return Ok(0);
        }
        let most = usize::try_from(self.left).map_or(into.len(), |left| left.min(into.len()));
        let into = into.get_mut(..most).unwrap_or_default();
        let read = self.file.read(into)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= u64::try_from(read).unwrap_or_default();
        Ok(read)
    }
}
