//! Who asks, and whether they may.
//!
//! The access word of a route comes from the route table. The check runs before any body byte is read.

use std::fmt;
use std::sync::Arc;

use axum::extract::Request;
use axum::http::header::AUTHORIZATION;
use axum::http::{Extensions, HeaderMap};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::problem::ApiError;
use super::{AuthMode, Settings};

/// What a route demands, and the most that a caller may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// Everyone, without a token.
    Public,
    /// Numbers about the service.
    Metrics,
    /// Looking at jobs.
    Read,
    /// Starting, stopping and signalling jobs.
    Operate,
    /// Governing the service.
    Admin,
}

impl Access {
    /// The word in `openapi.yaml`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Metrics => "metrics",
            Self::Read => "read",
            Self::Operate => "operate",
            Self::Admin => "admin",
        }
    }

    /// May a caller with this scope use a route that demands `needed`?
    #[must_use]
    pub fn reaches(self, needed: Self) -> bool {
        match needed {
            Self::Public => true,
            Self::Metrics => self != Self::Public,
            Self::Read => matches!(self, Self::Read | Self::Operate | Self::Admin),
            Self::Operate => matches!(self, Self::Operate | Self::Admin),
            Self::Admin => self == Self::Admin,
        }
    }
}

/// The user on the other end of a unix socket connection; the server puts it into the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerUid(pub u32);

/// Who sent a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Caller {
    /// For records: `token:default`, `uid:1000` or `anonymous`.
    pub(super) actor: Arc<str>,
    /// What they may do.
    pub(super) scope: Access,
}

/// Recognises the token without keeping it.
#[derive(Clone, Copy)]
pub struct Verifier([u8; 32]);

impl Verifier {
    /// A verifier that recognises `token`.
    #[must_use]
    pub fn of(token: &str) -> Self {
        Self(Sha256::digest(token.as_bytes()).into())
    }

    /// Is it this token? Takes the same time for every wrong one.
    #[must_use]
    pub fn recognises(&self, token: &str) -> bool {
        Self::of(token).0.ct_eq(&self.0).into()
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verifier")
    }
}

/// Finds out who asks and whether they may; `needed` is the route's access word.
pub(super) fn check(
    settings: &Settings,
    request: &mut Request,
    needed: Access,
) -> Result<(), ApiError> {
    if needed == Access::Public {
        return Ok(());
    }
    let caller = identify(settings, request.headers(), request.extensions())?;
    if !caller.scope.reaches(needed) {
        return Err(ApiError::Forbidden {
            needed: needed.as_str(),
        });
    }
    request.extensions_mut().insert(caller);
    Ok(())
}

fn identify(
    settings: &Settings,
    headers: &HeaderMap,
    extensions: &Extensions,
) -> Result<Caller, ApiError> {
    if let Some(PeerUid(uid)) = extensions.get() {
        return if *uid == 0 || *uid == settings.uid {
            Ok(admin(&format!("uid:{uid}")))
        } else {
            Err(ApiError::PeerNotAllowed)
        };
    }
    match &settings.auth {
        AuthMode::None => Ok(admin("anonymous")),
        AuthMode::Token { verifier } => match bearer(headers) {
            Some(token) if verifier.recognises(token) => Ok(admin("token:default")),
            Some(_) | None => Err(ApiError::Unauthenticated),
        },
    }
}

fn admin(actor: &str) -> Caller {
    Caller {
        actor: actor.into(),
        scope: Access::Admin,
    }
}

/// The token of the only `Authorization` header; two headers are none.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (Some(only), None) = (values.next(), values.next()) else {
        return None;
    };
    let (scheme, token) = only.to_str().ok()?.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Access; 5] = [
        Access::Public,
        Access::Metrics,
        Access::Read,
        Access::Operate,
        Access::Admin,
    ];

    #[test]
    fn every_scope_reaches_those_before_it_and_no_other() {
        for (held, scope) in ALL.into_iter().enumerate() {
            for (wanted, needed) in ALL.into_iter().enumerate() {
                assert_eq!(
                    scope.reaches(needed),
                    wanted <= held,
                    "{scope:?} {needed:?}"
                );
            }
        }
    }

    #[test]
    fn only_the_very_token_is_recognised() {
        let verifier = Verifier::of("abc");
        assert!(verifier.recognises("abc"));
        for wrong in ["", "ab", "abcd", "ABC"] {
            assert!(!verifier.recognises(wrong));
        }
        assert_eq!(format!("{verifier:?}"), "Verifier");
    }

    #[test]
    fn a_bearer_token_comes_from_exactly_one_header() {
        let with = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(AUTHORIZATION, value.parse().unwrap());
            }
            bearer(&headers).map(str::to_owned)
        };
        assert_eq!(with(&["Bearer abc"]).as_deref(), Some("abc"));
        assert_eq!(with(&["bearer  abc"]).as_deref(), Some("abc"));
        for wrong in [
            &[][..],
            &["abc"],
            &["Basic abc"],
            &["Bearer "],
            &["Bearer a", "Bearer a"],
        ] {
            assert_eq!(with(wrong), None, "{wrong:?}");
        }
    }
}
