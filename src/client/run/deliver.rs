//! What the request for a job cannot hold: directories, and files that are large together. The job is made so that it
//! waits, gets them, and is let go.

use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use bytes::Bytes;
use reqwest::{Body, Method};
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::files::Brought;
use crate::connection::{Client, is_passing};
use crate::failure::Failure;
use crate::files::{local, place, upload};
use crate::signals::Signals;

/// So much of an archive is sent at a time.
const PIECE: usize = 256 << 10;
/// So many pieces are ready before they are sent.
const AHEAD: usize = 4;

/// What a job is to get before it starts.
pub(super) struct Deliver {
    inputs: Vec<Brought>,
    releases: bool,
}

impl Deliver {
    /// Has the job wait for these, if there are any.
    pub(super) fn new(
        body: &mut Map<String, Value>,
        inputs: Vec<Brought>,
    ) -> Result<Option<Self>, Failure> {
        if inputs.is_empty() {
            return Ok(None);
        }
        if body.contains_key("template") {
            let why = "--in of directories or of much does not go with --template".to_owned();
            return Err(Failure::Usage(why));
        }
        let was_held = body.insert("hold".to_owned(), json!(true));
        Ok(Some(Self {
            inputs,
            releases: was_held != Some(json!(true)),
        }))
    }

    /// Puts all of it into the job and lets the job go; the job as it is then. A job that does not get it is canceled, also
    /// at the first signal that asks for a stop: nothing of it has begun.
    pub(super) async fn unless_stopped(
        &self,
        client: &Client,
        id: &str,
        signals: &mut Signals,
    ) -> Result<Value, Failure> {
        match signals.before(self.to(client, id)).await {
            Some(given) => given,
            None => Err(given_up(client, id, None).await),
        }
    }

    async fn to(&self, client: &Client, id: &str) -> Result<Value, Failure> {
        for input in &self.inputs {
            if let Err(failure) = give(client, id, input).await {
                return Err(given_up(client, id, Some(failure)).await);
            }
        }
        let path = format!("/jobs/{id}");
        if !self.releases {
            return client.json(|| client.get(&path)).await;
        }
        client
            .json(|| client.post(&format!("{path}/release")))
            .await
    }
}

/// Cancels a job that has not got what it was to get; the failure that there was.
async fn given_up(client: &Client, id: &str, failure: Option<Failure>) -> Failure {
    let reason = [("reason", "what it was to begin with was not delivered")];
    let path = format!("/jobs/{id}");
    let canceled = client.send_repeatedly(|| client.request(Method::DELETE, &path).query(&reason));
    match (canceled.await, failure) {
        (Ok(_), Some(failure)) => failure,
        (Ok(_), None) => Failure::Lost(format!("interrupted; job {id} was canceled")),
        (Err(_), _) => Failure::Lost(format!(
            "what job {id} was to begin with was not delivered, and the job is still held"
        )),
    }
}

async fn give(client: &Client, id: &str, input: &Brought) -> Result<(), Failure> {
    let Brought { from, to, .. } = input;
    if !input.is_directory {
        return upload(client, id, from, to).await;
    }
    if !to.is_empty() {
        return send(client, id, from, to).await;
    }
    // The workspace is there already: what is in the directory goes there one by one.
    let failed = |error: io::Error| local(from, &error);
    for entry in fs::read_dir(from).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else {
            let why = io::Error::other("its name is not UTF-8");
            return Err(local(&entry.path(), &why));
        };
        match entry.file_type().map_err(failed)?.is_dir() {
            true => send(client, id, &entry.path(), name).await?,
            false => upload(client, id, &entry.path(), name).await?,
        }
    }
    Ok(())
}

/// Sends a directory as an archive.
async fn send(client: &Client, id: &str, from: &Path, to: &str) -> Result<(), Failure> {
    let mut waiting = client.patience();
    loop {
        let (body, packing) = packed(from);
        let request = client.request(Method::PUT, &place(id, to));
        let sent = client.send(request.query(&[("unpack", "tar")]).body(body));
        let sent = sent.await;
        let packed = packing.await.unwrap_or_else(|error| Err(error.into()));
        match (sent, packed) {
            // What could not be read here is why it broke off.
            (Err(_), Err(error)) if error.kind() != io::ErrorKind::BrokenPipe => {
                return Err(local(from, &error));
            }
            (Err(failure), _) if is_passing(&failure) => waiting.pause(failure).await?,
            (sent, _) => return sent.map(drop),
        }
    }
}

/// A directory as an archive that is made while it is sent. Links stay links.
fn packed(directory: &Path) -> (Body, JoinHandle<io::Result<()>>) {
    let (sender, receiver) = mpsc::channel(AHEAD);
    let directory = directory.to_owned();
    let packing = tokio::task::spawn_blocking(move || {
        let pieces = BufWriter::with_capacity(PIECE, Pieces(sender.clone()));
        let mut archive = tar::Builder::new(pieces);
        archive.follow_symlinks(false);
        // The service takes files as they are.
        archive.sparse(false);
        let packed = archive
            .append_dir_all("", &directory)
            .and_then(|()| archive.into_inner()?.flush());
        if packed.is_err() {
            // Else the end would look like that of the archive.
            let _ = sender.blocking_send(Err(io::Error::other("the archive broke off")));
        }
        packed
    });
    let pieces = futures_util::stream::unfold(receiver, async |mut receiver| {
        let piece: io::Result<Bytes> = receiver.recv().await?;
        Some((piece, receiver))
    });
    (Body::wrap_stream(pieces), packing)
}

/// What is written goes to who sends it.
struct Pieces(mpsc::Sender<io::Result<Bytes>>);

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = Bytes::copy_from_slice(bytes);
        let sent = self.0.blocking_send(Ok(piece));
        sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
