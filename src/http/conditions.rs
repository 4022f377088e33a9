//! Conditions on a request (RFC 9110, section 13): `If-Match` and `If-None-Match`.
//!
//! [`check`] holds for every route that does something to a job, from the route table on.

use axum::http::header::{IF_MATCH, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderName};

use crate::api::Api;
use crate::problem::ApiError;
use crate::view;
use job::JobId;

/// Does a request that would do something to this job have to be left undone?
pub(super) async fn check(api: &Api, id: JobId, headers: &HeaderMap) -> Result<(), ApiError> {
    let is_conditional = headers.contains_key(IF_MATCH) || headers.contains_key(IF_NONE_MATCH);
    if !is_conditional {
        return Ok(());
    }
    let etag = view::etag(&*api.manager.get(id).await?);
    let is_met = !headers.contains_key(IF_MATCH) || match_has(headers, &etag);
    if is_met && !none_match_has(headers, &etag) {
        Ok(())
    } else {
        Err(ApiError::PreconditionFailed)
    }
}

fn tags<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
}

/// How often a change without `If-Match` is tried on what changes at the same time.
const ATTEMPTS: usize = 8;

/// Makes a change of what was read just before; `attempt` gives `None` if that has changed meanwhile, and is then made
/// again, unless the client knows what it changes.
pub(super) async fn change<T, A>(
    headers: &HeaderMap,
    attempt: impl Fn() -> A,
) -> Result<T, ApiError>
where
    A: Future<Output = Result<Option<T>, ApiError>>,
{
    let attempts = if headers.contains_key(IF_MATCH) {
        1
    } else {
        ATTEMPTS
    };
    for _ in 0..attempts {
        if let Some(changed) = attempt().await? {
            return Ok(changed);
        }
    }
    Err(ApiError::PreconditionFailed)
}

/// Does `If-None-Match` name this tag? Weak and strong tags compare alike here (RFC 9110, 13.1.2).
pub(super) fn none_match_has(headers: &HeaderMap, etag: &str) -> bool {
    tags(headers, &IF_NONE_MATCH)
        .any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
}

/// Does `If-Match` name this tag? Only strong tags match (RFC 9110, 13.1.1).
pub(super) fn match_has(headers: &HeaderMap, etag: &str) -> bool {
    tags(headers, &IF_MATCH).any(|tag| tag == "*" || tag == etag)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(name: &HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name.clone(), value.parse().unwrap())])
    }

    #[test]
    fn tags_compare_weakly_to_spare_a_body() {
        let has = |value: &str| none_match_has(&header(&IF_NONE_MATCH, value), "\"7\"");
        for good in ["\"7\"", "W/\"7\"", "\"6\", \"7\"", "*"] {
            assert!(has(good), "{good}");
        }
        for bad in ["7", "\"6\"", "\"77\""] {
            assert!(!has(bad), "{bad}");
        }
    }

    #[test]
    fn tags_compare_strongly_before_a_change() {
        let has = |value: &str| match_has(&header(&IF_MATCH, value), "\"7\"");
        for good in ["\"7\"", "\"6\", \"7\"", "*"] {
            assert!(has(good), "{good}");
        }
        for bad in ["7", "W/\"7\"", "\"6\"", "\"77\"", ""] {
            assert!(!has(bad), "{bad}");
        }
    }
}
