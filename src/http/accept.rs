//! Choosing a media type by `Accept` (RFC 9110, 12.5.1) and reading `Prefer` (RFC 7240).

use std::time::Duration;

use axum::http::header::ACCEPT;
use axum::http::{HeaderMap, HeaderName};

use crate::headers::PREFER;
use crate::problem::ApiError;
use crate::query;

/// The offered type that the client likes best; the first one where it says nothing.
pub(super) fn choose(
    headers: &HeaderMap,
    offered: &'static [&'static str],
) -> Result<&'static str, ApiError> {
    let wishes: Vec<String> = items(headers, &ACCEPT);
    if wishes.is_empty() {
        return offered
            .first()
            .copied()
            .ok_or(ApiError::NotAcceptable { offered });
    }
    let mut best: Option<(f32, &'static str)> = None;
    for kind in offered {
        let quality = quality(&wishes, kind);
        if quality > best.map_or(0.0, |(quality, _)| quality) {
            best = Some((quality, kind));
        }
    }
    best.map(|(_, kind)| kind)
        .ok_or(ApiError::NotAcceptable { offered })
}

/// The quality of `kind` by its most specific wish.
fn quality(wishes: &[String], kind: &str) -> f32 {
    let family = kind.split('/').next().unwrap_or_default();
    let mut found = (0, 0.0);
    for wish in wishes {
        let mut parts = wish.split(';').map(str::trim);
        let range = parts.next().unwrap_or_default().to_ascii_lowercase();
        let specific = match range.strip_suffix("/*") {
            _ if range == kind => 3,
            Some("*") => 1,
            Some(prefix) if prefix == family => 2,
            Some(_) | None => continue,
        };
        let quality = parts
            .find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")))
            .map_or(1.0, |text| {
                text.parse::<f32>().unwrap_or(0.0).clamp(0.0, 1.0)
            });
        if specific > found.0 {
            found = (specific, quality);
        }
    }
    found.1
}

/// The duration in `Prefer: wait=N`, with the text to be repeated in `Preference-Applied`. What is not
/// understood is ignored, as the RFC demands.
pub(super) fn preferred_wait(headers: &HeaderMap) -> Option<(Duration, String)> {
    items(headers, &PREFER).iter().find_map(|item| {
        let preference = item.split(';').next()?.trim();
        let (name, value) = preference.split_once('=')?;
        let value = value.trim().trim_matches('"');
        let wait = query::seconds(value)?;
        name.trim()
            .eq_ignore_ascii_case("wait")
            .then(|| (wait, format!("wait={value}")))
    })
}

/// The items of a comma-separated header that may be repeated.
fn items(headers: &HeaderMap, name: &HeaderName) -> Vec<String> {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|item| item.trim().to_owned())
        .filter(|item| !item.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFFERED: &[&str] = &["text/plain", "application/octet-stream"];

    fn headers(name: &HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name.clone(), value.parse().unwrap())])
    }

    #[test]
    fn the_client_gets_what_it_likes_best() {
        for (accept, expected) in [
            ("*/*", Some("text/plain")),
            ("", Some("text/plain")),
            ("application/octet-stream", Some("application/octet-stream")),
            ("application/*", Some("application/octet-stream")),
            (
                "text/plain;q=0.5, application/octet-stream;q=0.9",
                Some("application/octet-stream"),
            ),
            ("text/plain;q=0, */*", Some("application/octet-stream")),
            ("TEXT/PLAIN; charset=utf-8", Some("text/plain")),
            ("text/html", None),
            ("*/*;q=0", None),
            ("nonsense", None),
        ] {
            let chosen = choose(&headers(&ACCEPT, accept), OFFERED).ok();
            assert_eq!(chosen, expected, "{accept}");
        }
    }

    #[test]
    fn a_preferred_wait_is_found_among_others() {
        let wait = |value: &str| preferred_wait(&headers(&PREFER, value));
        assert_eq!(
            wait("respond-async, wait=1.5; x=y"),
            Some((Duration::from_millis(1500), "wait=1.5".into()))
        );
        assert_eq!(wait("Wait=\"7\"").map(|(wait, _)| wait.as_secs()), Some(7));
        for nothing in ["", "wait", "wait=-1", "wait=x", "return=minimal"] {
            assert_eq!(wait(nothing), None, "{nothing}");
        }
    }
}
