//! `files` and `cp`: the files of jobs, listed and copied; and what `run --into` brings back.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use reqwest::{Body, Method};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::connection::{Client, ConnectArgs, is_passing};
use super::failure::Failure;
use super::table::{Align, Table};
use super::terminal::{print, print_json};
use super::{execute, lookup, terminal};
use job::workspace::InnerPath;
use protocol::stderr::complain;

/// How many files are asked for at a time: each page reads all names of its directory.
const LARGEST_PAGE: u64 = 10_000;

#[derive(Debug, Args)]
pub struct FilesArgs {
    /// Job ID, unique prefix of one, or name
    job: String,
    /// List only what is in this directory of the workspace
    #[arg(value_name = "PATH")]
    path: Option<String>,
    /// Print the files as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: ConnectArgs,
}

#[derive(Debug, Args)]
pub struct CpArgs {
    /// File here, or JOB:PATH
    #[arg(value_name = "FROM")]
    from: String,
    /// File or directory here, or JOB:PATH
    #[arg(value_name = "TO")]
    to: String,
    #[command(flatten)]
    connect: ConnectArgs,
}

#[derive(Debug, Deserialize, Serialize)]
struct Entry {
    path: String,
    r#type: String,
    bytes: u64,
    mode: String,
    modified_at: String,
    artifact: bool,
}

#[derive(Debug, Deserialize)]
struct Page {
    files: Vec<Entry>,
    truncated: bool,
    next_page_token: Option<String>,
}

/// One side of a copy.
#[derive(Debug, PartialEq, Eq)]
enum Side<'a> {
    Here(&'a Path),
    Job(&'a str, &'a str),
}

impl<'a> Side<'a> {
    /// A colon is that of a job where no slash comes before it.
    fn of(text: &'a str) -> Self {
        match text.split_once(':') {
            Some((job, path)) if !job.is_empty() && !job.contains('/') => Self::Job(job, path),
            Some(_) | None => Self::Here(Path::new(text)),
        }
    }
}

pub fn files(args: &FilesArgs) -> ExitCode {
    execute::run(async {
        let client = Client::new(&args.connect)?;
        let id = lookup::id(&client, &args.job).await?;
        let (files, truncated) = list(&client, &id, args.path.as_deref()).await?;
        if args.json {
            print_json(&json!({"files": files, "truncated": truncated}))?;
        } else {
            print(&table(&files).render(terminal::style()))?;
        }
        if truncated {
            complain("not everything could be looked at: there may be more");
        }
        Ok(ExitCode::SUCCESS)
    })
}

fn table(files: &[Entry]) -> Table {
    let mut table = Table::new(&[
        ("MODE", Align::Left),
        ("BYTES", Align::Right),
        ("MODIFIED", Align::Left),
        ("PATH", Align::Fill),
    ]);
    for file in files {
        let (mark, bytes) = match file.r#type.as_str() {
            "directory" => ("/", String::new()),
            "symlink" => ("@", String::new()),
            _ => ("", file.bytes.to_string()),
        };
        let path = format!("{}{mark}", file.path);
        let when = file.modified_at.get(..19).unwrap_or_default();
        table.row(&[&file.mode, &bytes, &when.replace('T', " "), &path], None);
    }
    table
}

/// All files of a job, and whether some may be missing.
async fn list(
    client: &Client,
    id: &str,
    path: Option<&str>,
) -> Result<(Vec<Entry>, bool), Failure> {
    let mut files = Vec::new();
    let mut is_truncated = false;
    let mut token: Option<String> = None;
    loop {
        let page: Page = client
            .json(|| {
                let request = client.get(&format!("/jobs/{id}/files"));
                let mut request = request.query(&[("page_size", LARGEST_PAGE)]);
                if let Some(path) = path {
                    request = request.query(&[("path", path)]);
                }
                if let Some(token) = &token {
                    request = request.query(&[("page_token", token)]);
                }
                request
            })
            .await?;
        files.extend(page.files);
        is_truncated |= page.truncated;
        token = page.next_page_token;
        if token.is_none() {
            return Ok((files, is_truncated));
        }
    }
}

pub fn cp(args: &CpArgs) -> ExitCode {
    execute::run(async {
        let client = Client::new(&args.connect)?;
        match (Side::of(&args.from), Side::of(&args.to)) {
            (Side::Here(from), Side::Job(job, to)) => {
                let id = lookup::id(&client, job).await?;
                upload(&client, &id, from, to).await?;
            }
            (Side::Job(job, from), Side::Here(to)) => {
                let id = lookup::id(&client, job).await?;
                let name = from.rsplit('/').next().unwrap_or(from);
                let to = match to.is_dir() {
                    true => to.join(name),
                    false => to.to_owned(),
                };
                download(&client, &id, from, &to, None).await?;
            }
            (Side::Here(_), Side::Here(_)) | (Side::Job(..), Side::Job(..)) => {
                let why = "one of the two is a file of a job: JOB:PATH";
                return Err(Failure::Usage(why.to_owned()));
            }
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// The artifacts of a job that has ended, each into its place below this directory.
pub(super) async fn bring(client: &Client, id: &str, into: &Path) -> Result<(), Failure> {
    let (files, _) = list(client, id, None).await?;
    for file in files.iter().filter(|it| it.artifact) {
        let path = InnerPath::new(file.path.as_str());
        let path = path.map_err(|error| Failure::NotUnderstood(error.to_string()))?;
        let to = into.join(path.as_str());
        if let Some(parent) = to.parent() {
            let local = |error| local(parent, &error);
            fs::create_dir_all(parent).map_err(local)?;
        }
        let mode = u32::from_str_radix(&file.mode, 8).ok();
        download(client, id, &file.path, &to, mode).await?;
    }
    Ok(())
}

pub(super) fn local(path: &Path, error: &std::io::Error) -> Failure {
    Failure::Local(format!("{}: {error}", path.display()))
}

/// Where a file of a job is. What is in its name must not become another path.
pub(super) fn place(id: &str, path: &str) -> String {
    let escaped = path.bytes().map(|byte| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'/' => {
            char::from(byte).to_string()
        }
        _ => format!("%{byte:02X}"),
    });
    format!("/jobs/{id}/files/{}", escaped.collect::<String>())
}

/// Copies a file of a job. It is there when all of it is.
async fn download(
    client: &Client,
    id: &str,
    from: &str,
    to: &Path,
    mode: Option<u32>,
) -> Result<(), Failure> {
    let failed = |error| local(to, &error);
    let mut beside = to.as_os_str().to_owned();
    beside.push(".part");
    let beside = PathBuf::from(beside);
    let mut waiting = None;
    loop {
        let answer = client.send_repeatedly(|| client.get(&place(id, from)));
        let mut answer = answer.await?;
        let mut file = File::create(&beside).map_err(failed)?;
        let broke_off = loop {
            match answer.chunk().await {
                Ok(Some(bytes)) => file.write_all(&bytes).map_err(failed)?,
                Ok(None) => break None,
                Err(error) => break Some(error),
            }
        };
        let Some(error) = broke_off else {
            if let Some(mode) = mode {
                let permissions = fs::Permissions::from_mode(mode & 0o777);
                file.set_permissions(permissions).map_err(failed)?;
            }
            return fs::rename(&beside, to).map_err(failed);
        };
        let waiting = waiting.get_or_insert_with(|| client.patience());
        waiting.pause(Failure::Lost(error.to_string())).await?;
    }
}

/// Puts a file into the workspace of a job, under its own name where a directory is named.
pub(super) async fn upload(
    client: &Client,
    id: &str,
    from: &Path,
    to: &str,
) -> Result<(), Failure> {
    let failed = |error| local(from, &error);
    let name = from.file_name().and_then(|name| name.to_str());
    let to = match (to.is_empty() || to.ends_with('/'), name) {
        (true, Some(name)) => format!("{to}{name}"),
        (_, _) => to.to_owned(),
    };
    let found = fs::metadata(from).map_err(failed)?;
    let mode = if found.permissions().mode() & 0o100 == 0 {
        "0644"
    } else {
        "0755"
    };
    let mut waiting = client.patience();
    loop {
        let file = File::open(from).map_err(failed)?;
        let request = client.request(Method::PUT, &place(id, &to));
        let request = request.query(&[("mode", mode)]);
        let request = request.header("Content-Length", found.len());
        match client.send(request.body(contents(file))).await {
            // It is there when all of it is, so that it may be sent again.
            Err(failure) if is_passing(&failure) => waiting.pause(failure).await?,
            other => return other.map(drop),
        }
    }
}

/// A file as a body, in pieces.
pub(super) fn contents(file: File) -> Body {
    let stream = futures_util::stream::try_unfold(file, async |mut file| {
        let read = tokio::task::spawn_blocking(move || {
            use std::io::Read;
            let mut piece = vec![0; 256 << 10];
            let read = file.read(&mut piece)?;
            piece.truncate(read);
            Ok::<_, std::io::Error>((piece, file))
        });
        let (piece, file) = read.await.map_err(std::io::Error::other)??;
        Ok::<_, std::io::Error>((!piece.is_empty()).then_some((piece, file)))
    });
    Body::wrap_stream(stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_colon_is_that_of_a_job_unless_a_slash_comes_before_it() {
        assert_eq!(Side::of("job:a/b"), Side::Job("job", "a/b"));
        assert_eq!(Side::of("job:"), Side::Job("job", ""));
        for here in ["a", "./a:b", "/a:b", ":a"] {
            assert_eq!(Side::of(here), Side::Here(Path::new(here)), "{here}");
        }
    }

    #[test]
    fn a_name_does_not_become_another_path() {
        assert_eq!(place("1", "a/b c?#%"), "/jobs/1/files/a/b%20c%3F%23%25");
    }
}
