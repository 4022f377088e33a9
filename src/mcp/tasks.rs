//! Tasks (`io.modelcontextprotocol/tasks`): a task is a job, its id is the job's, and nothing else is kept of it.

use jiff::{SignedDuration, Timestamp};
use rmcp::ErrorData;
use rmcp::model::{
    CreateTaskResult, DetailedTask, GetTaskResult, JsonObject, Task, TaskPayload, TaskStatus,
};
use serde_json::{Value, json};

use crate::Tools;
use crate::arguments::Until;
use crate::calls::job_path;
use crate::door::{Ask, Verb};
use crate::refusal::Refusal;
use crate::text::{Job, Shown};

/// How often to ask for a young job and for an old one, in milliseconds.
const OFTEN: u64 = 1_000;
const SELDOM: u64 = 5_000;

/// The task that a call becomes whose job continues.
pub(crate) fn handle(job: &Job, now: Timestamp) -> CreateTaskResult {
    CreateTaskResult::new(task(job, now))
}

fn task(job: &Job, now: Timestamp) -> Task {
    let last = job.finished_at.unwrap_or(now);
    let age = now.duration_since(job.created_at);
    // A twentieth of its age: after two minutes every five seconds.
    let pause = u64::try_from(age.as_millis() / 20).unwrap_or(OFTEN);
    let mut task = Task::new(
        job.id.clone(),
        TaskStatus::Working,
        job.created_at.to_string(),
        last.to_string(),
    )
    .with_status_message(job.verdict(now))
    .with_poll_interval_ms(pause.clamp(OFTEN, SELDOM));
    if let Some(expires_at) = job.expires_at {
        let ttl: SignedDuration = expires_at.duration_since(job.created_at);
        task = task.with_ttl_ms(u64::try_from(ttl.as_millis()).unwrap_or(0));
    }
    task
}

/// What the state of a job is as the state of a task.
fn payload(job: &Job, shown: &Shown, now: Timestamp) -> TaskPayload {
    match job.state.as_str() {
        "canceled" => TaskPayload::Cancelled,
        "lost" => TaskPayload::Failed {
            error: object(json!({"code": -32603, "message": job.verdict(now)})),
        },
        _ if job.has_ended() => {
            let result = serde_json::to_value(job.result(shown, now));
            TaskPayload::Completed {
                result: object(result.unwrap_or_default()),
            }
        }
        _ => TaskPayload::Working,
    }
}

fn object(value: Value) -> JsonObject {
    match value {
        Value::Object(object) => object,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            JsonObject::new()
        }
    }
}

/// Unknown, and somebody else's, alike.
fn no_such_task() -> ErrorData {
    ErrorData::invalid_params("no such task", None)
}

fn refused(refusal: Refusal) -> ErrorData {
    match refusal {
        Refusal::Problem(problem) if problem.code == "job_not_found" => no_such_task(),
        Refusal::Arguments(_) => no_such_task(),
        Refusal::Problem(_) | Refusal::Door(_) | Refusal::Cancelled => refusal.into_error(),
    }
}

/// `tasks/get`
pub(crate) async fn get(tools: &Tools, id: &str) -> Result<GetTaskResult, ErrorData> {
    let bytes = tools.bytes_of(None).map_err(refused)?;
    let mut job = tools
        .look(id, (0.0, Until::Finished), bytes)
        .await
        .map_err(refused)?;
    let now = Timestamp::now();
    let shown = job.output.excerpt.take().map(Shown::from);
    let payload = payload(&job, &shown.unwrap_or_default(), now);
    Ok(GetTaskResult::new(DetailedTask::new(
        task(&job, now),
        payload,
    )))
}

/// `tasks/cancel`
pub(crate) async fn cancel(tools: &Tools, id: &str) -> Result<(), ErrorData> {
    let path = job_path(id).map_err(refused)?;
    let ask = Ask::new(Verb::Delete, path).with("reason", "cancelled by the client");
    tools.ask(ask).await.map(drop).map_err(refused)
}
