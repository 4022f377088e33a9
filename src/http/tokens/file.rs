//! The token files: read by the server, written by `procession token`.
//!
//! A change replaces the whole file under a lock, so that readers need none.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use nix::unistd::geteuid;
use serde::{Deserialize, Serialize};

use super::{Access, DEFAULT, Fingerprint};
use job::time::Timestamp;
use linux::clock;
use protocol::state_dir::{self, StateDirError, private_file};

const FILE: &str = "tokens.json";
const FRESH: &str = "tokens.json.new";
const LOCK: &str = "tokens.lock";
const DEFAULT_FILE: &str = "token";

/// The most tokens: each is compared on every request.
const MOST: usize = 1000;
/// Far more than that many tokens take.
const FILE_BYTES: u64 = 1 << 20;

/// Why tokens cannot be read or changed: one line that says the fix.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// The state directory, or the first start's token in it.
    #[error(transparent)]
    StateDir(#[from] Unusable),
    /// The file is damaged, or somebody else can read it.
    #[error("{path}: {why}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong, and the fix.
        why: String,
    },
    /// Names are given once.
    #[error("there is a token {0} already; revoke it first, or choose another name")]
    Exists(TokenName),
    /// There is nothing to revoke.
    #[error("there is no token {0}")]
    Unknown(TokenName),
    /// More would slow every request.
    #[error("there are {MOST} tokens already; revoke some first")]
    TooMany,
}

/// The state directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct Unusable(StateDirError);

impl From<StateDirError> for AuthError {
    fn from(error: StateDirError) -> Self {
        Self::StateDir(Unusable(error))
    }
}

/// The name of a token: 1 to 64 lower-case letters, digits and `-_.`, the first a letter or a digit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct TokenName(String);

impl FromStr for TokenName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let good = (1..=64).contains(&text.len())
            && text
                .bytes()
                .all(|byte| plain(byte) || b"-_.".contains(&byte))
            && text.bytes().next().is_some_and(plain);
        if good {
            Ok(Self(text.to_owned()))
        } else {
            Err(
                "must be 1 to 64 lower-case letters, digits and -_. with a letter or digit first"
                    .to_owned(),
            )
        }
    }
}

impl TryFrom<String> for TokenName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for TokenName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How long a token lasts: a number and `s`, `m`, `h` or `d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expiry(pub Duration);

impl FromStr for Expiry {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const TEN_YEARS: u64 = 10 * 365 * 86_400;
        let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit = match &text[number.len()..] {
            "s" => Some(1),
            "m" => Some(60),
            "h" => Some(3600),
            "d" => Some(86_400),
            _ => None,
        };
        let seconds = unit
            .zip(number.parse::<u64>().ok())
            .and_then(|(unit, number)| number.checked_mul(unit))
            .filter(|seconds| (1..=TEN_YEARS).contains(seconds));
        match seconds {
            Some(seconds) => Ok(Self(Duration::from_secs(seconds))),
            None => {
                Err("must be a number with s, m, h or d, such as 90d, up to ten years".to_owned())
            }
        }
    }
}

/// What is kept of a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Who it is for.
    pub name: TokenName,
    scope: Scope,
    sha256: Digest,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends by itself.
    pub expires_at: Option<Timestamp>,
}

impl Entry {
    /// What its holder may do.
    #[must_use]
    pub fn scope(&self) -> Access {
        self.scope.0
    }

    pub(super) fn sha256(&self) -> [u8; 32] {
        self.sha256.0
    }
}

/// An access word that a token can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(super) struct Scope(pub(super) Access);

impl TryFrom<String> for Scope {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        let found = Access::SCOPES
            .into_iter()
            .find(|scope| scope.as_str() == text);
        found.map(Self).ok_or("not a scope")
    }
}

impl From<Scope> for String {
    fn from(scope: Scope) -> Self {
        scope.0.as_str().to_owned()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(super) struct Digest(pub(super) [u8; 32]);

impl TryFrom<String> for Digest {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        let mut bytes = [0; 32];
        if text.len() != 64 || !text.is_ascii() {
            return Err("not a SHA-256");
        }
        for (index, byte) in bytes.iter_mut().enumerate() {
            let digits = &text[2 * index..2 * index + 2];
            *byte = u8::from_str_radix(digits, 16).map_err(|_| "not a SHA-256")?;
        }
        Ok(Self(bytes))
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        hexadecimal(&digest.0)
    }
}

pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Contents {
    tokens: Vec<Entry>,
}

/// The token files.
pub(super) fn paths(state_dir: &Path) -> [PathBuf; 2] {
    [DEFAULT_FILE, FILE].map(|name| state_dir.join(name))
}

/// The first start's token; nothing if its file was removed.
pub(super) fn present_token(state_dir: &Path) -> Result<Option<String>, StateDirError> {
    if state_dir.join(DEFAULT_FILE).exists() {
        state_dir::token(state_dir).map(Some)
    } else {
        Ok(None)
    }
}

/// Can the present files be used? It makes none.
pub(crate) fn check(state_dir: &Path) -> Result<(), AuthError> {
    present_token(state_dir)?;
    list(state_dir).map(drop)
}

/// Every token but the first start's.
pub fn list(state_dir: &Path) -> Result<Vec<Entry>, AuthError> {
    let path = state_dir.join(FILE);
    let wrong = |why: String| AuthError::File {
        path: path.clone(),
        why,
    };
    match fs::symlink_metadata(&path) {
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(Vec::new());
        }
        Err(error) => return Err(wrong(error.to_string())),
        Ok(found) if !found.is_file() => return Err(wrong("is no regular file".to_owned())),
        Ok(found) if found.mode() & 0o077 != 0 => {
            return Err(wrong(format!(
                "can be read by others (mode {:04o}); run chmod 600 on it",
                found.mode() & 0o7777
            )));
        }
        Ok(_) => {}
    }
    let mut text = String::new();
    private_file(&path, false)
        .and_then(|file| file.take(FILE_BYTES).read_to_string(&mut text))
        .map_err(|error| wrong(format!("cannot be read: {error}")))?;
    let contents: Contents = serde_json::from_str(&text)
        .map_err(|error| wrong(format!("is damaged ({error}); repair or remove it")))?;
    Ok(contents.tokens)
}

/// Makes a token and gives back its text, which is kept nowhere.
pub fn create(
    state_dir: &Path,
    name: &TokenName,
    scope: Access,
    expires_at: Option<Timestamp>,
) -> Result<String, AuthError> {
    create_entry(state_dir, name, scope, expires_at).map(|(_, text)| text)
}

/// The same, with what is kept of it.
pub(super) fn create_entry(
    state_dir: &Path,
    name: &TokenName,
    scope: Access,
    expires_at: Option<Timestamp>,
) -> Result<(Entry, String), AuthError> {
    let _lock = lock(state_dir)?;
    let mut tokens = list(state_dir)?;
    if name.0 == DEFAULT || tokens.iter().any(|token| token.name == *name) {
        return Err(AuthError::Exists(name.clone()));
    }
    if tokens.len() >= MOST {
        return Err(AuthError::TooMany);
    }
    let text = random(state_dir)?;
    let entry = Entry {
        name: name.clone(),
        scope: Scope(scope),
        sha256: Digest(Fingerprint::of(&text).0),
        created_at: clock::wall(),
        expires_at,
    };
    tokens.push(entry.clone());
    replace(state_dir, tokens)?;
    Ok((entry, text))
}

/// Ends a token. The first start's is replaced by a fresh one in its file.
pub fn revoke(state_dir: &Path, name: &TokenName) -> Result<(), AuthError> {
    let _lock = lock(state_dir)?;
    if name.0 == DEFAULT {
        let path = state_dir.join(DEFAULT_FILE);
        return match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(AuthError::File {
                path,
                why: error.to_string(),
            }),
            Ok(()) | Err(_) => Ok(state_dir::token(state_dir).map(drop)?),
        };
    }
    let mut tokens = list(state_dir)?;
    let before = tokens.len();
    tokens.retain(|token| token.name != *name);
    if tokens.len() == before {
        return Err(AuthError::Unknown(name.clone()));
    }
    replace(state_dir, tokens)
}

fn random(state_dir: &Path) -> Result<String, AuthError> {
    let mut random = [0; 32];
    getrandom::fill(&mut random).map_err(|error| AuthError::File {
        path: state_dir.join(FILE),
        why: format!("no random bytes: {error}"),
    })?;
    // The prefix lets scanners for leaked secrets find it.
    Ok(format!("procession_{}", hexadecimal(&random)))
}

/// Keeps other changes out. The files of another user would be unreadable to the service.
fn lock(state_dir: &Path) -> Result<Flock<File>, AuthError> {
    let wrong = |why: String| AuthError::File {
        path: state_dir.to_owned(),
        why,
    };
    let found = fs::symlink_metadata(state_dir).map_err(|error| {
        wrong(format!(
            "{error}; start the service once, which makes it, or name the service's own with --state-dir"
        ))
    })?;
    if found.uid() != geteuid().as_raw() {
        return Err(wrong(format!(
            "belongs to uid {}; run this as root or as that user",
            found.uid()
        )));
    }
    let file = private_file(&state_dir.join(LOCK), false)
        .map_err(|error| wrong(format!("cannot write in it: {error}")))?;
    Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| wrong(errno.to_string()))
}

fn replace(state_dir: &Path, tokens: Vec<Entry>) -> Result<(), AuthError> {
    let (path, fresh) = (state_dir.join(FILE), state_dir.join(FRESH));
    let write = || -> io::Result<()> {
        let text = serde_json::to_vec_pretty(&Contents { tokens })?;
        // One that an interrupted change left behind may be a link by now.
        match fs::remove_file(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let mut file = private_file(&fresh, true)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&fresh, &path)?;
        File::open(state_dir)?.sync_all()
    };
    write().map_err(|error| AuthError::File {
        path: path.clone(),
        why: format!("cannot be written: {error}"),
    })
}
