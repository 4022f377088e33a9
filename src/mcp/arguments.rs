//! What each tool takes. What is not known is refused with the names that are.

use rmcp::model::JsonObject;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

/// Reads the arguments of a tool; the error is one sentence.
pub(crate) fn read<T: DeserializeOwned>(given: Option<JsonObject>) -> Result<T, String> {
    let given = Value::Object(given.unwrap_or_default());
    serde_json::from_value(given).map_err(|error| error.to_string())
}

/// What becomes of a job when its call is cancelled.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OnCancel {
    #[default]
    Leave,
    Stop,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Run {
    command: Option<Value>,
    script: Option<Value>,
    cwd: Option<Value>,
    env: Option<Value>,
    stdin_text: Option<String>,
    #[serde(default)]
    interactive: bool,
    timeout_seconds: Option<f64>,
    name: Option<Value>,
    labels: Option<Value>,
    queue: Option<Value>,
    ready_log: Option<Value>,
    ready_port: Option<Value>,
    files: Option<Map<String, Value>>,
    #[serde(default)]
    workspace: bool,
    pub(crate) wait_seconds: Option<f64>,
    pub(crate) output_bytes: Option<u64>,
    pub(crate) idempotency_key: Option<String>,
    #[serde(default)]
    pub(crate) on_cancel: OnCancel,
}

/// What a command has that is not told, so that nothing an agent forgets runs for ever.
const TIMEOUT_SECONDS: f64 = 600.0;

impl Run {
    /// What the call waits for.
    pub(crate) fn until(&self) -> Until {
        if self.ready_log.is_some() || self.ready_port.is_some() {
            Until::Ready
        } else {
            Until::Finished
        }
    }

    /// The body of `POST /jobs`. What is wrong with a field, the API says.
    pub(crate) fn body(&self) -> Result<Value, String> {
        let mut body = Map::new();
        let fields = [
            ("command", &self.command),
            ("script", &self.script),
            ("cwd", &self.cwd),
            ("env", &self.env),
            ("name", &self.name),
            ("labels", &self.labels),
            ("queue", &self.queue),
        ];
        for (name, value) in fields {
            if let Some(value) = value {
                body.insert(name.to_owned(), value.clone());
            }
        }
        if let Some(files) = &self.files {
            let files = files.iter();
            let inputs: Vec<Value> = files
                .map(|(path, text)| json!({"path": path, "text": text}))
                .collect();
            body.insert("inputs".to_owned(), inputs.into());
        }
        if self.workspace || self.files.is_some() {
            // Nobody can say beforehand what an agent wants to look at.
            body.insert("workspace".to_owned(), json!({"keep": "all"}));
        }
        let signs = [("log", &self.ready_log), ("port", &self.ready_port)];
        let signs = signs.into_iter();
        let ready: Map<String, Value> = signs
            .filter_map(|(name, value)| Some((name.to_owned(), value.clone()?)))
            .collect();
        if !ready.is_empty() {
            body.insert("ready".to_owned(), ready.into());
        }
        let timeout = self.timeout_seconds.unwrap_or(TIMEOUT_SECONDS);
        if timeout != 0.0 {
            body.insert("timeout_seconds".to_owned(), json!(timeout));
        }
        let stdin = match (&self.stdin_text, self.interactive) {
            (Some(_), true) => {
                return Err("give stdin_text, or interactive and then write_input".to_owned());
            }
            (Some(text), false) => Some(json!({"mode": "data", "text": text})),
            (None, true) => Some(json!({"mode": "open"})),
            (None, false) => None,
        };
        if let Some(stdin) = stdin {
            body.insert("stdin".to_owned(), stdin);
        }
        Ok(Value::Object(body))
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RunTemplate {
    pub(crate) template: String,
    #[serde(default)]
    pub(crate) params: Map<String, Value>,
    pub(crate) name: Option<String>,
    pub(crate) wait_seconds: Option<f64>,
    pub(crate) output_bytes: Option<u64>,
    pub(crate) idempotency_key: Option<String>,
    #[serde(default)]
    pub(crate) on_cancel: OnCancel,
}

/// What is waited for.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Until {
    #[default]
    Finished,
    Output,
    Ready,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wait {
    pub(crate) job_id: String,
    pub(crate) wait_seconds: Option<f64>,
    #[serde(default)]
    pub(crate) until: Until,
    pub(crate) offset: Option<u64>,
    pub(crate) output_bytes: Option<u64>,
}

/// Which output.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Which {
    #[default]
    All,
    Stdout,
    Stderr,
}

impl Which {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Read {
    pub(crate) job_id: String,
    pub(crate) offset: Option<u64>,
    pub(crate) tail_lines: Option<u64>,
    pub(crate) output_bytes: Option<u64>,
    #[serde(default)]
    pub(crate) stream: Which,
    pub(crate) r#match: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Write {
    pub(crate) job_id: String,
    #[serde(default)]
    pub(crate) text: String,
    #[serde(default)]
    pub(crate) eof: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Stop {
    pub(crate) job_id: String,
    pub(crate) grace_seconds: Option<f64>,
    pub(crate) reason: Option<String>,
    pub(crate) wait_seconds: Option<f64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Signal {
    pub(crate) job_id: String,
    pub(crate) signal: Value,
    pub(crate) scope: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct List {
    pub(crate) state: Option<String>,
    pub(crate) label_selector: Option<String>,
    pub(crate) name_prefix: Option<String>,
    pub(crate) limit: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListFiles {
    pub(crate) job_id: String,
    pub(crate) path: Option<String>,
    pub(crate) limit: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReadFile {
    pub(crate) job_id: String,
    pub(crate) path: String,
    #[serde(default)]
    pub(crate) offset: u64,
    pub(crate) output_bytes: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WriteFile {
    pub(crate) job_id: String,
    pub(crate) path: String,
    pub(crate) text: String,
    #[serde(default)]
    pub(crate) executable: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Nothing {}
