//! `DELETE /jobs/{id}`: ends every process of a job, and removes the job with `purge`.

use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};

use crate::api::Api;
use crate::extract::{InPath, Wait};
use crate::layers::auth::Caller;
use crate::problem::ApiError;
use crate::query::{self, Params};
use crate::request::MAX_REASON_CHARACTERS;
use crate::respond;
use job::life::Stop;
use job::{Cause, Signal};
use manager::{Purged, Until};

/// The parameters of [`stop`].
pub(crate) const STOP: &[&str] = &[
    "grace_seconds",
    "signal",
    "force",
    "reason",
    "wait",
    "purge",
];

/// The longest grace period that a stop may ask for.
const MAX_GRACE: Duration = Duration::from_hours(24);

/// What a `DELETE` of a job or a batch says.
pub(crate) struct End {
    pub(crate) stop: Stop,
    /// Remove it once it has ended.
    pub(crate) purge: bool,
    pub(crate) wait: Wait,
}

impl End {
    pub(crate) fn of(
        mut params: Params,
        caller: &Caller,
        headers: &HeaderMap,
    ) -> Result<Self, ApiError> {
        let end = Self {
            wait: Wait::of(&mut params, headers),
            stop: stop_wanted(&mut params, caller),
            purge: params.flag("purge"),
        };
        params.finish()?;
        Ok(end)
    }
}

/// `DELETE /jobs/{id}`
pub(crate) async fn stop(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    InPath(id): InPath,
    params: Params,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let End { stop, purge, wait } = End::of(params, &caller, &headers)?;
    let manager = &api.manager;
    let job = if purge {
        // The manager continues with a purge that nobody waits for any more.
        let limit = wait.patience();
        let Purged::StillThere(job) = manager.purge(id, stop, limit).await? else {
            let mut response = StatusCode::NO_CONTENT.into_response();
            wait.mark(&mut response);
            return Ok(response);
        };
        job
    } else {
        let job = manager.stop(id, stop).await?;
        if job.state.is_terminal() || wait.limit.is_zero() {
            job
        } else {
            manager.wait(id, Until::Finished, wait.limit).await?
        }
    };
    // What a lost job has left is ended like a job's processes.
    let is_over = job.state.is_terminal() && manager.survivors_ended(&job, wait.limit).await;
    let status = if is_over && !purge {
        StatusCode::OK
    } else {
        StatusCode::ACCEPTED
    };
    let mut response = respond::job(&api, status, &job);
    wait.mark(&mut response);
    Ok(response)
}

fn stop_wanted(params: &mut Params, caller: &Caller) -> Stop {
    let grace = params.parsed(
        "grace_seconds",
        "a number of seconds from 0 to 86400",
        |text| query::seconds(text).filter(|grace| *grace <= MAX_GRACE),
    );
    let reason = params.text("reason");
    if reason
        .as_ref()
        .is_some_and(|reason| reason.chars().count() > MAX_REASON_CHARACTERS)
    {
        params.refuse("reason", "too_long", "at most 1024 characters");
    }
    let signal = params.parsed("signal", "a signal such as SIGTERM, TERM or 15", |text| {
        text.parse::<Signal>().ok()
    });
    Stop {
        cause: Cause::Canceled,
        requested_by: Some(caller.actor.to_string()),
        reason,
        signal,
        grace,
        force: params.flag("force"),
    }
}
