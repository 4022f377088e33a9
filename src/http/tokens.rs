//! Tokens: who may come in over TCP and what they may do.
//!
//! Two files of the state directory say it: `token` holds the first start's own token, `tokens.json` the
//! SHA-256 of every other. A running server follows both files. It knows no HTTP.

mod file;
pub mod sessions;

use std::convert::Infallible;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::followed;
pub(crate) use file::check;
pub use file::{AuthError, Entry, Expiry, TokenName, create, list, revoke};
use job::time::Timestamp;
use linux::clock;
use protocol::state_dir;

/// How long an expiry is waited for at once: a step of the wall clock is noticed after that.
const EXPIRY_CHECK: Duration = Duration::from_secs(60);

/// The name of the token that the first start makes.
pub const DEFAULT: &str = "default";

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
    /// Being a node of its cluster, and nothing else.
    Runner,
}

impl Access {
    /// What a token can be given.
    pub const SCOPES: [Self; 5] = [
        Self::Metrics,
        Self::Read,
        Self::Operate,
        Self::Admin,
        Self::Runner,
    ];

    /// The word in `openapi.yaml`, on the command line and in `tokens.json`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Metrics => "metrics",
            Self::Read => "read",
            Self::Operate => "operate",
            Self::Admin => "admin",
            Self::Runner => "runner",
        }
    }

    /// May a caller with this scope use a route that demands `needed`?
    #[must_use]
    pub fn reaches(self, needed: Self) -> bool {
        match needed {
            Self::Public => true,
            Self::Metrics => !matches!(self, Self::Public | Self::Runner),
            Self::Runner => self == Self::Runner,
            Self::Read => matches!(self, Self::Read | Self::Operate | Self::Admin),
            Self::Operate => matches!(self, Self::Operate | Self::Admin),
            Self::Admin => self == Self::Admin,
        }
    }
}

/// The SHA-256 of a token: recognises it without keeping it.
#[derive(Clone, Copy)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// That of `token`.
    #[must_use]
    pub fn of(token: &str) -> Self {
        Self(Sha256::digest(token.as_bytes()).into())
    }

    /// Takes the same time for every other one.
    fn is(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fingerprint")
    }
}

/// One token that is recognised.
#[derive(Clone, Debug)]
struct Known {
    actor: Arc<str>,
    scope: Access,
    fingerprint: Fingerprint,
    expires_at: Option<Timestamp>,
}

impl Known {
    fn default(token: &str) -> Self {
        Self {
            actor: format!("token:{DEFAULT}").into(),
            scope: Access::Admin,
            fingerprint: Fingerprint::of(token),
            expires_at: None,
        }
    }

    fn is_valid(&self, now: Timestamp) -> bool {
        self.expires_at.is_none_or(|end| now < end)
    }
}

impl From<&Entry> for Known {
    fn from(entry: &Entry) -> Self {
        Self {
            actor: format!("token:{}", entry.name).into(),
            scope: entry.scope(),
            fingerprint: Fingerprint(entry.sha256()),
            expires_at: entry.expires_at,
        }
    }
}

/// Every token that is currently recognised; clones share what they know.
#[derive(Clone, Debug)]
pub struct Tokens {
    known: Arc<watch::Sender<Vec<Known>>>,
    /// Where the files are; nowhere for one token that is given.
    state_dir: Option<Arc<Path>>,
}

impl Tokens {
    /// Recognises `token` as the one of the first start, and no other.
    #[must_use]
    pub fn of(token: &str) -> Self {
        Self {
            known: Arc::new(watch::Sender::new(vec![Known::default(token)])),
            state_dir: None,
        }
    }

    /// Makes the first start's token if there is none, and reads both files.
    pub(crate) fn open(state_dir: &Path) -> Result<Self, AuthError> {
        let token = state_dir::token(state_dir)?;
        let mut known = vec![Known::default(&token)];
        known.extend(list(state_dir)?.iter().map(Known::from));
        Ok(Self {
            known: Arc::new(watch::Sender::new(known)),
            state_dir: Some(state_dir.into()),
        })
    }

    /// Is the first start's token valid?
    pub(crate) fn has_default(&self) -> bool {
        let known = self.known.borrow();
        let actor = format!("token:{DEFAULT}");
        known.iter().any(|one| *one.actor == *actor)
    }

    /// Every token but the first start's, as the files have them.
    pub(crate) fn entries(&self) -> Result<Vec<Entry>, AuthError> {
        self.state_dir
            .as_deref()
            .map_or_else(|| Ok(Vec::new()), list)
    }

    /// Makes a token, which is recognised from now on; gives what is kept of it, and its text.
    pub(crate) fn create(
        &self,
        name: &TokenName,
        scope: Access,
        expires_at: Option<Timestamp>,
    ) -> Result<(Entry, String), AuthError> {
        let Some(state_dir) = self.state_dir.as_deref() else {
            return Err(AuthError::TooMany);
        };
        let (entry, text) = file::create_entry(state_dir, name, scope, expires_at)?;
        self.reload(state_dir);
        Ok((entry, text))
    }

    /// Ends a token at once.
    pub(crate) fn revoke(&self, name: &TokenName) -> Result<(), AuthError> {
        let Some(state_dir) = self.state_dir.as_deref() else {
            return Err(AuthError::Unknown(name.clone()));
        };
        revoke(state_dir, name)?;
        self.reload(state_dir);
        Ok(())
    }

    /// Whose token it is, unless it is unknown, revoked or expired. Every token is compared, so that the
    /// time tells nothing about which one is near.
    #[must_use]
    pub fn recognise(&self, token: &str) -> Option<Grant> {
        let fingerprint = Fingerprint::of(token);
        let known = self.known.borrow();
        let mut found = None;
        for one in known.iter() {
            if one.fingerprint.is(&fingerprint) {
                found = Some(one);
            }
        }
        found
            .filter(|one| one.is_valid(clock::wall()))
            .map(|one| Grant {
                actor: one.actor.clone(),
                scope: one.scope,
                fingerprint,
                tokens: self.clone(),
            })
    }

    /// The grant of the token with this fingerprint, where it is valid and reaches `scope`.
    fn still(&self, fingerprint: &Fingerprint, scope: Access) -> Option<Grant> {
        let known = self.known.borrow();
        let now = clock::wall();
        known
            .iter()
            .find(|one| {
                one.fingerprint.is(fingerprint) && one.scope.reaches(scope) && one.is_valid(now)
            })
            .map(|one| Grant {
                actor: one.actor.clone(),
                scope,
                fingerprint: *fingerprint,
                tokens: self.clone(),
            })
    }

    /// Follows the files for as long as it is polled.
    pub(crate) async fn follow(self, state_dir: &Path) {
        let read = || Ok::<_, Infallible>(present(state_dir));
        let take = |known, _| self.set(known);
        followed::follow(&file::paths(state_dir), read, take, |never| match *never {}).await;
    }

    fn reload(&self, state_dir: &Path) {
        self.set(present(state_dir));
    }

    fn set(&self, known: Vec<Known>) {
        tracing::debug!(tokens = known.len(), "the tokens were read again");
        self.known.send_replace(known);
    }
}

/// The tokens of the files. What cannot be read recognises nobody: a secret that is broken must not keep doors open.
fn present(state_dir: &Path) -> Vec<Known> {
    let mut known = Vec::new();
    match file::present_token(state_dir) {
        Ok(Some(token)) => known.push(Known::default(&token)),
        Ok(None) => tracing::warn!("the file token is gone: its token is revoked"),
        Err(error) => tracing::error!("the token of the first start is not valid: {error}"),
    }
    match list(state_dir) {
        Ok(entries) => known.extend(entries.iter().map(Known::from)),
        Err(error) => tracing::error!("no named token is valid: {error}"),
    }
    known
}

/// What a token gave to whoever sent it, for as long as the token lasts.
#[derive(Clone, Debug)]
pub struct Grant {
    /// For records: `token:NAME`.
    pub actor: Arc<str>,
    /// The most that may be done with it.
    pub scope: Access,
    fingerprint: Fingerprint,
    tokens: Tokens,
}

impl Grant {
    /// Resolves when the token has been revoked, has lost scope or has expired. Answers that stay open
    /// wait for this as well.
    pub async fn ended(&self) {
        let mut changes = self.tokens.known.subscribe();
        loop {
            let expires_at = {
                let known = changes.borrow_and_update();
                let still = known.iter().find(|one| {
                    one.fingerprint.is(&self.fingerprint) && one.scope.reaches(self.scope)
                });
                match still {
                    Some(one) => one.expires_at,
                    None => return,
                }
            };
            let left = expires_at.map(|end| end.since(clock::wall()));
            if left == Some(Duration::ZERO) {
                return;
            }
            let look_again = left.map(|left| Instant::now() + left.min(EXPIRY_CHECK));
            let changed = match look_again {
                None => changes.changed().await,
                Some(moment) => tokio::time::timeout_at(moment, changes.changed())
                    .await
                    .unwrap_or(Ok(())),
            };
            changed.expect("the grant holds the sender");
        }
    }
}

#[cfg(test)]
mod tests;
