//! The tools, as models are told of them: flat schemas, in a fixed order.

use std::sync::Arc;

use rmcp::model::{JsonObject, Tool, ToolAnnotations};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{OUTPUT_MAX, Options, WAIT_MAX};

/// The tools that change nothing.
pub(crate) const READING: [&str; 6] = [
    "wait_for_job",
    "read_output",
    "list_jobs",
    "list_files",
    "read_file",
    "list_templates",
];

/// What a service with a command policy can run by a name.
#[derive(Debug, Deserialize)]
pub(crate) struct Templates {
    /// It runs nothing else.
    pub(crate) only: bool,
    pub(crate) templates: Vec<Value>,
}

impl Templates {
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        let names = self.templates.iter();
        names.filter_map(|template| template["name"].as_str())
    }
}

/// What a service offers: commands and templates, or templates alone if a policy says so.
pub(crate) fn list(options: &Options, templates: Option<&Templates>) -> Vec<Tool> {
    let only = templates.is_some_and(|templates| templates.only);
    let templates = templates.filter(|it| it.only || !it.templates.is_empty());
    let mut tools = Vec::new();
    if !only {
        tools.push(run_command(options));
    }
    tools.extend([
        wait_for_job(options),
        read_output(options),
        write_input(),
        stop_job(),
        signal_job(),
        list_jobs(),
        list_files(),
        read_file(options),
        write_file(),
    ]);
    if let Some(templates) = templates {
        tools.extend([list_templates(), run_template(options, templates)]);
    }
    if options.read_only {
        tools.retain(|tool| READING.contains(&&*tool.name));
    }
    tools
}

fn tool(
    name: &'static str,
    what: &'static str,
    required: &[&str],
    properties: Value,
    hints: ToolAnnotations,
) -> Tool {
    let schema = json!({
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    });
    let schema: JsonObject = match schema {
        Value::Object(schema) => schema,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            JsonObject::new()
        }
    };
    Tool::new(name, what, Arc::new(schema)).with_annotations(hints)
}

fn reading() -> ToolAnnotations {
    ToolAnnotations::new().read_only(true).open_world(false)
}

fn running() -> ToolAnnotations {
    let hints = ToolAnnotations::new().read_only(false).destructive(true);
    hints.idempotent(false).open_world(true)
}

fn job_id() -> Value {
    json!({"type": "string", "description": "The id of the job, as run_command or list_jobs gave it."})
}

fn wait_seconds(default: u64) -> Value {
    json!({
        "type": "number", "minimum": 0, "maximum": WAIT_MAX, "default": default,
        "description": "How long this call waits. It is no limit on the job, which goes on.",
    })
}

fn output_bytes(options: &Options) -> Value {
    json!({
        "type": "integer", "minimum": 1, "maximum": OUTPUT_MAX, "default": options.output_bytes,
        "description": "The most output in the answer. Of more, beginning and end are shown, and where the rest is.",
    })
}

fn idempotency_key() -> Value {
    json!({"type": "string", "description": "Makes a repeat of this call the same job."})
}

fn on_cancel() -> Value {
    json!({
        "type": "string", "enum": ["leave", "stop"], "default": "leave",
        "description": "What becomes of the job when this call is cancelled.",
    })
}

fn run_command(options: &Options) -> Tool {
    let properties = json!({
        "command": {
            "type": "array", "items": {"type": "string"},
            "description": "Program and arguments. Without a shell: for pipes, && or * use script.",
        },
        "script": {"type": "string", "description": "Text for /bin/sh. Give command or script."},
        "cwd": {"type": "string", "description": "Absolute path of the working directory."},
        "env": {"type": "object", "additionalProperties": {"type": "string"}, "description": "Variables to set."},
        "stdin_text": {"type": "string", "description": "All of the standard input."},
        "interactive": {
            "type": "boolean", "default": false,
            "description": "Keeps the standard input open for write_input.",
        },
        "timeout_seconds": {
            "type": "number", "minimum": 0, "default": 600,
            "description": "After this the job is stopped, with all of its processes. 0: never, such as for a server.",
        },
        "name": {"type": "string", "description": "A name for people."},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        "queue": {"type": "string", "description": "The queue to wait in."},
        "ready_port": {
            "type": "integer", "minimum": 1, "maximum": 65535,
            "description": "For a server: wait until it listens on this port instead of until it ends.",
        },
        "ready_log": {
            "type": "string",
            "description": "Likewise: until a line of its output matches this regular expression. Give one of the two.",
        },
        "files": {
            "type": "object", "additionalProperties": {"type": "string"},
            "description": "Text files to put into a directory of the job's own before it starts there, by their paths. \
                Implies workspace.",
        },
        "workspace": {
            "type": "boolean", "default": false,
            "description": "Gives the job a directory of its own and starts it there. list_files and read_file show what is \
                in it, also after the end.",
        },
        "wait_seconds": wait_seconds(options.wait_seconds),
        "output_bytes": output_bytes(options),
        "idempotency_key": idempotency_key(),
        "on_cancel": on_cancel(),
    });
    let what = "Runs a command or a shell script as a job and waits for its end, with exit code and output in the \
        answer. When it takes longer than wait_seconds it goes on, and the answer says how to come back to it.";
    tool("run_command", what, &[], properties, running())
}

fn wait_for_job(options: &Options) -> Tool {
    let properties = json!({
        "job_id": job_id(),
        "wait_seconds": wait_seconds(options.wait_seconds),
        "until": {
            "type": "string", "enum": ["finished", "output", "ready"], "default": "finished",
            "description": "What to wait for: the end, output after offset, or that a server is ready (ready_port, ready_log).",
        },
        "offset": {"type": "integer", "minimum": 0, "description": "Shows the output from here on: next_offset of the last answer."},
        "output_bytes": output_bytes(options),
    });
    let what =
        "Waits for the end of a job, or for new output of it, and shows its state and output.";
    tool("wait_for_job", what, &["job_id"], properties, reading())
}

fn read_output(options: &Options) -> Tool {
    let properties = json!({
        "job_id": job_id(),
        "offset": {"type": "integer", "minimum": 0, "description": "Where to begin."},
        "tail_lines": {"type": "integer", "minimum": 1, "description": "So many lines at the end, instead of offset."},
        "output_bytes": output_bytes(options),
        "stream": {"type": "string", "enum": ["all", "stdout", "stderr"], "default": "all"},
        "match": {
            "type": "string",
            "description": "A regular expression: only the lines that match, each with its offset. Instead of offset and tail_lines.",
        },
    });
    let what = "Reads the output of a job: from an offset on, its last lines, lines that match, or beginning and end.";
    tool("read_output", what, &["job_id"], properties, reading())
}

fn write_input() -> Tool {
    let properties = json!({
        "job_id": job_id(),
        "text": {"type": "string", "default": "", "description": "What to write; a line needs its line feed."},
        "eof": {"type": "boolean", "default": false, "description": "Then ends the input."},
    });
    let hints = ToolAnnotations::new().read_only(false).destructive(false);
    let hints = hints.idempotent(false).open_world(true);
    let what = "Writes to the standard input of a job that was started with interactive.";
    tool("write_input", what, &["job_id"], properties, hints)
}

fn stop_job() -> Tool {
    let properties = json!({
        "job_id": job_id(),
        "grace_seconds": {
            "type": "number", "minimum": 0, "maximum": 86400,
            "description": "Between the polite signal and SIGKILL.",
        },
        "reason": {"type": "string", "description": "Kept with the job."},
        "wait_seconds": wait_seconds(20),
    });
    let hints = ToolAnnotations::new().read_only(false).destructive(true);
    let hints = hints.idempotent(true).open_world(false);
    let what =
        "Stops a job: every process that it has started, and says so only when none is left.";
    tool("stop_job", what, &["job_id"], properties, hints)
}

fn signal_job() -> Tool {
    let properties = json!({
        "job_id": job_id(),
        "signal": {"type": "string", "description": "Such as SIGHUP or SIGINT."},
        "scope": {
            "type": "string", "enum": ["group", "leader", "all"],
            "description": "The group of the first process, the first process alone, or every process of the job.",
        },
    });
    let hints = ToolAnnotations::new().read_only(false).destructive(true);
    let hints = hints.idempotent(false).open_world(false);
    let what =
        "Sends a signal to a job, such as SIGHUP to have a server read its configuration again.";
    tool("signal_job", what, &["job_id", "signal"], properties, hints)
}

fn list_jobs() -> Tool {
    let properties = json!({
        "state": {
            "type": "string",
            "description": "States, separated by commas: queued, starting, running, paused, stopping, succeeded, failed, canceled, timed_out, lost.",
        },
        "label_selector": {"type": "string", "description": "Such as team=data,!nightly."},
        "name_prefix": {"type": "string"},
        "limit": {"type": "integer", "minimum": 1, "maximum": 1000, "default": 20},
    });
    let what = "Lists jobs, the newest first: those that run, and those that have ended.";
    tool("list_jobs", what, &[], properties, reading())
}

fn file_path() -> Value {
    json!({"type": "string", "description": "Relative to the job's directory, such as out/report.txt."})
}

fn list_files() -> Tool {
    let properties = json!({
        "job_id": job_id(),
        "path": {"type": "string", "description": "Only what is in this directory of it."},
        "limit": {"type": "integer", "minimum": 1, "maximum": 1000, "default": 200},
    });
    let what =
        "Lists the files in the directory of a job that was started with files or workspace.";
    tool("list_files", what, &["job_id"], properties, reading())
}

fn read_file(options: &Options) -> Tool {
    let properties = json!({
        "job_id": job_id(),
        "path": file_path(),
        "offset": {"type": "integer", "minimum": 0, "default": 0, "description": "Where to begin, in bytes."},
        "output_bytes": {
            "type": "integer", "minimum": 1, "maximum": OUTPUT_MAX, "default": options.output_bytes,
            "description": "The most of the file in the answer, which says where the rest begins.",
        },
    });
    let what = "Reads a file of a job: text, a picture of at most 1 MiB, or else base64.";
    tool(
        "read_file",
        what,
        &["job_id", "path"],
        properties,
        reading(),
    )
}

fn write_file() -> Tool {
    let properties = json!({
        "job_id": job_id(),
        "path": file_path(),
        "text": {"type": "string", "description": "All that is to be in it."},
        "executable": {"type": "boolean", "default": false},
    });
    let hints = ToolAnnotations::new().read_only(false).destructive(true);
    let hints = hints.idempotent(true).open_world(false);
    let what = "Writes a file into the directory of a job that has not ended. It replaces one that is there, at once.";
    let required = &["job_id", "path", "text"];
    tool("write_file", what, required, properties, hints)
}

fn list_templates() -> Tool {
    let what = "Lists the templates that this service runs, with their parameters.";
    tool("list_templates", what, &[], json!({}), reading())
}

fn run_template(options: &Options, templates: &Templates) -> Tool {
    let names: Vec<&str> = templates.names().collect();
    let properties = json!({
        "template": {"type": "string", "enum": names, "description": "list_templates has their parameters."},
        "params": {"type": "object", "description": "A value for each parameter of the template."},
        "name": {"type": "string", "description": "A name for people."},
        "wait_seconds": wait_seconds(options.wait_seconds),
        "output_bytes": output_bytes(options),
        "idempotency_key": idempotency_key(),
        "on_cancel": on_cancel(),
    });
    let what = match templates.only {
        true => {
            "Runs a template as a job and waits for its end, with exit code and output in the answer. This \
            service runs nothing else. When it takes longer than wait_seconds it goes on, and the answer says how to \
            come back to it."
        }
        false => {
            "Runs a template as a job and waits for its end, with exit code and output in the answer. When it \
            takes longer than wait_seconds it goes on, and the answer says how to come back to it."
        }
    };
    tool("run_template", what, &["template"], properties, running())
}
