//! Lines of a job's output that match, with where they are.

use rmcp::model::CallToolResult;
use serde_json::{Value, json};

use crate::arguments::Which;
use crate::calls::job_path;
use crate::door::{Ask, Verb};
use crate::refusal::Refusal;
use crate::{Tools, text};

/// The most hits that are looked at.
const HITS: usize = 1000;

/// The lines that match, as many as fit.
pub(crate) async fn lines(
    tools: &Tools,
    id: &str,
    pattern: String,
    which: Which,
    most: u64,
) -> Result<CallToolResult, Refusal> {
    let ask = Ask::new(Verb::Get, format!("{}/output/search", job_path(id)?))
        .with("q", pattern)
        .with("regex", true)
        .with("case", true)
        .with("text", true)
        .with("stream", which.as_str())
        .with("limit", HITS);
    let answer = tools.ask(ask).await?;
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let (mut lines, mut hits, mut length) = (Vec::<Value>::new(), 0, 0);
    let mut is_cut = false;
    for record in answer.body.split(|byte| *byte == b'\n') {
        let Ok(record) = serde_json::from_slice::<Value>(record) else {
            continue;
        };
        if record["type"] != "match" {
            continue;
        }
        hits += 1;
        let offset = &record["line_offset"];
        // A line with several hits is one line.
        if lines.last().is_some_and(|last| &last["offset"] == offset) || is_cut {
            continue;
        }
        let line = record["text"].as_str().unwrap_or_default();
        let (line, _) = text::plain(line.as_bytes(), false);
        length += line.len();
        is_cut = length > most;
        if !is_cut {
            lines.push(json!({"offset": offset, "text": line}));
        }
    }
    let more = is_cut || hits >= HITS;
    let or_more = if more { " or more" } else { "" };
    let mut said = format!("{}{or_more} lines match (job {id})", lines.len());
    for line in &lines {
        let text = line["text"].as_str().unwrap_or_default();
        said.push_str(&format!("\n{}: {text}", line["offset"]));
    }
    if !lines.is_empty() {
        said.push_str("\nbefore each is its offset: read_output reads on from there");
    }
    let facts = json!({"job_id": id, "lines": lines, "more": more});
    Ok(text::answer(said, facts))
}
