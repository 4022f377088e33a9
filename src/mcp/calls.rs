//! What the tools do: each asks the API by the door, and says what came of it.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ErrorCode, ProgressNotificationParam,
};
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::arguments::{self, OnCancel, Until, Which};
use crate::door::{Answer, Ask, Body, Door, Verb};
use crate::refusal::Refusal;
use crate::text::{self, Job, Shown};
use crate::tools::{READING, Templates};
use crate::{OUTPUT_MAX, Tools, WAIT_MAX, files, search};

/// What is answered about a job that continues or has ended.
struct Waited {
    job: Job,
    shown: Shown,
    until: Until,
}

/// Stops a job unless it is told not to: for calls that are dropped.
struct StopUnless {
    door: Arc<dyn Door>,
    id: Option<String>,
}

impl Drop for StopUnless {
    fn drop(&mut self) {
        if let Some(id) = self.id.take() {
            let ask = Ask::new(Verb::Delete, format!("/jobs/{id}"));
            self.door
                .leave(ask.with("reason", "cancelled by the client"));
        }
    }
}

impl Tools {
    /// Does what a tool does.
    pub(crate) async fn call(
        &self,
        request: CallToolRequestParams,
        context: &RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let name = request.name.as_ref();
        let given = request.arguments;
        if self.options.read_only && !READING.contains(&name) {
            return Err(unknown_tool(name));
        }
        let done = match name {
            "run_command" => self.run_command(given, context).await,
            "run_template" => self.run_template(given, context).await,
            "wait_for_job" => self.wait_for_job(given, context).await,
            "read_output" => self.read_output(given).await.map(Into::into),
            "write_input" => self.write_input(given).await.map(Into::into),
            "stop_job" => self.stop_job(given).await.map(Into::into),
            "signal_job" => self.signal_job(given).await.map(Into::into),
            "list_jobs" => self.list_jobs(given).await.map(Into::into),
            "list_files" => files::list(self, given).await.map(Into::into),
            "read_file" => files::read(self, given).await.map(Into::into),
            "write_file" => files::write(self, given).await.map(Into::into),
            "list_templates" => self.list_templates(given).await.map(Into::into),
            _ => return Err(unknown_tool(name)),
        };
        Ok(done.unwrap_or_else(|refusal| refusal.into_result().into()))
    }

    /// Sends a request; an answer that is no success is a refusal.
    pub(crate) async fn ask(&self, ask: Ask) -> Result<Answer, Refusal> {
        let answer = self.door.ask(ask).await.map_err(Refusal::Door)?;
        if (200..300).contains(&answer.status) {
            return Ok(answer);
        }
        Err(match serde_json::from_slice(&answer.body) {
            Ok(problem) => Refusal::Problem(problem),
            Err(_) => Refusal::Door(format!("the service answered {}", answer.status)),
        })
    }

    pub(crate) async fn json<T: for<'de> Deserialize<'de>>(&self, ask: Ask) -> Result<T, Refusal> {
        let answer = self.ask(ask).await?;
        serde_json::from_slice(&answer.body)
            .map_err(|error| Refusal::Door(format!("the answer was not understood: {error}")))
    }

    /// The templates, if the service knows of such.
    pub(crate) async fn templates(&self) -> Result<Option<Templates>, Refusal> {
        match self.json(Ask::new(Verb::Get, "/templates")).await {
            Ok(templates) => Ok(Some(templates)),
            Err(Refusal::Problem(problem)) if problem.code == "not_found" => Ok(None),
            Err(refusal) => Err(refusal),
        }
    }

    /// The job with so much of its output, by now or once it has ended.
    pub(crate) async fn look(
        &self,
        id: &str,
        (wait, until): (f64, Until),
        bytes: u64,
    ) -> Result<Job, Refusal> {
        let until = match until {
            Until::Ready => "ready",
            Until::Finished | Until::Output => "finished",
        };
        let ask = Ask::new(Verb::Get, job_path(id)?)
            .with("wait", wait)
            .with("until", until)
            .with("output_bytes", bytes)
            .with("output_ansi", "strip");
        self.json(ask).await
    }

    fn wait_of(&self, given: Option<f64>) -> Result<f64, Refusal> {
        let most = f64::from(u32::try_from(WAIT_MAX).unwrap_or(u32::MAX));
        let usual = f64::from(u32::try_from(self.options.wait_seconds).unwrap_or(u32::MAX));
        let wait = given.unwrap_or(usual);
        if (0.0..=most).contains(&wait) {
            Ok(wait)
        } else {
            let why = format!("wait_seconds: from 0 to {WAIT_MAX}");
            Err(Refusal::Arguments(why))
        }
    }

    pub(crate) fn bytes_of(&self, given: Option<u64>) -> Result<u64, Refusal> {
        let bytes = given.unwrap_or(self.options.output_bytes);
        if (1..=OUTPUT_MAX).contains(&bytes) {
            Ok(bytes)
        } else {
            let why = format!("output_bytes: from 1 to {OUTPUT_MAX}");
            Err(Refusal::Arguments(why))
        }
    }

    async fn run_command(
        &self,
        given: Option<rmcp::model::JsonObject>,
        context: &RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, Refusal> {
        let run: arguments::Run = arguments::read(given).map_err(Refusal::Arguments)?;
        let body = run.body().map_err(Refusal::Arguments)?;
        let (wait, bytes) = (
            self.wait_of(run.wait_seconds)?,
            self.bytes_of(run.output_bytes)?,
        );
        let until = run.until();
        let mut ask = Ask::new(Verb::Post, "/jobs").json(body);
        ask.idempotency_key = run.idempotency_key;
        self.run(ask, (wait, until), bytes, run.on_cancel, context)
            .await
    }

    async fn run_template(
        &self,
        given: Option<rmcp::model::JsonObject>,
        context: &RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, Refusal> {
        let run: arguments::RunTemplate = arguments::read(given).map_err(Refusal::Arguments)?;
        let (wait, bytes) = (
            self.wait_of(run.wait_seconds)?,
            self.bytes_of(run.output_bytes)?,
        );
        let mut body = json!({"template": run.template, "params": run.params});
        if let Some(name) = run.name {
            body["name"] = name.into();
        }
        let mut ask = Ask::new(Verb::Post, "/jobs").json(body);
        ask.idempotency_key = run.idempotency_key;
        let wait = (wait, Until::Finished);
        self.run(ask, wait, bytes, run.on_cancel, context).await
    }

    /// Starts a job and waits for it.
    async fn run(
        &self,
        ask: Ask,
        wait: (f64, Until),
        bytes: u64,
        on_cancel: OnCancel,
        context: &RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, Refusal> {
        let job: Job = self.json(ask).await?;
        self.note_started(&job.id);
        let mut guard = StopUnless {
            door: self.door.clone(),
            id: (on_cancel == OnCancel::Stop).then(|| job.id.clone()),
        };
        progress(context, &job).await;
        let looked = self.look(&job.id, wait, bytes);
        let mut job = unless_cancelled(context, looked).await?;
        guard.id = None;
        let shown = job.output.excerpt.take().map(Shown::from);
        let shown = shown.unwrap_or_default();
        let until = wait.1;
        Ok(self.waited(Waited { job, shown, until }, context))
    }

    async fn wait_for_job(
        &self,
        given: Option<rmcp::model::JsonObject>,
        context: &RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, Refusal> {
        let wait: arguments::Wait = arguments::read(given).map_err(Refusal::Arguments)?;
        let (seconds, bytes) = (
            self.wait_of(wait.wait_seconds)?,
            self.bytes_of(wait.output_bytes)?,
        );
        let id = &wait.job_id;
        let waited = async {
            let mut seconds = seconds;
            if wait.until == Until::Output {
                self.wait_for_output(id, wait.offset.unwrap_or(0), seconds)
                    .await?;
                seconds = 0.0;
            }
            let mut job = self.look(id, (seconds, wait.until), bytes).await?;
            let shown = match wait.offset {
                None => job
                    .output
                    .excerpt
                    .take()
                    .map(Shown::from)
                    .unwrap_or_default(),
                Some(offset) => self.part(id, Which::All, Some(offset), None, bytes).await?,
            };
            let until = wait.until;
            Ok(Waited { job, shown, until })
        };
        let waited = unless_cancelled(context, waited).await?;
        Ok(self.waited(waited, context))
    }

    /// The answer about a job: a task where it continues and the client takes tasks.
    fn waited(&self, waited: Waited, context: &RequestContext<RoleServer>) -> CallToolResponse {
        let now = Timestamp::now();
        let takes_tasks = context
            .client_capabilities()
            .is_some_and(|capabilities| capabilities.supports_tasks());
        let is_due = waited.until == Until::Ready && waited.job.knows_ready();
        if !waited.job.has_ended() && !is_due && takes_tasks {
            return crate::tasks::handle(&waited.job, now).into();
        }
        waited.job.result(&waited.shown, now).into()
    }

    /// Waits until there is a byte at this offset, the job has ended, or the time is up.
    async fn wait_for_output(&self, id: &str, offset: u64, seconds: f64) -> Result<(), Refusal> {
        let path = format!("{}/output", job_path(id)?);
        let ask = Ask::new(Verb::Get, path)
            .with("follow", true)
            .with("offset", offset)
            .with("limit_bytes", 1);
        let limit = Duration::try_from_secs_f64(seconds).unwrap_or_default();
        match tokio::time::timeout(limit, self.ask(ask)).await {
            // There is nothing at this offset yet.
            Err(_) => Ok(()),
            Ok(answered) => answered.map(drop),
        }
    }

    /// Output from an offset on, or the last lines.
    async fn part(
        &self,
        id: &str,
        which: Which,
        offset: Option<u64>,
        tail_lines: Option<u64>,
        bytes: u64,
    ) -> Result<Shown, Refusal> {
        let ask = Ask::new(Verb::Get, format!("{}/output", job_path(id)?))
            .with("stream", which.as_str())
            .with_any("offset", offset)
            .with_any("tail_lines", tail_lines)
            .with("limit_bytes", bytes);
        let answer = self.ask(ask).await?;
        let most = usize::try_from(bytes).unwrap_or(usize::MAX);
        let is_cut = answer.body.len() >= most;
        // The offsets of one stream have gaps, so that nothing can be given back.
        let (text, left) = text::plain(&answer.body, is_cut && which == Which::All);
        let left = u64::try_from(left).unwrap_or(0);
        Ok(Shown {
            text,
            next_offset: answer.next_offset.unwrap_or(0).saturating_sub(left),
            is_cut: false,
        })
    }

    async fn read_output(
        &self,
        given: Option<rmcp::model::JsonObject>,
    ) -> Result<CallToolResult, Refusal> {
        let read: arguments::Read = arguments::read(given).map_err(Refusal::Arguments)?;
        let bytes = self.bytes_of(read.output_bytes)?;
        let id = &read.job_id;
        let places = [read.offset.is_some(), read.tail_lines.is_some()];
        let places = places.into_iter().chain([read.r#match.is_some()]);
        if places.filter(|is_given| *is_given).count() > 1 {
            let why = "give one of offset, tail_lines and match".to_owned();
            return Err(Refusal::Arguments(why));
        }
        if let Some(pattern) = read.r#match {
            return search::lines(self, id, pattern, read.stream, bytes).await;
        }
        let (job, shown) = if read.offset.is_some() || read.tail_lines.is_some() {
            let job = self.look(id, (0.0, Until::Finished), 0).await?;
            let part = self.part(id, read.stream, read.offset, read.tail_lines, bytes);
            (job, part.await?)
        } else {
            let ask = Ask::new(Verb::Get, job_path(id)?)
                .with("output_bytes", bytes)
                .with("output_stream", read.stream.as_str())
                .with("output_ansi", "strip");
            let mut job: Job = self.json(ask).await?;
            let shown = job.output.excerpt.take().map(Shown::from);
            (job, shown.unwrap_or_default())
        };
        Ok(job.result(&shown, Timestamp::now()))
    }

    async fn write_input(
        &self,
        given: Option<rmcp::model::JsonObject>,
    ) -> Result<CallToolResult, Refusal> {
        let write: arguments::Write = arguments::read(given).map_err(Refusal::Arguments)?;
        let mut ask = Ask::new(Verb::Post, format!("{}/stdin", job_path(&write.job_id)?));
        if write.eof {
            ask = ask.with("eof", true);
        }
        let length = write.text.len();
        ask.body = Body::Bytes(write.text.into_bytes());
        self.ask(ask).await?;
        let end = if write.eof {
            ", and ended the input"
        } else {
            ""
        };
        let text = format!("wrote {length} bytes{end} (job {})", write.job_id);
        let structured = json!({"job_id": write.job_id, "written_bytes": length, "eof": write.eof});
        Ok(text::answer(text, structured))
    }

    async fn stop_job(
        &self,
        given: Option<rmcp::model::JsonObject>,
    ) -> Result<CallToolResult, Refusal> {
        let stop: arguments::Stop = arguments::read(given).map_err(Refusal::Arguments)?;
        let wait = self.wait_of(Some(stop.wait_seconds.unwrap_or(20.0)))?;
        let ask = Ask::new(Verb::Delete, job_path(&stop.job_id)?)
            .with("wait", wait)
            .with_any("grace_seconds", stop.grace_seconds)
            .with_any("reason", stop.reason);
        let answer = self.ask(ask).await?;
        let is_over = answer.status == 200;
        let job: Job = serde_json::from_slice(&answer.body)
            .map_err(|error| Refusal::Door(format!("the answer was not understood: {error}")))?;
        let verdict = job.verdict(Timestamp::now());
        let text = if is_over {
            format!("stopped; no process is left\n{verdict}")
        } else {
            format!("the stop is under way: call wait_for_job\n{verdict}")
        };
        let structured = json!({"job_id": job.id, "state": job.state, "no_process_left": is_over});
        Ok(text::answer(text, structured))
    }

    async fn signal_job(
        &self,
        given: Option<rmcp::model::JsonObject>,
    ) -> Result<CallToolResult, Refusal> {
        let signal: arguments::Signal = arguments::read(given).map_err(Refusal::Arguments)?;
        let mut body = json!({"signal": signal.signal});
        if let Some(scope) = signal.scope {
            body["scope"] = scope.into();
        }
        let path = format!("{}/signal", job_path(&signal.job_id)?);
        let delivered: Value = self.json(Ask::new(Verb::Post, path).json(body)).await?;
        let count = &delivered["delivered_to"];
        let mut text = format!("delivered to {count} processes (job {})", signal.job_id);
        let mut facts = json!({"job_id": signal.job_id, "delivered_to": count});
        if let Some(note) = delivered["note"].as_str() {
            text = format!("{text}; {note}");
            facts["note"] = note.into();
        }
        Ok(text::answer(text, facts))
    }

    async fn list_jobs(
        &self,
        given: Option<rmcp::model::JsonObject>,
    ) -> Result<CallToolResult, Refusal> {
        let list: arguments::List = arguments::read(given).map_err(Refusal::Arguments)?;
        let ask = Ask::new(Verb::Get, "/jobs")
            .with("view", "basic")
            .with("page_size", list.limit.unwrap_or(20))
            .with_any("state", list.state)
            .with_any("label_selector", list.label_selector)
            .with_any("name_prefix", list.name_prefix);
        let page: Value = self.json(ask).await?;
        let fields = [
            "id",
            "name",
            "labels",
            "state",
            "state_reason",
            "command",
            "created_at",
            "finished_at",
            "exit",
        ];
        let jobs = page["jobs"].as_array().into_iter().flatten();
        let jobs: Vec<Value> = jobs
            .map(|job| {
                fields
                    .iter()
                    .map(|name| (*name, job[name].clone()))
                    .collect()
            })
            .collect();
        let more = !page["next_page_token"].is_null();
        let mut text = format!("{}{} jobs", jobs.len(), if more { " or more" } else { "" });
        for job in &jobs {
            let word = |name: &str| job[name].as_str().unwrap_or_default();
            let name = job["name"]
                .as_str()
                .map(|name| format!("{name}: "))
                .unwrap_or_default();
            let (id, state, command) = (word("id"), word("state"), word("command"));
            text.push_str(&format!("\n{id} {state} {name}{command}"));
        }
        Ok(text::answer(text, json!({"jobs": jobs, "more": more})))
    }

    async fn list_templates(
        &self,
        given: Option<rmcp::model::JsonObject>,
    ) -> Result<CallToolResult, Refusal> {
        let arguments::Nothing {} = arguments::read(given).map_err(Refusal::Arguments)?;
        let templates = self.templates().await?;
        let templates = templates.map(|found| found.templates).unwrap_or_default();
        let mut text = format!("{} templates", templates.len());
        for template in &templates {
            text.push_str(&format!("\n{template}"));
        }
        Ok(text::answer(text, json!({"templates": templates})))
    }
}

/// The path of a job. What is no id would be a path of its own.
pub(crate) fn job_path(id: &str) -> Result<String, Refusal> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if (1..=64).contains(&id.len()) && id.bytes().all(plain) {
        Ok(format!("/jobs/{id}"))
    } else {
        Err(Refusal::Arguments(
            "job_id: the id of a job, such as list_jobs shows".to_owned(),
        ))
    }
}

fn unknown_tool(name: &str) -> ErrorData {
    ErrorData::new(
        ErrorCode::INVALID_PARAMS,
        format!("unknown tool: {name}"),
        None,
    )
}

/// Tells the job's id, so that a client whose call ends early knows what to come back to.
async fn progress(context: &RequestContext<RoleServer>, job: &Job) {
    let Some(token) = context.meta.get_progress_token() else {
        return;
    };
    let message = format!("job {} is {}", job.id, job.state);
    let told = ProgressNotificationParam::new(token, 0.0).with_message(message);
    // Who does not hear it asks for a list.
    let _ = context.peer.notify_progress(told).await;
}

/// The work, or that the client no longer waits for it.
async fn unless_cancelled<T>(
    context: &RequestContext<RoleServer>,
    work: impl Future<Output = Result<T, Refusal>>,
) -> Result<T, Refusal> {
    tokio::select! {
        biased;
        () = context.ct.cancelled() => Err(Refusal::Cancelled),
        done = work => done,
    }
}
