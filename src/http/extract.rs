//! What handlers take from a request: the job that the path names, parameters, how long to wait.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::{FromRequestParts, Path};
use axum::http::HeaderMap;
use axum::http::request::Parts;
use axum::response::Response;

use crate::headers::PREFERENCE_APPLIED;
use crate::problem::{ApiError, Place, Violation};
use crate::query::Params;
use crate::{accept, respond};
use job::{JobId, Spec, label};
use manager::Until;

/// The longest that a request may wait; what asks for more is lowered to it.
pub(super) const MAX_WAIT: Duration = Duration::from_secs(300);

/// The job that the path names.
#[derive(Clone, Copy, Debug)]
pub(super) struct InPath(pub(super) JobId);

impl<S: Send + Sync> FromRequestParts<S> for InPath {
    type Rejection = ApiError;

    /// What does not parse names no job.
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        // Behind it may come the path of a file.
        Path::<Vec<(String, String)>>::from_request_parts(parts, state)
            .await
            .ok()
            .and_then(|Path(all)| all.first()?.1.parse().ok())
            .map(Self)
            .ok_or(ApiError::JobNotFound)
    }
}

/// The name in a path with one parameter; `None` for what cannot be the name of anything.
pub(super) async fn name_in_path<S: Send + Sync>(parts: &mut Parts, state: &S) -> Option<String> {
    let name = Path::<String>::from_request_parts(parts, state).await;
    name.ok()
        .map(|Path(name)| name)
        .filter(|name| !name.is_empty() && label::check_value(name).is_ok())
}

impl<S: Send + Sync> FromRequestParts<S> for Params {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::of(&parts.uri))
    }
}

/// How long a client is ready to wait, by `?wait` or, if that is absent, by `Prefer: wait`.
#[derive(Debug)]
pub(super) struct Wait {
    pub(super) limit: Duration,
    /// What is waited for.
    pub(super) until: Until,
    asked: bool,
    applied: Option<String>,
}

impl Wait {
    pub(super) fn of(params: &mut Params, headers: &HeaderMap) -> Self {
        let (wish, applied) = match (params.seconds("wait"), accept::preferred_wait(headers)) {
            (Some(wish), _) => (Some(wish), None),
            (None, Some((wish, _))) if wish > MAX_WAIT => {
                (Some(wish), Some(format!("wait={}", MAX_WAIT.as_secs())))
            }
            (None, Some((wish, text))) => (Some(wish), Some(text)),
            (None, None) => (None, None),
        };
        Self {
            limit: wish.unwrap_or_default().min(MAX_WAIT),
            until: Until::Finished,
            asked: wish.is_some(),
            applied,
        }
    }

    /// The same for what `until` says, of a job that is created.
    pub(super) fn until(mut self, params: &mut Params) -> Self {
        let until = params.parsed("until", "finished, started or ready", |text| match text {
            "finished" => Some(Until::Finished),
            "started" => Some(Until::Started),
            "ready" => Some(Until::Ready),
            _ => None,
        });
        self.until = until.unwrap_or(Until::Finished);
        self
    }

    /// Can it come to that with a job of this spec?
    pub(super) fn can_be_for(&self, spec: &Spec) -> Result<(), ApiError> {
        match self.until {
            Until::Ready => can_be_ready(spec),
            Until::Finished | Until::Started | Until::VersionAfter(_) => Ok(()),
        }
    }

    /// How long a request may take that waits unless it says otherwise.
    pub(super) fn patience(&self) -> Duration {
        if self.asked { self.limit } else { MAX_WAIT }
    }

    pub(super) fn mark(&self, response: &mut Response) {
        if let Some(applied) = &self.applied {
            respond::set(response, PREFERENCE_APPLIED, applied);
        }
    }
}

/// Can a job of this spec be waited for until it is ready?
pub(super) fn can_be_ready(spec: &Spec) -> Result<(), ApiError> {
    if spec.ready.is_some() {
        return Ok(());
    }
    Err(ApiError::InvalidQuery(vec![Violation {
        place: Place::Parameter("until".to_owned()),
        code: "conflict",
        detail: "a job is ready by its field ready, which this one does not have; until=started is for any job"
            .to_owned(),
    }]))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderName;

    use super::*;
    use crate::headers::PREFER;

    fn header(name: &HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name.clone(), value.parse().unwrap())])
    }

    #[test]
    fn a_wait_in_the_query_beats_a_preferred_one_and_both_are_lowered() {
        let of = |uri: &str, value: &str| {
            let wait = Wait::of(
                &mut Params::of(&uri.parse().unwrap()),
                &header(&PREFER, value),
            );
            (wait.limit.as_secs(), wait.applied)
        };
        assert_eq!(of("/jobs?wait=2", "wait=5"), (2, None));
        assert_eq!(of("/jobs", "wait=5"), (5, Some("wait=5".into())));
        assert_eq!(of("/jobs", "wait=5000"), (300, Some("wait=300".into())));
        assert_eq!(of("/jobs?wait=5000", ""), (300, None));
        assert_eq!(of("/jobs", "x"), (0, None));
    }
}
