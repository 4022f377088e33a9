//! The route on what happened by the minute or the hour.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::problem::ApiError;
use super::query::Params;
use crate::api::Api;
use job::time::Timestamp;
use linux::clock;
use manager::Row;

/// The parameters of [`stats`].
pub(super) const STATS: &[&str] = &["since", "step"];

/// So many steps are told at most.
const STEPS: u64 = 1500;

#[derive(Debug, Serialize)]
struct Stats {
    step_seconds: u64,
    steps: Vec<Step>,
}

#[derive(Debug, Serialize)]
struct Step {
    at: Timestamp,
    created: u64,
    started: u64,
    succeeded: u64,
    failed: u64,
    timed_out: u64,
    canceled: u64,
    lost: u64,
    most_running: u64,
    most_queued: u64,
    cpu_seconds: f64,
}

impl From<(Timestamp, Row)> for Step {
    fn from((at, row): (Timestamp, Row)) -> Self {
        Self {
            at,
            created: row.created,
            started: row.started,
            succeeded: row.succeeded,
            failed: row.failed,
            timed_out: row.timed_out,
            canceled: row.canceled,
            lost: row.lost,
            most_running: row.most_running,
            most_queued: row.most_queued,
            cpu_seconds: Duration::from_micros(row.cpu_micros).as_secs_f64(),
        }
    }
}

/// `GET /stats`
pub(super) async fn stats(
    State(api): State<Api>,
    mut params: Params,
) -> Result<Response, ApiError> {
    let since: Option<Timestamp> = params.parsed(
        "since",
        "a time in RFC 3339, such as 2026-01-31T12:00:00Z; a + in it is written %2B",
        |text| text.parse().ok(),
    );
    let step = params.parsed("step", "60 or 3600", |text| match text {
        "60" => Some(60),
        "3600" => Some(3600),
        _ => None,
    });
    params.finish()?;
    let step: u64 = step.unwrap_or(60);
    let now = clock::wall();
    let micros = |seconds: u64| i64::try_from(seconds * 1_000_000).unwrap_or(i64::MAX);
    let earlier = |seconds| Timestamp::from_micros(now.as_micros().saturating_sub(micros(seconds)));
    let since = since.unwrap_or_else(|| earlier(60 * step));
    let since = since.max(earlier(STEPS * step));
    let steps = api.manager.stats(since, step / 60).await;
    let steps = steps.map_err(|error| ApiError::io("reading what happened", &error))?;
    let stats = Stats {
        step_seconds: step,
        steps: steps.into_iter().map(Step::from).collect(),
    };
    Ok(Json(stats).into_response())
}
