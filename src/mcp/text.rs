//! What a model reads: the verdict first, then the output, then what to do next.

use jiff::Timestamp;
use rmcp::model::{CallToolResult, ContentBlock};
use serde::Deserialize;
use serde_json::{Value, json};

/// What is read of a job.
#[derive(Debug, Deserialize)]
pub(crate) struct Job {
    pub(crate) id: String,
    pub(crate) state: String,
    state_message: Option<String>,
    pub(crate) created_at: Timestamp,
    started_at: Option<Timestamp>,
    pub(crate) finished_at: Option<Timestamp>,
    pub(crate) expires_at: Option<Timestamp>,
    #[serde(default)]
    ready_at: Option<Timestamp>,
    #[serde(default)]
    not_ready_at: Option<Timestamp>,
    #[serde(default)]
    ready_message: Option<String>,
    exit: Option<Exit>,
    termination: Option<Termination>,
    spawn_failure: Option<Failure>,
    spec: Spec,
    pub(crate) output: Output,
}

#[derive(Debug, Deserialize)]
struct Exit {
    code: Option<i64>,
    signal: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Termination {
    cause: String,
    reason: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Failure {
    message: String,
}

#[derive(Debug, Deserialize)]
struct Spec {
    timeout_seconds: Option<f64>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Output {
    pub(crate) next_offset: u64,
    pub(crate) excerpt: Option<Excerpt>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Excerpt {
    text: String,
    tail: Span,
    omitted_bytes: u64,
}

#[derive(Debug, Deserialize)]
struct Span {
    to: u64,
}

/// Output that is shown.
#[derive(Debug, Default)]
pub(crate) struct Shown {
    pub(crate) text: String,
    /// Where to read on.
    pub(crate) next_offset: u64,
    /// Something of it is left out.
    pub(crate) is_cut: bool,
}

impl From<Excerpt> for Shown {
    fn from(excerpt: Excerpt) -> Self {
        Self {
            text: excerpt.text,
            next_offset: excerpt.tail.to,
            is_cut: excerpt.omitted_bytes > 0,
        }
    }
}

impl Job {
    pub(crate) fn has_ended(&self) -> bool {
        matches!(
            self.state.as_str(),
            "succeeded" | "failed" | "canceled" | "timed_out" | "lost"
        )
    }

    /// Is it known whether it is ready?
    pub(crate) fn knows_ready(&self) -> bool {
        self.ready_at.is_some() || self.not_ready_at.is_some() || self.has_ended()
    }

    /// How long it ran, or has been running by now.
    fn seconds(&self, now: Timestamp) -> f64 {
        let Some(from) = self.started_at else {
            return 0.0;
        };
        let to = self.finished_at.unwrap_or(now);
        to.duration_since(from).as_secs_f64().max(0.0)
    }

    /// What shows that it is ready, or why it is not.
    fn sign(&self) -> String {
        let sign = self.ready_message.as_ref();
        sign.map(|sign| format!(" ({sign})")).unwrap_or_default()
    }

    /// What has become of it, in a sentence without its end.
    pub(crate) fn verdict(&self, now: Timestamp) -> String {
        let after = format!("after {:.1} s", self.seconds(now));
        let exit = self.exit.as_ref();
        let code = exit.and_then(|exit| exit.code);
        let signal = exit.and_then(|exit| exit.signal.as_deref());
        let what = match self.state.as_str() {
            "queued" => {
                let why = self.state_message.as_deref().unwrap_or("it waits");
                format!("queued: {why}")
            }
            "starting" => "starting".to_owned(),
            "paused" => format!("paused {after}"),
            "stopping" => format!("stopping {after}"),
            "running" => match (self.ready_at, self.not_ready_at) {
                (Some(_), _) => format!("ready, and running {after}{}", self.sign()),
                (None, Some(_)) => {
                    format!("not ready in time, still running {after}{}", self.sign())
                }
                (None, None) => format!("still running {after}"),
            },
            "timed_out" => match self.spec.timeout_seconds {
                Some(limit) => format!("timed out: its limit is {limit} s; no process is left"),
                None => format!("timed out {after}; no process is left"),
            },
            "canceled" => match self.termination.as_ref().and_then(|t| t.reason.as_deref()) {
                Some(reason) => format!("stopped {after} ({reason}); no process is left"),
                None => format!("stopped {after}; no process is left"),
            },
            "lost" => {
                let why = self.state_message.as_deref();
                format!("lost: {}", why.unwrap_or("nobody saw how it ended"))
            }
            _ => match (&self.spawn_failure, code, signal) {
                (Some(failure), _, _) => format!("could not be started: {}", failure.message),
                (None, Some(code), _) => format!("exited with code {code} {after}"),
                (None, None, Some(signal)) => format!("ended by {signal} {after}"),
                (None, None, None) => {
                    let cause = self.termination.as_ref();
                    let cause = cause.map_or("unknown", |termination| termination.cause.as_str());
                    format!("{}: {cause} {after}", self.state)
                }
            },
        };
        format!("{what} (job {})", self.id)
    }

    /// What a model should call next; nothing if all has been said.
    fn next_step(&self, shown: &Shown) -> Option<String> {
        let offset = shown.next_offset;
        if !self.has_ended() {
            return Some(format!(
                "call wait_for_job with job_id and offset {offset} to go on, or stop_job to end it"
            ));
        }
        if offset < self.output.next_offset {
            return Some(format!(
                "call read_output with job_id and offset {offset} for the rest of the output"
            ));
        }
        let left_out = "call read_output with job_id and one of those offsets for what is left out";
        shown.is_cut.then(|| left_out.to_owned())
    }

    /// The answer of a tool about this job.
    pub(crate) fn result(&self, shown: &Shown, now: Timestamp) -> CallToolResult {
        let next_step = self.next_step(shown);
        let mut text = self.verdict(now);
        text.push('\n');
        text.push_str(&shown.text);
        if let Some(next_step) = &next_step {
            if !text.ends_with('\n') {
                text.push('\n');
            }
            text.push_str(&format!("[{next_step}]"));
        }
        let exit = self.exit.as_ref();
        let structured = json!({
            "job_id": self.id,
            "state": self.state,
            "exit": exit.map(|exit| json!({"code": exit.code, "signal": exit.signal})),
            "timed_out": self.state == "timed_out",
            "ready": self.ready_at.is_some(),
            "output": shown.text,
            "next_offset": shown.next_offset,
            "truncated": shown.is_cut || shown.next_offset < self.output.next_offset,
            "next_step": next_step,
        });
        answer(text, structured)
    }
}

/// A result that is no error.
pub(crate) fn answer(text: String, structured: Value) -> CallToolResult {
    let mut result = CallToolResult::success(vec![ContentBlock::text(text)]);
    result.structured_content = Some(structured);
    result
}

/// Bytes of a file without the beginning of a character at their end, if they are `cut`.
pub(crate) fn whole_characters(bytes: &[u8], cut: bool) -> &[u8] {
    match str::from_utf8(bytes) {
        // The end is missing, and nothing else is wrong.
        Err(error) if cut && error.error_len().is_none() && error.valid_up_to() > 0 => {
            bytes.get(..error.valid_up_to()).unwrap_or(bytes)
        }
        _ => bytes,
    }
}

/// Bytes of a log as text, without what a terminal does not show. Where they are `cut`, they end with a whole line if
/// one ends near, and with a whole character; the number of bytes that are left for the next reading comes second.
pub(crate) fn plain(bytes: &[u8], cut: bool) -> (String, usize) {
    let end = if cut { whole(bytes) } else { bytes.len() };
    let text = String::from_utf8_lossy(&bytes[..end]);
    let visible = anstream::adapter::strip_str(&text).to_string();
    let mut plain = String::with_capacity(visible.len());
    for line in visible.split_inclusive('\n') {
        let shown = line.trim_end_matches(['\r', '\n']);
        // What a progress line has overwritten is nobody's concern.
        plain.push_str(shown.rsplit('\r').next().unwrap_or_default());
        if line.ends_with('\n') {
            plain.push('\n');
        }
    }
    (plain, bytes.len() - end)
}

/// How much of this to show, so that no line or character is cut in two.
fn whole(bytes: &[u8]) -> usize {
    const NEAR: usize = 4 << 10;
    let from = bytes.len() - NEAR.min(bytes.len() / 2);
    if let Some(feed) = bytes[from..].iter().rposition(|byte| *byte == b'\n') {
        return from + feed + 1;
    }
    let begins = |byte: &u8| !(0x80..0xc0).contains(byte);
    let last = bytes.iter().rposition(begins).unwrap_or(0);
    match std::str::from_utf8(&bytes[last..]) {
        Err(error) if error.error_len().is_none() && last > 0 => last,
        Ok(_) | Err(_) => bytes.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(fields: Value) -> Job {
        let mut job = json!({
            "id": "01", "state": "running", "state_message": null,
            "created_at": "2026-01-01T00:00:00Z", "started_at": "2026-01-01T00:00:00Z",
            "finished_at": null, "expires_at": null, "exit": null, "termination": null,
            "spawn_failure": null, "spec": {"timeout_seconds": 600.0}, "output": {"next_offset": 9},
        });
        for (name, value) in fields.as_object().into_iter().flatten() {
            job[name] = value.clone();
        }
        serde_json::from_value(job).expect("a job as the API shows it")
    }

    #[test]
    fn the_verdict_says_what_has_become_of_it() {
        let now = "2026-01-01T00:00:25Z".parse().expect("a time");
        let ended = json!("2026-01-01T00:00:03.14Z");
        for (fields, verdict) in [
            (json!({}), "still running after 25.0 s (job 01)"),
            (
                json!({"state": "failed", "finished_at": ended, "exit": {"code": 2, "signal": null}}),
                "exited with code 2 after 3.1 s (job 01)",
            ),
            (
                json!({"state": "failed", "finished_at": ended, "exit": {"code": null, "signal": "SIGSEGV"}}),
                "ended by SIGSEGV after 3.1 s (job 01)",
            ),
            (
                json!({"state": "timed_out", "finished_at": ended}),
                "timed out: its limit is 600 s; no process is left (job 01)",
            ),
            (
                json!({"state": "canceled", "finished_at": ended, "termination": {"cause": "canceled", "reason": "enough"}}),
                "stopped after 3.1 s (enough); no process is left (job 01)",
            ),
            (
                json!({"state": "queued", "started_at": null, "state_message": "queue build is paused"}),
                "queued: queue build is paused (job 01)",
            ),
            (
                json!({"state": "failed", "spawn_failure": {"message": "No such file or directory"}}),
                "could not be started: No such file or directory (job 01)",
            ),
        ] {
            assert_eq!(job(fields).verdict(now), verdict);
        }
    }

    #[test]
    fn the_next_step_has_the_offset_to_go_on_from() {
        let shown = |next_offset, is_cut| Shown {
            text: String::new(),
            next_offset,
            is_cut,
        };
        let running = job(json!({}));
        let step = running.next_step(&shown(5, false));
        assert!(step.is_some_and(|step| step.contains("wait_for_job with job_id and offset 5")));
        let over = job(json!({"state": "succeeded"}));
        let step = over.next_step(&shown(5, false));
        assert!(step.is_some_and(|step| step.contains("read_output with job_id and offset 5")));
        assert_eq!(over.next_step(&shown(9, false)), None);
    }

    #[test]
    fn plain_text_has_no_half_of_anything() {
        assert_eq!(
            plain(b"\x1b[31mred\x1b[0m 1%\r 2%\nx", false),
            (" 2%\nx".to_owned(), 0)
        );
        assert_eq!(plain(b"line one\nhalf", true), ("line one\n".to_owned(), 4));
        assert_eq!(plain("abcdefgh\u{20ac}".as_bytes(), true).1, 0);
        assert_eq!(plain(b"abcdefgh\xe2\x82", true), ("abcdefgh".to_owned(), 2));
    }
}
