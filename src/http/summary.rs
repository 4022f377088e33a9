//! Routes that tell of many jobs in few numbers.

use std::collections::HashSet;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::page;
use super::problem::ApiError;
use super::query::Params;
use crate::api::Api;
use job::time::Timestamp;
use job::{JobId, State as JobState};
use linux::clock;
use manager::RequestError;

/// The parameters of [`counts`].
pub(super) const COUNTS: &[&str] = &[
    "label_selector",
    "name_prefix",
    "queue",
    "batch",
    "schedule",
    "created_after",
    "created_before",
    "limit",
];

/// The parameters of [`usage`].
pub(super) const USAGE: &[&str] = &["job_ids"];

/// Beyond so many of a state they are not counted, unless the count costs nothing.
const LIMIT: u64 = 10_000;

/// The most jobs of one look at what they use.
const JOBS: usize = 200;

#[derive(Debug, Serialize)]
struct Count {
    state: JobState,
    count: u64,
    exact: bool,
}

/// `GET /jobs/counts`
pub(super) async fn counts(
    State(api): State<Api>,
    mut params: Params,
) -> Result<Response, ApiError> {
    let filter = page::filter(&mut params);
    let limit = params.integer("limit").unwrap_or(LIMIT);
    if !(1..=LIMIT).contains(&limit) {
        params.refuse("limit", "out_of_range", "must be from 1 to 10000");
    }
    params.finish()?;
    let counts = api.manager.counts(filter, limit).await?;
    let counts: Vec<Count> = counts
        .into_iter()
        .map(|(state, count, exact)| Count {
            state,
            count,
            exact,
        })
        .collect();
    Ok(Json(serde_json::json!({"counts": counts})).into_response())
}

#[derive(Debug, Serialize)]
struct Use {
    job_id: String,
    at: Timestamp,
    processes: usize,
    user_cpu_seconds: f64,
    system_cpu_seconds: f64,
    rss_bytes: u64,
}

/// `GET /jobs/usage`: of those of the named jobs that run.
pub(super) async fn usage(
    State(api): State<Api>,
    mut params: Params,
) -> Result<Response, ApiError> {
    let ids = params.parsed(
        "job_ids",
        "at most 200 ids of jobs, separated by commas",
        |text| {
            let ids: Option<HashSet<JobId>> =
                text.split(',').map(|id| id.trim().parse().ok()).collect();
            ids.filter(|ids| ids.len() <= JOBS)
        },
    );
    if ids.is_none() && params.all("job_ids").is_empty() {
        params.refuse("job_ids", "missing", "name the jobs");
    }
    params.finish()?;
    let mut usage = Vec::new();
    for id in ids.unwrap_or_default() {
        let processes = match api.manager.processes(id).await {
            Ok(processes) => processes,
            // It is gone, has not begun, or is between two monitors.
            Err(RequestError::NoSuchJob | RequestError::Refused(_) | RequestError::MonitorGone) => {
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        if processes.is_empty() {
            continue;
        }
        usage.push(Use {
            job_id: id.to_string(),
            at: clock::wall(),
            processes: processes.len(),
            user_cpu_seconds: processes.iter().map(|one| one.user_cpu_seconds).sum(),
            system_cpu_seconds: processes.iter().map(|one| one.system_cpu_seconds).sum(),
            rss_bytes: processes.iter().map(|one| one.rss_bytes).sum(),
        });
    }
    Ok(Json(serde_json::json!({"usage": usage})).into_response())
}
