//! Requests that are sent twice: the key that says so, and what makes two requests the same.
//!
//! A repeat is looked up before anything is asked that is true of new jobs only: limits, room, policy,
//! what the host can do. Requests with the same key take turns, so that the one that comes while the first
//! is being accepted finds its job, too.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use axum::http::{HeaderMap, Method};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::sync::OwnedMutexGuard;

use crate::api::Api;
use crate::headers::IDEMPOTENCY_KEY;
use crate::layers::auth::Caller;
use crate::problem::{ApiError, Place, Violation};
use job::Idempotency;
use manager::Submitted;

const MAX_KEY_CHARACTERS: usize = 255;

/// Can this be a key?
pub(super) fn is_key(text: &str) -> bool {
    (1..=MAX_KEY_CHARACTERS).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_graphic())
}

type Turn = tokio::sync::Mutex<()>;
/// A caller, and one of its keys.
type Name = (Arc<str>, String);

/// The requests with a key that are being answered; a key is its caller's.
#[derive(Debug, Default)]
pub(super) struct Turns(Mutex<HashMap<Name, Weak<Turn>>>);

impl Turns {
    async fn wait(&self, actor: &Arc<str>, key: &str) -> OwnedMutexGuard<()> {
        let turn = {
            // Held for a look-up and never over an await.
            let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let name = (actor.clone(), key.to_owned());
            let turn = turns.get(&name).and_then(Weak::upgrade);
            turn.unwrap_or_else(|| {
                turns.retain(|_, turn| turn.strong_count() > 0);
                let turn = Arc::default();
                turns.insert(name, Arc::downgrade(&turn));
                turn
            })
        };
        turn.lock_owned().await
    }
}

/// What a request is to those with the same key.
pub(super) enum Request {
    /// There was none before it.
    New(Claim),
    /// This is the answer to it.
    Repeat(Submitted),
}

/// The right to make the job of a key, or of none, until it is dropped.
#[derive(Default)]
pub(super) struct Claim {
    pub(super) idempotency: Option<Idempotency>,
    _turn: Option<OwnedMutexGuard<()>>,
}

impl Request {
    /// Finds out; waits for the turn of the key.
    pub(super) async fn of(
        api: &Api,
        caller: &Caller,
        key: Option<String>,
        (method, path): (&Method, &str),
        body: &[u8],
    ) -> Result<Self, ApiError> {
        let claim = Claim::of(api, caller, key, (method, path), body).await;
        let Some(idempotency) = &claim.idempotency else {
            return Ok(Self::New(claim));
        };
        let earlier = api.manager.submitted(&caller.actor, idempotency).await?;
        Ok(match earlier {
            Some(submitted) => Self::Repeat(submitted),
            None => Self::New(claim),
        })
    }
}

impl Claim {
    /// Waits for the turn of the key. Whether it has been used is for the caller to ask.
    pub(super) async fn of(
        api: &Api,
        caller: &Caller,
        key: Option<String>,
        (method, path): (&Method, &str),
        body: &[u8],
    ) -> Self {
        let Some(key) = key else {
            return Self::default();
        };
        let turn = api.turns.wait(&caller.actor, &key).await;
        let fingerprint = fingerprint(method, path, body);
        Self {
            idempotency: Some(Idempotency { key, fingerprint }),
            _turn: Some(turn),
        }
    }
}

/// The SHA-256 of a request. The order of keys and spaces in its JSON make no difference.
fn fingerprint(method: &Method, path: &str, body: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(format!("{method} {path}\n"));
    match serde_json::from_slice::<Value>(body) {
        Ok(mut value) => {
            value.sort_all_objects();
            hash.update(value.to_string());
        }
        // It is no request that is accepted, or has no body.
        Err(_) => hash.update(body),
    }
    hash.finalize().into()
}

/// The key, with or without the quotes that the draft asks for and few clients send.
pub(super) fn key(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let mut values = headers.get_all(&IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let bytes = value.as_bytes();
    let bytes = bytes
        .strip_prefix(b"\"")
        .and_then(|rest| rest.strip_suffix(b"\""))
        .unwrap_or(bytes);
    let key = std::str::from_utf8(bytes).unwrap_or_default();
    if is_key(key) && values.next().is_none() {
        return Ok(Some(key.to_owned()));
    }
    Err(ApiError::InvalidHeader(Violation {
        place: Place::Header("Idempotency-Key"),
        code: "invalid_value",
        detail: "must come once, with 1 to 255 visible ASCII characters".to_owned(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(IDEMPOTENCY_KEY, value.parse().unwrap())])
    }

    #[test]
    fn a_key_is_visible_ascii_with_or_without_quotes() {
        let key = |value: &str| key(&header(value)).map_err(|_| ());
        assert_eq!(key("a-1"), Ok(Some("a-1".into())));
        assert_eq!(key("\"a-1\""), Ok(Some("a-1".into())));
        assert_eq!(key(&"k".repeat(255)), Ok(Some("k".repeat(255))));
        for bad in ["", "\"\"", "a b", "ä", &"k".repeat(256)] {
            assert_eq!(key(bad), Err(()), "{bad}");
        }
        assert_eq!(super::key(&HeaderMap::new()).unwrap(), None);
    }

    #[test]
    fn requests_are_told_apart_by_method_path_and_body() {
        let of = |path: &str, body: &str| fingerprint(&Method::POST, path, body.as_bytes());
        let one = of("/jobs", r#"{"a": 1, "b": {"c": 2, "d": 3}}"#);
        assert_eq!(of("/jobs", r#"{"b":{"d":3,"c":2},"a":1}"#), one);
        let others = [
            of("/jobs/x/rerun", r#"{"a": 1, "b": {"c": 2, "d": 3}}"#),
            of("/jobs", r#"{"a": 1, "b": {"c": 2, "d": 4}}"#),
            of("/jobs", r#"{"a": "1", "b": {"c": 2, "d": 3}}"#),
            of("/jobs", ""),
            of("/jobs/x/rerun", ""),
            of("/jobs/y/rerun", ""),
        ];
        let distinct: std::collections::HashSet<_> = others.iter().chain([&one]).collect();
        assert_eq!(distinct.len(), 7);
        assert_ne!(
            fingerprint(&Method::PUT, "/jobs", b"{}"),
            fingerprint(&Method::POST, "/jobs", b"{}")
        );
    }

    #[tokio::test]
    async fn one_key_is_one_turn() {
        let turns = Turns::default();
        let (one, other): (Arc<str>, Arc<str>) = ("one".into(), "other".into());
        let held = turns.wait(&one, "k").await;
        let second = turns.wait(&one, "k");
        let mut second = std::pin::pin!(second);
        tokio::select! {
            biased;
            _ = second.as_mut() => panic!("two at once"),
            () = std::future::ready(()) => {}
        }
        drop(turns.wait(&one, "l").await);
        drop(turns.wait(&other, "k").await);
        drop(held);
        drop(second.await);
        drop(turns.wait(&one, "m").await);
        assert_eq!(
            turns.0.lock().unwrap().len(),
            1,
            "what is over is forgotten"
        );
    }
}
