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
use job::query::{Filter, Order, Query};
use job::selector::Selector;
use job::time::Timestamp;
use job::{JobId, State as JobState};
use linux::clock;
use manager::LookupError;

/// The parameters of [`counts`].
pub(super) const COUNTS: &[&str] = &[
    "label_selector",
    "name",
    "name_prefix",
    "queue",
    "batch",
    "schedule",
    "node",
    "created_by",
    "created_after",
    "created_before",
    "limit",
];

/// The parameters of [`usage`].
pub(super) const USAGE: &[&str] = &["job_ids", "label_selector"];

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

/// `GET /jobs/usage`: of those of the named jobs, or of the newest that match, that run.
pub(super) async fn usage(
    State(api): State<Api>,
    mut params: Params,
) -> Result<Response, ApiError> {
    let ids = params.parsed(
        "job_ids",
        "at most 200 ids of jobs, separated by commas",
        |text| {
            let ids: Option<Vec<JobId>> =
                text.split(',').map(|id| id.trim().parse().ok()).collect();
            ids.filter(|ids| ids.len() <= JOBS)
        },
    );
    let selects = !params.all("label_selector").is_empty();
    let selector = page::selector(&mut params);
    match (params.all("job_ids").is_empty(), selects) {
        (true, false) => params.refuse("job_ids", "missing", "give job_ids or label_selector"),
        (false, true) => {
            params.refuse(
                "label_selector",
                "conflict",
                "give job_ids or label_selector",
            );
        }
        (true, true) | (false, false) => {}
    }
    params.finish()?;
    let ids = match ids {
        Some(ids) => ids,
        None => running(&api, selector).await?,
    };
    let mut seen = HashSet::new();
    let mut usage = Vec::new();
    for id in ids.into_iter().filter(|id| seen.insert(*id)) {
        let used = match api.manager.used(id).await {
            Ok(used) => used,
            // It is gone.
            Err(LookupError::NoSuchJob) => continue,
            Err(error) => return Err(error.into()),
        };
        if used.processes == 0 {
            continue;
        }
        usage.push(Use {
            job_id: id.to_string(),
            at: clock::wall(),
            processes: used.processes,
            user_cpu_seconds: used.user_cpu_seconds,
            system_cpu_seconds: used.system_cpu_seconds,
            rss_bytes: used.rss_bytes,
        });
    }
    Ok(Json(serde_json::json!({"usage": usage})).into_response())
}

/// The newest jobs that match and have processes.
async fn running(api: &Api, selector: Selector) -> Result<Vec<JobId>, ApiError> {
    let query = Query {
        filter: Filter {
            states: vec![JobState::Running, JobState::Paused, JobState::Stopping],
            selector,
            ..Filter::default()
        },
        order: Order::CreatedDescending,
        after: None,
        limit: JOBS,
        is_brief: true,
    };
    let page = api.manager.list(query).await?;
    Ok(page.jobs.iter().map(|job| job.id).collect())
}
