//! The tools on the files of a job: listed, read and written.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rmcp::model::{CallToolResult, ContentBlock, JsonObject};
use serde_json::{Value, json};

use crate::arguments;
use crate::calls::job_path;
use crate::door::{Ask, Body, Verb};
use crate::refusal::Refusal;
use crate::{Tools, text};

/// A picture that is larger is not shown.
const PICTURE_MAX: u64 = 1 << 20;

/// How pictures begin, and what they are.
const PICTURES: [(&[u8], &str); 4] = [
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"RIFF", "image/webp"),
];

/// What is in the directory of a job.
pub(crate) async fn list(
    tools: &Tools,
    given: Option<JsonObject>,
) -> Result<CallToolResult, Refusal> {
    let list: arguments::ListFiles = arguments::read(given).map_err(Refusal::Arguments)?;
    let ask = Ask::new(Verb::Get, format!("{}/files", job_path(&list.job_id)?))
        .with("page_size", list.limit.unwrap_or(200))
        .with_any("path", list.path);
    let page: Value = tools.json(ask).await?;
    let files = page["files"].as_array().cloned().unwrap_or_default();
    let more = !page["next_page_token"].is_null() || page["truncated"] == true;
    let or_more = if more { " or more" } else { "" };
    let mut text = format!("{}{or_more} entries (job {})", files.len(), list.job_id);
    for file in &files {
        let path = file["path"].as_str().unwrap_or_default();
        text.push_str(&match file["type"].as_str() {
            Some("directory") => format!("\n{path}/"),
            Some("symlink") => format!("\n{path} (a link)"),
            _ => format!("\n{path} {} bytes", file["bytes"]),
        });
    }
    let facts = json!({"job_id": list.job_id, "files": files, "more": more});
    Ok(text::answer(text, facts))
}

/// A file, or a part of it.
pub(crate) async fn read(
    tools: &Tools,
    given: Option<JsonObject>,
) -> Result<CallToolResult, Refusal> {
    let read: arguments::ReadFile = arguments::read(given).map_err(Refusal::Arguments)?;
    let most = tools.bytes_of(read.output_bytes)?;
    let path = file_path(&read.job_id, &read.path)?;
    let (bytes, length) = piece(tools, &path, read.offset, most).await?;
    let mut facts = json!({"job_id": read.job_id, "path": read.path, "bytes": length});
    if read.offset == 0
        && let Some(kind) = picture(&bytes)
        && length <= PICTURE_MAX
    {
        let (bytes, _) = piece(tools, &path, 0, PICTURE_MAX).await?;
        facts["media_type"] = kind.into();
        let text = format!("{}: {kind}, {length} bytes", read.path);
        let mut result = text::answer(text, facts);
        let picture = ContentBlock::image(BASE64_STANDARD.encode(bytes), kind);
        result.content.push(picture);
        return Ok(result);
    }
    let count = |bytes: &[u8]| u64::try_from(bytes.len()).unwrap_or_default();
    let is_cut = read.offset + count(&bytes) < length;
    let bytes = text::whole_characters(&bytes, is_cut);
    let next = read.offset + count(bytes);
    facts["next_offset"] = next.into();
    facts["truncated"] = (next < length).into();
    let mut text = format!("{}: {length} bytes", read.path);
    match str::from_utf8(bytes) {
        Ok(content) => {
            facts["text"] = content.into();
            text = format!("{text}\n{content}");
        }
        Err(_) => {
            let content = BASE64_STANDARD.encode(bytes);
            text = format!("{text}, no text; in base64:\n{content}");
            facts["base64"] = content.into();
        }
    }
    if next < length {
        let step = format!("there is more: call read_file with offset {next}");
        text = format!("{text}\n{step}");
        facts["next_step"] = step.into();
    }
    Ok(text::answer(text, facts))
}

/// So much of a file from here on, and how long all of it is.
async fn piece(
    tools: &Tools,
    path: &str,
    offset: u64,
    most: u64,
) -> Result<(Vec<u8>, u64), Refusal> {
    let mut ask = Ask::new(Verb::Get, path);
    ask.range = Some((offset, offset.saturating_add(most - 1)));
    match tools.ask(ask).await {
        Ok(answer) => Ok((answer.body, answer.length.unwrap_or_default())),
        // Nothing of an empty file can be asked for.
        Err(Refusal::Problem(problem))
            if problem.code == "range_not_satisfiable" && offset == 0 =>
        {
            Ok((Vec::new(), 0))
        }
        Err(refusal) => Err(refusal),
    }
}

/// A file as a whole.
pub(crate) async fn write(
    tools: &Tools,
    given: Option<JsonObject>,
) -> Result<CallToolResult, Refusal> {
    let write: arguments::WriteFile = arguments::read(given).map_err(Refusal::Arguments)?;
    let mut ask = Ask::new(Verb::Put, file_path(&write.job_id, &write.path)?);
    if write.executable {
        ask = ask.with("mode", "0755");
    }
    let length = write.text.len();
    ask.body = Body::Bytes(write.text.into_bytes());
    let is_new = tools.ask(ask).await?.status == 201;
    let done = if is_new { "wrote" } else { "replaced" };
    let (path, id) = (&write.path, &write.job_id);
    let text = format!("{done} {path}: {length} bytes (job {id})");
    let facts = json!({"job_id": id, "path": path, "bytes": length, "replaced": !is_new});
    Ok(text::answer(text, facts))
}

fn picture(bytes: &[u8]) -> Option<&'static str> {
    let mut known = PICTURES.iter();
    let (_, kind) = known.find(|(beginning, _)| bytes.starts_with(beginning))?;
    let is_webp = bytes.get(8..12) == Some(b"WEBP");
    (*kind != "image/webp" || is_webp).then_some(kind)
}

/// The path of a file of a job. What is in its name must not become another path.
fn file_path(id: &str, path: &str) -> Result<String, Refusal> {
    if path.split('/').any(|name| matches!(name, "" | "." | "..")) {
        let why = "path: a path in the job's directory, such as out/report.txt".to_owned();
        return Err(Refusal::Arguments(why));
    }
    let escaped = path.bytes().map(|byte| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'/' => {
            char::from(byte).to_string()
        }
        _ => format!("%{byte:02X}"),
    });
    let escaped: String = escaped.collect();
    Ok(format!("{}/files/{escaped}", job_path(id)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_stays_beneath_its_job() {
        let of = |path| file_path("01a2-b", path).ok();
        assert_eq!(
            of("a/b c?#%é").as_deref(),
            Some("/jobs/01a2-b/files/a/b%20c%3F%23%25%C3%A9")
        );
        for bad in ["", "/a", "a/", "a//b", "..", "a/../../x", "./a"] {
            assert!(of(bad).is_none(), "{bad}");
        }
        assert!(file_path("../x", "a").is_err());
    }

    #[test]
    fn a_picture_is_known_by_how_it_begins() {
        assert_eq!(picture(b"\x89PNG\r\n\x1a\n...."), Some("image/png"));
        assert_eq!(picture(b"RIFF....WEBPVP8 "), Some("image/webp"));
        assert_eq!(picture(b"RIFF....WAVE"), None);
        assert_eq!(picture(b"text"), None);
    }
}
